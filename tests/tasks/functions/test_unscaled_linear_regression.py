import math

import pytest
import torch

from tasks.baselines.classical import predict_ridge
from tasks.functions.unscaled_linear_regression import UnscaledLinearRegression


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def draw(task, n_prompts, n_points):
    """Prompts and their functions."""
    function = task.draw_functions(n_prompts, task.n_dims, generator())
    return function, task.sample(n_prompts, generator(), n_points=n_points)


def test_units_and_noise_are_log_uniform_in_their_ranges_and_of_one_prompt_each():
    function, _ = draw(UnscaledLinearRegression(n_dims=4), 5000, 3)
    for numbers, low, high in (
        (function.x_units, 1 / 3, 3),
        (function.y_units, 1 / 3, 3),
        (function.noise_stds / function.y_units, 0.1, 1),
    ):
        places = (numbers.log() - math.log(low)) / math.log(high / low)
        assert -1e-6 < places.min() < 0.01
        assert 0.99 < places.max() < 1 + 1e-6
        assert places.mean().item() == pytest.approx(0.5, abs=0.015)
        assert places.std().item() == pytest.approx(12**-0.5, abs=0.01)
    drawn = torch.cat((function.x_units, function.y_units, function.noise_stds / function.y_units), dim=1).log()
    torch.testing.assert_close(torch.corrcoef(drawn.T), torch.eye(3), rtol=0, atol=0.05)


def test_the_columns_are_a_noisy_linear_function_in_these_units():
    function, prompts = draw(UnscaledLinearRegression(n_dims=3), 200, 400)
    xs, labels = prompts["xs"], prompts["labels"]
    weights = torch.linalg.lstsq(xs, labels.unsqueeze(2)).solution.squeeze(2)
    torch.testing.assert_close(weights, function.weights, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(xs.std(dim=(1, 2)), function.x_units[:, 0], rtol=0.12, atol=0)
    noise = prompts["ys"] - labels
    torch.testing.assert_close(noise.std(dim=1), function.noise_stds[:, 0], rtol=0.15, atol=0)
    # in standard units the weights are standard normal
    standard = function.weights * function.x_units / function.y_units
    assert standard.std().item() == pytest.approx(1, abs=0.1)


def test_the_limit_is_hardly_worse_than_the_ridge_that_knows_noise_and_units():
    task, n = UnscaledLinearRegression(n_dims=5), 10
    function, prompts = draw(task, 1000, n + 1)
    xs, ys, query = prompts["xs"][:, :n].double(), prompts["ys"][:, :n].double(), prompts["xs"][:, n].double()
    noises = function.noise_stds * function.x_units / function.y_units
    knowing = torch.stack(
        [
            predict_ridge(*(values[row : row + 1] for values in (xs, ys, query)), alpha=noises[row].item() ** 2)[0]
            for row in range(1000)
        ]
    )
    answers = knowing, task.limit.predictor(xs, ys, query), task.baselines["ridge, penalty chosen"](xs, ys, query)
    known, limit, chosen = ((values - prompts["labels"][:, n]).square().mean().item() for values in answers)
    assert known < limit < 0.95 * chosen
    assert limit < 1.1 * known


BAD_SETTINGS = {
    "one unit": ({"max_unit": 1.0}, "`max_unit` must be a finite number > 1, got 1.0"),
    "no unit": ({"max_unit": float("nan")}, "`max_unit` must be a finite number > 1, got nan"),
    "no noise": ({"min_noise_std": 0.0}, "`min_noise_std` must be > 0 .*, got 0.0 and 1.0"),
    "turned round": ({"min_noise_std": 2.0}, "`max_noise_std` finite and not smaller, got 2.0 and 1.0"),
    "endless noise": ({"max_noise_std": float("inf")}, "`max_noise_std` finite .*, got 0.1 and inf"),
}


@pytest.mark.parametrize("name", BAD_SETTINGS)
def test_bad_settings_are_refused(name):
    settings, message = BAD_SETTINGS[name]
    with pytest.raises(ValueError, match=message):
        UnscaledLinearRegression(**settings)
