"""What a predictor is, and how one is run on every prefix of a prompt."""

from collections.abc import Callable

import torch


# (xs (B, n, D), ys (B, n), query (B, D)) -> prediction (B,), or (B, K) of K settings at once, for n >= 1
Predictor = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def predict_prefixes(
    predictor: Predictor, xs: torch.Tensor, ys: torch.Tensor, queries: torch.Tensor | None = None
) -> torch.Tensor:
    """
    Predict y at every point from the points before it, 0 where there are none.

    Args:
        predictor (`Predictor`):
            A baseline or the limit of a task, or any function of the same form.
        xs (`torch.Tensor` of shape `(B, P, D)`), ys (`torch.Tensor` of shape `(B, P)` or `(B, P - 1)`):
            Prompts.
        queries (`torch.Tensor` of shape `(B, P, D)`, *optional*, defaults to `xs`):
            Where to predict; query i is answered from the points before i.

    Returns:
        `torch.Tensor` of shape `(B, P)`, float64, or `(B, P, K)` of a predictor of K settings: prediction i depends on
        the points before i and on query i only.

    Raises:
        `ValueError`: the shapes do not belong together, or a value is not finite.
    """
    queries = xs if queries is None else queries
    _check_prompts(xs, ys, queries)
    xs, ys, queries = xs.double(), ys.double(), queries.double()
    predictions = [predictor(xs[:, :n], ys[:, :n], queries[:, n]) for n in range(1, xs.shape[1])]
    nothing_seen = torch.zeros_like(predictions[0]) if predictions else xs.new_zeros(len(xs))
    return torch.stack([nothing_seen, *predictions], dim=1)


def _check_prompts(xs: torch.Tensor, ys: torch.Tensor, queries: torch.Tensor):
    if xs.ndim != 3 or 0 in xs.shape:
        raise ValueError(f"`xs` must have shape (prompts, points, dimensions), none of them 0, got {tuple(xs.shape)}.")
    n_prompts, n_points = xs.shape[:2]
    if ys.shape not in ((n_prompts, n_points), (n_prompts, n_points - 1)):
        raise ValueError(
            f"`ys` must have shape {(n_prompts, n_points)} or {(n_prompts, n_points - 1)}, got {tuple(ys.shape)}."
        )
    if queries.shape != xs.shape:
        raise ValueError(f"`queries` must have the shape of `xs`, {tuple(xs.shape)}, got {tuple(queries.shape)}.")
    for name, values in (("xs", xs), ("ys", ys[:, : n_points - 1]), ("queries", queries)):
        if not values.isfinite().all():
            raise ValueError(f"`{name}` must be finite, got NaN or infinity.")
