import numpy as np
import pytest
import torch

from tasks import make_task
from tasks.baselines.prefixes import predict_prefixes
from tasks.functions.linear_regression import LinearRegression, NoisyLinearRegression
from tasks.metrics import bootstrap_interval


def generator():
    return torch.Generator().manual_seed(0)


def test_linear_functions_are_linear():
    prompts = LinearRegression(n_dims=4).sample(8, generator(), n_points=12)
    weights = torch.linalg.lstsq(prompts["xs"], prompts["ys"].unsqueeze(-1)).solution
    torch.testing.assert_close((prompts["xs"] @ weights).squeeze(-1), prompts["ys"], rtol=1e-4, atol=1e-4)


def test_noise_is_in_the_values_and_not_in_the_labels():
    prompts = NoisyLinearRegression(n_dims=4, noise_std=0.5).sample(64, generator(), n_points=100)
    noise = prompts["ys"] - prompts["labels"]
    assert noise.std().item() == pytest.approx(0.5, rel=0.05)
    clean = LinearRegression(n_dims=4).sample(64, generator(), n_points=100)
    assert torch.equal(clean["labels"], prompts["labels"])


WITH_WEIGHTS = (
    "linear_regression",
    "noisy_linear_regression",
    "unscaled_linear_regression",
    "sparse_linear_regression",
    "many_outlier_regression",
    "orthogonal_outlier_regression",
)


@pytest.mark.parametrize("name", WITH_WEIGHTS)
def test_the_hints_are_the_weights(name):
    prompts = make_task(name, n_dims=6).sample(5, generator(), n_points=9, with_hints=True)
    torch.testing.assert_close((prompts["xs"] * prompts["hints"]).sum(dim=2), prompts["labels"], rtol=1e-5, atol=1e-5)
    assert torch.equal(prompts["hints"], prompts["hints"][:, :1].expand(5, 9, 6))


@pytest.mark.parametrize("task", [LinearRegression(n_dims=5), NoisyLinearRegression(n_dims=5, noise_std=0.0)])
def test_the_limit_without_noise_follows_its_closed_form(task):
    prompts = task.sample(4000, generator(), n_points=9)
    expected = np.clip(1 - np.arange(9) / 5, 0, None)
    predictions = predict_prefixes(task.limit.predictor, prompts["xs"], prompts["ys"])
    limit = task.score(predictions.numpy(), prompts)
    low, high = bootstrap_interval(limit, confidence=0.999)
    assert ((low <= expected + 1e-6) & (expected <= high)).all()
    assert limit[:, 6:].mean(axis=0).max() < 1e-6


def test_only_what_the_papers_shifted_has_shifts():
    assert LinearRegression().published_shifts.keys() <= LinearRegression().shifts.keys()
    assert LinearRegression(n_dims=5).published_shifts == {}
    assert NoisyLinearRegression().shifts == NoisyLinearRegression().published_shifts == {}


@pytest.mark.parametrize("noise_std", [-1, float("inf"), float("nan")])
def test_bad_noise_is_refused(noise_std):
    with pytest.raises(ValueError, match=f"`noise_std` must be a finite number >= 0, got {noise_std}"):
        NoisyLinearRegression(noise_std=noise_std)
