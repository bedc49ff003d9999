import numpy as np
import pytest
import torch

from tasks import make_task
from tasks.baselines import BASELINES, predict_prefixes


@pytest.fixture
def prompts():
    return make_task("linear_regression", 4).sample(50, 10, torch.Generator().manual_seed(0))


def naive(name, xs, ys, query):
    if name == "zero":
        return 0.0
    if name == "averaging":
        return np.mean([y * x for x, y in zip(xs, ys, strict=True)], axis=0) @ query
    if name == "least squares":
        return np.linalg.pinv(xs) @ ys @ query
    nearest = np.argsort([np.linalg.norm(x - query) for x in xs])[:3]
    return ys[nearest].mean()


@pytest.mark.parametrize("name", BASELINES)
def test_each_prefix_equals_the_naive_prediction(name, prompts):
    predictions = predict_prefixes(BASELINES[name], prompts["xs"], prompts["ys"])
    xs, ys = prompts["xs"].double().numpy(), prompts["ys"].double().numpy()
    assert not predictions[:, 0].any()
    for prompt in range(50):
        for n in range(1, 10):
            expected = naive(name, xs[prompt, :n], ys[prompt, :n], xs[prompt, n])
            assert predictions[prompt, n].item() == pytest.approx(expected, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("name", BASELINES)
def test_prediction_i_uses_earlier_examples_only(name, prompts):
    before = predict_prefixes(BASELINES[name], prompts["xs"], prompts["ys"])
    changed = prompts["ys"].clone()
    changed[:, 6:] = 100
    after = predict_prefixes(BASELINES[name], prompts["xs"], changed)
    assert torch.equal(before[:, :7], after[:, :7])
    assert torch.equal(before, predict_prefixes(BASELINES[name], prompts["xs"], prompts["ys"][:, :-1]))


def test_least_squares_follows_the_bayes_curve_and_is_exact_from_n_dims_on():
    prompts = make_task("linear_regression", 5).sample(4000, 9, torch.Generator().manual_seed(0))
    predictions = predict_prefixes(BASELINES["least squares"], prompts["xs"], prompts["ys"])
    error = (predictions - prompts["labels"]).square().mean(dim=0) / 5
    expected = torch.tensor([1, 0.8, 0.6, 0.4, 0.2, 0, 0, 0, 0], dtype=torch.float64)
    torch.testing.assert_close(error, expected, rtol=0, atol=0.08)
    assert error[6:].max() < 1e-6


def test_inactive_dimensions_do_not_disturb_least_squares():
    prompts = make_task("linear_regression", 8).sample(20, 8, torch.Generator().manual_seed(0), n_dims_active=3)
    predictions = predict_prefixes(BASELINES["least squares"], prompts["xs"], prompts["ys"])
    torch.testing.assert_close(predictions[:, 4:].float(), prompts["labels"][:, 4:], rtol=1e-3, atol=1e-3)
