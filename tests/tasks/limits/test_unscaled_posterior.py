import numpy as np
import pytest
import torch
from scipy.stats import norm

from tasks.functions.unscaled_linear_regression import UnscaledLinearRegression
from tasks.limits.unscaled_posterior import predict_unscaled_posterior


def brute_force(xs, ys, query, max_unit, noise_stds, n=50):
    """The same mean over a fine grid of noises and units, one ridge each."""
    places = (np.arange(n) + 0.5) / n
    units, noises = max_unit ** (2 * places - 1), noise_stds[0] * (noise_stds[1] / noise_stds[0]) ** places
    log_densities, answers = [], []
    for x_unit in units:
        of_xs = norm.logpdf(np.append(xs.flatten(), query), scale=x_unit).sum()
        for noise in noises:
            covariance = xs @ xs.T / x_unit**2 + noise**2 * np.eye(len(ys))
            dual = np.linalg.solve(covariance, ys)
            of_ys = -0.5 * (np.linalg.slogdet(covariance).logabsdet + ys @ dual / units**2) - len(ys) * np.log(units)
            log_densities.append(of_xs + of_ys)
            answers.append(np.full(n, query @ xs.T @ dual / x_unit**2))
    densities = np.exp(np.array(log_densities) - np.max(log_densities))
    return (densities * answers).sum() / densities.sum()


@pytest.mark.parametrize(("n", "noise_stds"), [(1, (0.1, 1.0)), (2, (0.1, 1.0)), (6, (0.5, 2.0))])
def test_the_posterior_equals_a_mean_over_a_fine_grid(n, noise_stds):
    settings = {"max_unit": 2.0, "min_noise_std": noise_stds[0], "max_noise_std": noise_stds[1]}
    task = UnscaledLinearRegression(n_dims=3, **settings)
    prompts = task.sample(2, torch.Generator().manual_seed(0), n_points=7)
    xs, ys = prompts["xs"].double(), prompts["ys"].double()
    means = predict_unscaled_posterior(xs[:, :n], ys[:, :n], xs[:, n], **settings)
    for prompt in range(2):
        arrays = (values[prompt].numpy() for values in (xs[:, :n], ys[:, :n], xs[:, n]))
        assert means[prompt].item() == pytest.approx(brute_force(*arrays, 2.0, noise_stds), rel=1e-3, abs=1e-4)
