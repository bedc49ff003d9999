"""The posterior mean of noisy linear functions in unknown units: no predictor has a smaller expected error."""

import math

import torch


N_NOISES, N_UNITS, N_NEAR = 24, 32, 24  # of the sums that stand for integrals


def predict_unscaled_posterior(
    xs: torch.Tensor,
    ys: torch.Tensor,
    query: torch.Tensor,
    max_unit: float = 3.0,
    min_noise_std: float = 0.1,
    max_noise_std: float = 1.0,
) -> torch.Tensor:
    """
    Predict the posterior mean of y = w·x for w ~ N(0, I), the strength of the noise and the units of x and y unknown.

    Given all three the answer is a ridge. It is averaged over them by the density that each gives to the xs, which the
    query is one of, and to the ys. The integrals are sums over the logarithm of each, even over its range; that of the
    unit of x, which the xs tell almost exactly, over the part of its range that is near to their mean square.

    Args:
        xs (`torch.Tensor` of shape `(B, n, D)`), ys (`torch.Tensor` of shape `(B, n)`):
            Examples, all coordinates active, n >= 1.
        query (`torch.Tensor` of shape `(B, D)`):
            Where to predict.
        max_unit (`float`, defaults to 3.0), min_noise_std (`float`, defaults to 0.1), max_noise_std (`float`):
            As [`~tasks.functions.unscaled_linear_regression.UnscaledLinearRegression`] has them.

    Returns:
        `torch.Tensor` of shape `(B,)`.

    Source: this project; MacKay, "Bayesian interpolation" (1992), for the density of ys under a ridge.
    """
    left, singular, right = torch.linalg.svd(xs, full_matrices=False)  # (B, n, R), (B, R), (B, R, D)
    values = (left.mT @ ys.unsqueeze(2)).squeeze(2)
    directions = (right @ query.unsqueeze(2)).squeeze(2)
    rest = (ys.square().sum(dim=1) - values.square().sum(dim=1)).clamp(min=0)  # of the ys, that no w explains
    n, n_rest = xs.shape[1], xs.shape[1] - singular.shape[1]

    noise = _middles(min_noise_std, max_noise_std, N_NOISES, xs).square()  # (S,), variances
    x_units, density_of_xs = _units_of_xs(xs, query, max_unit)  # (B, X)
    y_units = _middles(1 / max_unit, max_unit, N_UNITS, xs)  # (Y,)

    # (B, X, S, R), in the unit of y
    variances = (singular.unsqueeze(1) / x_units.unsqueeze(2)).square().unsqueeze(2) + noise.unsqueeze(1)
    squares = (values[:, None, None].square() / variances).sum(dim=3) + rest[:, None, None] / noise
    log_determinant = variances.log().sum(dim=3) + n_rest * noise.log()
    density_of_ys = -0.5 * squares.unsqueeze(3) / y_units.square() - n * y_units.log()  # (B, X, S, Y)
    log_density = density_of_ys.logsumexp(dim=3) - 0.5 * log_determinant + density_of_xs.unsqueeze(2)

    penalties = noise * x_units.square().unsqueeze(2)  # (B, X, S)
    numerators = singular * values * directions
    answers = (numerators[:, None, None] / (singular.square()[:, None, None] + penalties.unsqueeze(3))).sum(dim=3)
    return (log_density.flatten(1).softmax(dim=1) * answers.flatten(1)).sum(dim=1)


def _units_of_xs(xs: torch.Tensor, query: torch.Tensor, max_unit: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Units within 8 standard deviations of what the xs say, `(B, N_NEAR)`, and log p(xs) but for a constant."""
    inputs = torch.cat([xs, query.unsqueeze(1)], dim=1).flatten(1)
    squares, count = inputs.square().sum(dim=1, keepdim=True), inputs.shape[1]
    middle, width = 0.5 * (squares / count).log(), 8 / (2 * count) ** 0.5
    ends = [(middle + sign * width).clamp(-math.log(max_unit), math.log(max_unit)) for sign in (-1, 1)]
    logarithms = torch.lerp(*ends, _middles_of_one(N_NEAR, xs))
    units = logarithms.exp()
    return units, -0.5 * squares / units.square() - count * logarithms


def _middles(low: float, high: float, n: int, like: torch.Tensor) -> torch.Tensor:
    """The middles of `n` even parts of the logarithm of a range, `(n,)`."""
    return low * (high / low) ** _middles_of_one(n, like)


def _middles_of_one(n: int, like: torch.Tensor) -> torch.Tensor:
    """The middles of `n` even parts of 0 ... 1, `(n,)`."""
    return (torch.arange(n, dtype=like.dtype, device=like.device) + 0.5) / n
