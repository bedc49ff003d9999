"""A 2-layer ReLU network trained by Adam on the examples of each prompt, thousands of networks at once."""

import numba
import numpy as np
import torch

from ..parallel import map_prompts


BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8  # Adam's defaults


def predict_relu_network(
    xs: torch.Tensor,
    ys: torch.Tensor,
    query: torch.Tensor,
    hidden_size: int = 100,
    learning_rate: float = 5e-3,
    batch_size: int = 10,
    n_steps: int = 1000,
) -> torch.Tensor:
    """
    Predict by a network Linear-ReLU-Linear trained from torch's default initial weights on the squared error.

    A network stays in the processor's first cache while it trains, so that a thousand steps for each of a hundred
    thousand networks are affordable. The initial weights and the minibatches depend only on n and on the prompt's
    place in the batch; as in the source, all prompts see the same minibatches.

    Args:
        xs (`torch.Tensor` of shape `(B, n, D)`), ys (`torch.Tensor` of shape `(B, n)`):
            Examples, n >= 1.
        query (`torch.Tensor` of shape `(B, D)`):
            Where to predict.
        hidden_size (`int`, defaults to 100):
            Hidden units.
        learning_rate (`float`, defaults to 5e-3), batch_size (`int`, defaults to 10), n_steps (`int`, default 1000):
            Of Adam; all examples are taken where there are no more than `batch_size` (the paper's settings).

    Returns:
        `torch.Tensor` of shape `(B,)`, float64.

    Source: Garg et al. (2022), section 3.4; Yang et al. (2024), figure 9.
    """
    n_prompts, n, n_dims = xs.shape
    rng = np.random.default_rng(n)
    batch_size = min(batch_size, n)
    batches = np.array([rng.permutation(n)[:batch_size] for _ in range(n_steps)])
    # torch's nn.Linear draws weights and biases uniformly within 1 / sqrt(inputs); the last number is the output bias
    uniform = rng.uniform(-1, 1, (n_prompts, (n_dims + 2) * hidden_size + 1)).astype(np.float32)
    weights = uniform[:, :-1].reshape(n_prompts, n_dims + 2, hidden_size)
    weights[:, :-1] *= n_dims**-0.5
    weights[:, -1] *= hidden_size**-0.5
    bias = uniform[:, -1] * np.float32(hidden_size**-0.5)
    arrays = (values.cpu().numpy().astype(np.float32) for values in (xs, ys, query))
    settings = (batches, np.float32(learning_rate))
    return torch.from_numpy(map_prompts(_train_networks, *arrays, weights, bias, settings=settings).astype(np.float64))


@numba.njit(nogil=True, cache=True)
def _train_networks(xs, ys, query, weights, output_bias, batches, learning_rate):
    predictions = np.empty(len(xs), np.float32)
    for prompt in range(len(xs)):
        predictions[prompt] = _train(
            xs[prompt], ys[prompt], query[prompt], weights[prompt], output_bias[prompt], batches, learning_rate
        )
    return predictions


@numba.njit(cache=True, fastmath=True, error_model="numpy")
def _train(xs, ys, query, weights, bias, batches, learning_rate):
    """
    Train one network; returns its prediction at the query.

    `weights (D + 2, H)` holds the weights of every input, the hidden biases and the output weights, row by row.
    """
    n_rows = len(weights)
    gradient, mean, square = np.zeros_like(weights), np.zeros_like(weights), np.zeros_like(weights)
    hidden = np.empty(weights.shape[1], np.float32)
    bias_mean = bias_square = np.float32(0)
    decay1 = decay2 = 1.0
    for batch in batches:
        gradient[:] = 0
        bias_gradient = np.float32(0)
        for example in batch:
            x = xs[example]
            slope = np.float32(2) * (_forward(weights, bias, x, hidden) - ys[example]) / np.float32(len(batch))
            bias_gradient += slope
            for unit in range(len(hidden)):
                gradient[n_rows - 1, unit] += slope * hidden[unit]
                hidden[unit] = slope * weights[n_rows - 1, unit] if hidden[unit] > 0 else np.float32(0)
                gradient[n_rows - 2, unit] += hidden[unit]
            for row in range(len(x)):
                for unit in range(len(hidden)):
                    gradient[row, unit] += x[row] * hidden[unit]
        decay1 *= BETA1
        decay2 *= BETA2
        rate, scale = np.float32(learning_rate / (1 - decay1)), np.float32((1 - decay2) ** -0.5)
        _adam(weights, gradient, mean, square, rate, scale)
        bias_mean += np.float32(1 - BETA1) * (bias_gradient - bias_mean)
        bias_square += np.float32(1 - BETA2) * (bias_gradient * bias_gradient - bias_square)
        bias -= rate * bias_mean / (np.sqrt(bias_square) * scale + np.float32(EPSILON))
    return _forward(weights, bias, query, hidden)


@numba.njit(cache=True, fastmath=True, error_model="numpy")
def _forward(weights, bias, x, hidden):
    """The network's value at x; leaves the activations in `hidden`."""
    hidden[:] = weights[len(weights) - 2]
    for row in range(len(x)):
        for unit in range(len(hidden)):
            hidden[unit] += x[row] * weights[row, unit]
    value = bias
    for unit in range(len(hidden)):
        hidden[unit] = max(hidden[unit], np.float32(0))
        value += hidden[unit] * weights[len(weights) - 1, unit]
    return value


@numba.njit(cache=True, fastmath=True, error_model="numpy")
def _adam(weights, gradient, mean, square, rate, scale):
    for row in range(len(weights)):
        for unit in range(weights.shape[1]):
            g = gradient[row, unit]
            mean[row, unit] += np.float32(1 - BETA1) * (g - mean[row, unit])
            square[row, unit] += np.float32(1 - BETA2) * (g * g - square[row, unit])
            weights[row, unit] -= rate * mean[row, unit] / (np.sqrt(square[row, unit]) * scale + np.float32(EPSILON))
