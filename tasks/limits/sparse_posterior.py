"""The exact posterior mean of random sparse linear functions: no predictor has a smaller expected error."""

import itertools

import numba
import numpy as np
import torch

from ..parallel import map_prompts


ROUND_OFF = 1e-13  # variance of the float32 rounding of a y near 1


def predict_sparse_posterior(
    xs: torch.Tensor, ys: torch.Tensor, query: torch.Tensor, sparsity: int = 3
) -> torch.Tensor:
    """
    Predict the posterior mean of y for w ~ N(0, I) on `sparsity` coordinates, all choices equally likely.

    Each support's answer is its minimum-norm least squares, weighted by the density it gives the ys. From one example
    more than `sparsity` on, only the true support explains them and the answer is exact.

    Returns:
        `torch.Tensor` of shape `(B,)`, float64.
    """
    supports = np.array(list(itertools.combinations(range(xs.shape[2]), sparsity)))
    arrays = (values.double().cpu().numpy() for values in (xs, ys, query))
    return torch.from_numpy(map_prompts(_sparse_posteriors, *arrays, settings=(supports,)))


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _sparse_posteriors(xs, ys, query, supports):
    means = np.empty(len(xs))
    for prompt in range(len(xs)):
        means[prompt] = _sparse_posterior(xs[prompt], ys[prompt], query[prompt], supports)
    return means


@numba.njit(cache=True, error_model="numpy")
def _sparse_posterior(x, y, query, supports):
    sparsity = supports.shape[1]
    matrix, weights = np.empty((sparsity, sparsity)), np.empty(sparsity)
    best, total, mean = -np.inf, 0.0, 0.0
    for i in range(len(supports)):
        if len(y) <= sparsity:
            log_density = _explain_few(x, y, supports[i], matrix, weights)
        else:
            log_density = _explain_many(x, y, supports[i], matrix, weights)
        if log_density > best:  # keep all densities relative to the largest, which may not be representable
            total *= np.exp(best - log_density)
            mean *= np.exp(best - log_density)
            best = log_density
        density, answer = np.exp(log_density - best), 0.0
        for k in range(sparsity):
            answer += weights[k] * query[supports[i, k]]
        total += density
        mean += density * answer
    return mean / total


@numba.njit(cache=True, error_model="numpy")
def _explain_few(x, y, support, matrix, weights):
    """
    Log density, but for a constant, of no more ys than weights under y = Xw + round-off, w ~ N(0, I) on the support.

    Leaves the posterior mean of w in `weights`; works on X Xᵀ, and `matrix` is room for it.
    """
    n = len(y)
    for i in range(n):
        for j in range(i + 1):
            matrix[i, j] = 0.0
            for k in support:
                matrix[i, j] += x[i, k] * x[j, k]
    log_determinant = _factorise(matrix, n)
    dual = y.copy()
    _solve(matrix, dual)
    weights[:] = 0
    squares = 0.0
    for i in range(n):
        squares += y[i] * dual[i]
        for k in range(len(support)):
            weights[k] += x[i, support[k]] * dual[i]
    return -0.5 * (squares + log_determinant)


@numba.njit(cache=True, error_model="numpy")
def _explain_many(x, y, support, matrix, weights):
    """The same for more ys than weights, on Xᵀ X. The residual is explicit: it is what tells supports apart."""
    sparsity = len(support)
    matrix[:], weights[:] = 0, 0
    for i in range(len(y)):
        for j in range(sparsity):
            weights[j] += x[i, support[j]] * y[i]
            for k in range(j + 1):
                matrix[j, k] += x[i, support[j]] * x[i, support[k]]
    log_determinant = _factorise(matrix, sparsity)
    _solve(matrix, weights)
    residual = 0.0
    for i in range(len(y)):
        rest = y[i]
        for k in range(sparsity):
            rest -= weights[k] * x[i, support[k]]
        residual += rest**2
    return -0.5 * (residual / ROUND_OFF + (weights**2).sum() + log_determinant)


@numba.njit(cache=True, error_model="numpy")
def _factorise(matrix, size):
    """Turn the lower part of a small matrix, the round-off added, into its Cholesky factor; returns log det."""
    log_determinant = 0.0
    for row in range(size):
        for column in range(row + 1):
            rest = matrix[row, column]
            for k in range(column):
                rest -= matrix[row, k] * matrix[column, k]
            matrix[row, column] = (
                np.sqrt(max(rest, 0.0) + ROUND_OFF) if row == column else rest / matrix[column, column]
            )
        log_determinant += 2 * np.log(matrix[row, row])
    return log_determinant


@numba.njit(cache=True, error_model="numpy")
def _solve(factor, values):
    """Solve in place with the product of a lower factor and its transpose."""
    size = len(values)
    for row in range(size):
        for k in range(row):
            values[row] -= factor[row, k] * values[k]
        values[row] /= factor[row, row]
    for row in range(size - 1, -1, -1):
        for k in range(row + 1, size):
            values[row] -= factor[k, row] * values[k]
        values[row] /= factor[row, row]
