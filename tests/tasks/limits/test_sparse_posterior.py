import itertools

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

from tasks.functions.sparse_linear_regression import SparseLinearRegression
from tasks.limits.sparse_posterior import predict_sparse_posterior


def brute_force_sparse(xs, ys, query, sparsity):
    """The same posterior by the densities of scipy."""
    log_densities, answers = [], []
    for support in itertools.combinations(range(xs.shape[1]), sparsity):
        x = xs[:, support]
        covariance = x @ x.T + 1e-12 * np.eye(len(x))
        log_densities.append(multivariate_normal(np.zeros(len(x)), covariance).logpdf(ys))
        answers.append(np.linalg.pinv(x) @ ys @ query[list(support)])
    densities = np.exp(np.array(log_densities) - max(log_densities))
    return densities @ np.array(answers) / densities.sum()


@pytest.fixture(scope="module")
def points():
    prompts = SparseLinearRegression(n_dims=5, sparsity=2).sample(10, torch.Generator().manual_seed(0), n_points=6)
    return prompts["xs"].double(), prompts["ys"].double()


@pytest.mark.parametrize("n", [1, 2])
def test_the_posterior_over_supports_equals_the_sum_over_densities(n, points):
    xs, ys = points
    means = predict_sparse_posterior(xs[:, :n], ys[:, :n], xs[:, n], sparsity=2)
    for prompt in range(10):
        expected = brute_force_sparse(*(values[prompt].numpy() for values in (xs[:, :n], ys[:, :n], xs[:, n])), 2)
        assert means[prompt].item() == pytest.approx(expected, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("n", [3, 5])
def test_more_examples_than_weights_give_the_function_itself(n, points):
    xs, ys = points
    means = predict_sparse_posterior(xs[:, :n], ys[:, :n], xs[:, n], sparsity=2)
    torch.testing.assert_close(means, ys[:, n], rtol=1e-4, atol=1e-4)
