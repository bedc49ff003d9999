"""Predictors of the effect of endogenous regressors by instruments: see `endogenous_linear_regression`."""

import torch

from .classical import predict_least_squares, predict_ridge


def regressors(xs: torch.Tensor) -> torch.Tensor:
    """Every third coordinate of xs `(..., D)`, from the first on, as a view."""
    return xs[..., ::3]


def instruments(xs: torch.Tensor) -> torch.Tensor:
    """The other coordinates of xs `(..., D)`."""
    return xs[..., torch.arange(xs.shape[-1], device=xs.device) % 3 != 0]


def predict_from_regressors(xs: torch.Tensor, ys: torch.Tensor, query: torch.Tensor) -> torch.Tensor:
    """Predict by least squares on the regressors alone, biased by what moves them and y."""
    return predict_least_squares(regressors(xs), ys, regressors(query))


def predict_two_stage(xs: torch.Tensor, ys: torch.Tensor, query: torch.Tensor) -> torch.Tensor:
    """
    Predict by two-stage least squares: y on what the instruments explain of the regressors.

    It is consistent. Up to as many examples as instruments these explain all, and it is least squares on regressors.
    """
    given = instruments(xs)
    explained = given @ torch.linalg.lstsq(given, regressors(xs), driver="gelsd").solution
    return predict_least_squares(explained, ys, regressors(query))


def predict_control_function(
    xs: torch.Tensor, ys: torch.Tensor, query: torch.Tensor, noise_std: float
) -> torch.Tensor:
    """
    Predict by a ridge of y on the regressors and on what the instruments do not explain of them.

    With Theta known it is the posterior mean. Here Theta has its posterior mean, a ridge too, and the variance that it
    leaves is added to that of the noise.
    Source: Wooldridge, "Control function methods in applied econometrics" (2015), with the priors of the class.
    """
    given, moved = instruments(xs), 2**0.5 * regressors(xs)
    n_instruments, n_regressors = given.shape[2], moved.shape[2]
    gram = given.mT @ given
    penalised = gram + n_instruments * torch.eye(n_instruments, dtype=xs.dtype, device=xs.device)
    unexplained = moved - given @ torch.linalg.solve(penalised, given.mT @ moved)
    # the share of n examples that the ridge takes to learn Theta, its effective parameters
    share = torch.linalg.solve(penalised, gram).diagonal(dim1=1, dim2=2).sum(dim=1) / xs.shape[1]
    scales = (noise_std**2 + n_regressors * share).sqrt()[:, None, None]
    both = torch.cat([regressors(xs), unexplained], dim=2) / scales
    padded = torch.cat([regressors(query), torch.zeros_like(regressors(query))], dim=1)
    return predict_ridge(both, ys / scales[:, :, 0], padded, alpha=1.0)
