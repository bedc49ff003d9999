"""What a predictor is, and how one is run on every prefix of a prompt."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch


# (xs (B, n, D), ys (B, n), query (B, D)) -> prediction (B,), for n >= 1
Predictor = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class PredictorFamily:
    """
    A predictor with several settings that share their work; it can stand wherever a predictor can.

    Args:
        predictor (`Callable`):
            As a `Predictor`, but it returns `(B, S)`, a prediction per setting.
        labels (`tuple[str, ...]`):
            What the S settings are called.
    """

    predictor: Predictor
    labels: tuple[str, ...]

    def __call__(self, xs: torch.Tensor, ys: torch.Tensor, query: torch.Tensor) -> torch.Tensor:
        """Predictions `(B, S)`."""
        return self.predictor(xs, ys, query)


def name_predictions(name: str, predictor: Predictor, predictions: np.ndarray) -> dict[str, np.ndarray]:
    """
    Return the predictions of the predictor called `name`, by the name of the curve that each gives.

    Args:
        name (`str`), predictor (`Predictor`):
            An entry of [`~tasks.common.Task.baselines`].
        predictions (`np.ndarray` of shape `(B, P, ...)`):
            What [`predict_prefixes`] returns for it.

    Returns:
        `{name: predictions}`, or one entry per setting of a [`PredictorFamily`], such as `"Lasso, alpha 0.01"`.
    """
    if not isinstance(predictor, PredictorFamily):
        return {name: predictions}
    return {f"{name}, {label}": predictions[..., i] for i, label in enumerate(predictor.labels)}


def predict_prefixes(
    predictor: Predictor, xs: torch.Tensor, ys: torch.Tensor, queries: torch.Tensor | None = None
) -> torch.Tensor:
    """
    Predict y at every point from the points before it, 0 where there are none.

    Args:
        predictor (`Predictor`):
            A baseline or the limit of a task, or any function of the same form.
        xs (`torch.Tensor` of shape `(B, P, D)`), ys (`torch.Tensor` of shape `(B, P)` or `(B, P - 1)`):
            Prompts. Where values are vectors, ys `(B, P, K)` or `(B, P - 1, K)`, each output is predicted separately.
        queries (`torch.Tensor` of shape `(B, P, D)`, *optional*, defaults to `xs`):
            Where to predict; query i is answered from the points before i.

    Returns:
        `torch.Tensor` of shape `(B, P)` or `(B, P, K)`, float64; a [`PredictorFamily`] adds an axis of its settings at
        the end. Prediction i depends on the points before i and on query i only.

    Raises:
        `ValueError`: the shapes do not belong together, or a value is not finite.
    """
    queries = xs if queries is None else queries
    _check_prompts(xs, ys, queries)
    if ys.ndim == 3:
        return torch.stack([predict_prefixes(predictor, xs, output, queries) for output in ys.unbind(2)], dim=2)
    xs, ys, queries = xs.double(), ys.double(), queries.double()
    predictions = [predictor(xs[:, :n], ys[:, :n], queries[:, n]) for n in range(1, xs.shape[1])]
    nothing_seen = torch.zeros_like(predictions[0]) if predictions else xs.new_zeros(len(xs))
    return torch.stack([nothing_seen, *predictions], dim=1)


def predict_last(predictor: Predictor, xs: torch.Tensor, ys: torch.Tensor) -> torch.Tensor:
    """Predict at the last of xs `(B, n + 1, D)` from the examples before it, whose ys are `(B, n, K)`: `(B, K)`."""
    xs, ys = xs.double(), ys.double()
    return torch.stack([predictor(xs[:, :-1], output, xs[:, -1]) for output in ys.unbind(2)], dim=1)


def _check_prompts(xs: torch.Tensor, ys: torch.Tensor, queries: torch.Tensor):
    if xs.ndim != 3 or 0 in xs.shape:
        raise ValueError(f"`xs` must have shape (prompts, points, dimensions), none of them 0, got {tuple(xs.shape)}.")
    n_prompts, n_points = xs.shape[:2]
    shapes = (n_prompts, n_points), (n_prompts, n_points - 1)
    if ys.shape[:2] not in shapes or ys.ndim > 3 or 0 in ys.shape[2:]:
        raise ValueError(
            f"`ys` must have shape {shapes[0]} or {shapes[1]}, and one more axis for vectors, got {tuple(ys.shape)}."
        )
    if queries.shape != xs.shape:
        raise ValueError(f"`queries` must have the shape of `xs`, {tuple(xs.shape)}, got {tuple(queries.shape)}.")
    for name, values in (("xs", xs), ("ys", ys[:, : n_points - 1]), ("queries", queries)):
        if not values.isfinite().all():
            raise ValueError(f"`{name}` must be finite, got NaN or infinity.")
