"""Endogenous regressors: the structure of the draws, and which estimator finds the effect."""

import numpy as np
import pytest
import torch

from tasks.baselines.instruments import instruments, regressors
from tasks.functions.endogenous_linear_regression import EndogenousLinearRegression


def draw(task, n_prompts, n_points, **sizes):
    """The drawn effects and the prompts, double precision."""
    n_dims_active = sizes.get("n_dims_active", task.n_dims)
    function = task.draw_functions(n_prompts, n_dims_active, torch.Generator().manual_seed(0))
    prompts = task.sample(n_prompts, torch.Generator().manual_seed(0), n_points=n_points, **sizes)
    return function, {name: values.double() for name, values in prompts.items()}


def test_coordinates_are_regressors_and_instruments():
    xs = torch.arange(7.0).unsqueeze(0)
    assert regressors(xs).tolist() == [[0, 3, 6]]
    assert instruments(xs).tolist() == [[1, 2, 4, 5]]


@pytest.mark.parametrize("n_dims_active", [2, 4, 9])
def test_points_are_as_the_two_equations_say(n_dims_active):
    task = EndogenousLinearRegression(n_dims=9, noise_std=0.3)
    function, prompts = draw(task, 200, 300, n_dims_active=n_dims_active)
    xs, labels = prompts["xs"], prompts["labels"]
    assert not xs[..., n_dims_active:].any()
    effects = regressors(function.weights).double().unsqueeze(2)
    torch.testing.assert_close((regressors(xs) @ effects).squeeze(2), labels, rtol=0, atol=1e-4)
    assert not instruments(function.weights).any()
    common = 2**0.5 * regressors(xs) - instruments(xs) @ function.first_stage.double()
    active = regressors(torch.arange(9)) < n_dims_active
    assert common[..., active].std().item() == pytest.approx(1, abs=0.02)
    noise = prompts["ys"] - labels - (common @ function.confounding.double().unsqueeze(2)).squeeze(2)
    assert noise.std().item() == pytest.approx(0.3, rel=0.02)
    # instruments move y by the regressors alone
    others = prompts["ys"] - labels
    assert (instruments(xs) * others.unsqueeze(2)).mean().abs() < 0.01
    assert (regressors(xs)[..., 0] * others).mean(dim=1).abs().mean() > 0.3


def errors_at(n, task, n_prompts=300):
    _, prompts = draw(task, n_prompts, n + 1)
    xs, ys, query = prompts["xs"][:, :n], prompts["ys"][:, :n], prompts["xs"][:, n]
    names = ("least squares on regressors", "two-stage least squares", "control function")
    answers = [task.baselines[name](xs, ys, query) for name in names]
    return [(values - prompts["labels"][:, n]).square().mean().item() / task.normaliser for values in answers]


def test_two_stage_least_squares_is_consistent_and_least_squares_is_not():
    task = EndogenousLinearRegression()
    few, many = errors_at(100, task), errors_at(1600, task)
    assert many[0] == pytest.approx(0.5, abs=0.1)  # |phi|² / 2 of |beta|²
    assert many[1] < 0.02
    assert many[1] < few[1] / 4
    assert many[2] < 0.02


@pytest.mark.parametrize("n", [3, 10, 20, 50])
def test_the_control_function_is_best(n):
    naive, two_stage, control = errors_at(n, EndogenousLinearRegression())
    assert control < min(naive, two_stage)


def test_two_stage_least_squares_equals_its_closed_form():
    task = EndogenousLinearRegression(n_dims=6)
    _, prompts = draw(task, 4, 31)
    answers = task.solver.predictor(prompts["xs"][:, :30], prompts["ys"][:, :30], prompts["xs"][:, 30])
    for prompt in range(4):
        xs, ys = prompts["xs"][prompt, :30].numpy(), prompts["ys"][prompt, :30].numpy()
        r, z = xs[:, [0, 3]], xs[:, [1, 2, 4, 5]]
        projection = z @ np.linalg.inv(z.T @ z) @ z.T
        beta = np.linalg.solve(r.T @ projection @ r, r.T @ projection @ ys)
        assert answers[prompt].item() == pytest.approx(prompts["xs"][prompt, 30, [0, 3]].numpy() @ beta)


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match="`noise_std` must be a finite number >= 0, got -1"):
        EndogenousLinearRegression(noise_std=-1)
    with pytest.raises(ValueError, match="`n_dims_active` must be >= 2, a regressor and an instrument, got 1"):
        EndogenousLinearRegression(n_dims=1)
    with pytest.raises(ValueError, match="`n_dims_active` must be >= 2, a regressor and an instrument, got 1"):
        EndogenousLinearRegression().sample(1, torch.Generator(), n_dims_active=1)
