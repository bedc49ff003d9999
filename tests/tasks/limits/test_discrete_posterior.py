import math

import pytest
import torch

from tasks.baselines.classical import predict_ridge
from tasks.limits.discrete_posterior import predict_discrete_posterior


def draw(n_functions, n, n_dims=3, n_prompts=40, noise_std=0.5):
    """Examples of prompts, queries and their values, and the functions that they are of."""
    generator = torch.Generator().manual_seed(0)
    functions = torch.randn((n_functions, n_dims), generator=generator).double()
    weights = functions[torch.randint(n_functions, (n_prompts,), generator=generator)]
    xs = torch.randn((n_prompts, n + 1, n_dims), generator=generator).double()
    values = torch.einsum("bpd,bd->bp", xs, weights)
    ys = values + noise_std * torch.randn(values.shape, generator=generator).double()
    return xs[:, :-1], ys[:, :-1], xs[:, -1], values[:, -1], functions


@pytest.mark.parametrize("n", [0, 1, 5])
def test_it_is_the_mean_by_bayes_rule_written_out(n):
    xs, ys, query, _, functions = draw(7, n)
    predictions = predict_discrete_posterior(xs, ys, query, functions=functions, noise_std=0.5)
    for prompt in range(len(xs)):
        likelihoods = [
            math.prod(
                math.exp(-((y - x @ w).item() ** 2) / (2 * 0.5**2))
                for x, y in zip(xs[prompt], ys[prompt], strict=True)
            )
            for w in functions
        ]
        mean = sum(p * (query[prompt] @ w).item() for p, w in zip(likelihoods, functions, strict=True))
        assert predictions[prompt].item() == pytest.approx(mean / sum(likelihoods), rel=1e-6)


def test_it_is_below_ridge_on_the_functions_and_ridge_below_it_on_others():
    xs, ys, query, values, functions = draw(8, 4, n_prompts=2000)
    others = torch.randn(functions.shape, generator=torch.Generator().manual_seed(1)).double()
    ridge, known, wrong = (
        (predictions - values).square().mean()
        for predictions in (
            predict_ridge(xs, ys, query, alpha=0.25),
            predict_discrete_posterior(xs, ys, query, functions=functions, noise_std=0.5),
            predict_discrete_posterior(xs, ys, query, functions=others, noise_std=0.5),
        )
    )
    assert 2 * known < ridge < wrong / 2


def test_it_is_the_ridge_of_endless_functions():
    xs, ys, query, _, _ = draw(100, 3, n_dims=2, noise_std=1.0)
    functions = torch.randn((100_000, 2), generator=torch.Generator().manual_seed(1))
    predictions = predict_discrete_posterior(xs, ys, query, functions=functions, noise_std=1.0)
    torch.testing.assert_close(predictions, predict_ridge(xs, ys, query, alpha=1.0), rtol=0, atol=0.1)


def test_numbers_far_from_every_function_are_no_trouble():
    xs, ys, query, _, functions = draw(3, 5)
    predictions = predict_discrete_posterior(xs, 1e6 * ys, query, functions=functions, noise_std=1e-3)
    assert predictions.isfinite().all()
