"""Classical predictors, functions of the examples seen so far, all run by one "predict every prefix" function."""

from collections.abc import Callable

import torch


# (xs (B, n, D), ys (B, n), query (B, D)) -> prediction (B,), for n >= 1
Predictor = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def predict_prefixes(predictor: Predictor, xs: torch.Tensor, ys: torch.Tensor) -> torch.Tensor:
    """
    Predict y at every point from the points before it, 0 where there are none.

    Args:
        predictor (`Predictor`):
            One of [`BASELINES`] or any function of the same form.
        xs (`torch.Tensor` of shape `(B, P, D)`), ys (`torch.Tensor` of shape `(B, P)` or `(B, P - 1)`):
            Prompts.

    Returns:
        `torch.Tensor` of shape `(B, P)`, float64: prediction i depends on the points before i and on x_i only.
    """
    xs, ys = xs.double(), ys.double()
    predictions = [xs.new_zeros(xs.shape[0])]
    for n in range(1, xs.shape[1]):
        predictions.append(predictor(xs[:, :n], ys[:, :n], xs[:, n]))
    return torch.stack(predictions, dim=1)


def predict_zero(xs: torch.Tensor, ys: torch.Tensor, query: torch.Tensor) -> torch.Tensor:
    """Predict 0: the trivial level, a normalised error of 1."""
    return query.new_zeros(query.shape[0])


def predict_averaging(xs: torch.Tensor, ys: torch.Tensor, query: torch.Tensor) -> torch.Tensor:
    """Predict w·x with w the mean of y_j x_j, one step of gradient descent (Garg et al., 2022)."""
    weights = (xs * ys.unsqueeze(-1)).mean(dim=1)
    return (weights * query).sum(dim=-1)


def predict_least_squares(xs: torch.Tensor, ys: torch.Tensor, query: torch.Tensor) -> torch.Tensor:
    """Predict w·x, w the least-squares solution of smallest norm: Bayes-optimal for noiseless linear functions."""
    weights = torch.linalg.lstsq(xs, ys.unsqueeze(-1), driver="gelsd").solution
    return (weights.squeeze(-1) * query).sum(dim=-1)


def predict_3_nearest_neighbours(xs: torch.Tensor, ys: torch.Tensor, query: torch.Tensor) -> torch.Tensor:
    """Predict the mean y of the 3 nearest examples in Euclidean distance, or of all when there are fewer."""
    distances = (xs - query.unsqueeze(1)).norm(dim=-1)
    nearest = distances.topk(min(3, xs.shape[1]), dim=1, largest=False).indices
    return ys.gather(1, nearest).mean(dim=1)


BASELINES: dict[str, Predictor] = {
    "zero": predict_zero,
    "averaging": predict_averaging,
    "least squares": predict_least_squares,
    "3-nearest neighbours": predict_3_nearest_neighbours,
}
