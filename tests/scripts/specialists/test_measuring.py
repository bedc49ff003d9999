"""Each figure of a row against sums written out, prompt by prompt."""

import numpy as np
import pytest
import torch

from modeling_looped_gpt2 import LoopedGPT2Config, LoopedGPT2ForInContextRegression
from scripts.evaluation.predictions import Answers
from scripts.specialists.contests import Contest
from scripts.specialists.friedman import measure_friedman
from scripts.specialists.measuring import measure_contests
from scripts.training.objectives import Regression
from tasks import make_task
from tasks.baselines.classical import predict_ridge
from tasks.baselines.prefixes import predict_prefixes
from tasks.prediction_cache import PredictionCache
from tasks.shifts import SHIFTS
from tasks.streams import make_generator


NAME = "linear_regression"
PLAIN = Contest("linear", NAME, [2, 3], NAME, target=0.5)
NOISY = Contest("noisy", "noisy_linear_regression", [4], NAME, settings={"noise_std": 0.5}, is_ratio=True)
SHIFTED = Contest("scaled", NAME, [3], NAME, shift="scale_x_2")


@pytest.fixture
def model_of():
    def model_of(seed, n_dims=3, n_positions=12):
        torch.manual_seed(seed)
        config = LoopedGPT2Config(n_embd=16, n_head=2, n_dims=n_dims, n_positions=n_positions, n_loops=2)
        return LoopedGPT2ForInContextRegression(config).eval()

    return model_of


@pytest.fixture
def answers_of(tmp_path):
    return lambda model: Answers(model, Regression(), PredictionCache(tmp_path / "cache"), batch_size=8)


def naive_errors(model, prompts, places):
    with torch.no_grad():
        columns = [model(prompts["xs"][:, : n + 1], prompts["ys"][:, :n]).predictions[:, -1] for n in places]
    return (torch.stack(columns, dim=1) - prompts["labels"][:, places]).square().mean(dim=1).double().numpy() / 3


def test_rows_hold_the_errors_of_all_on_the_same_prompts(model_of, answers_of):
    model, other = model_of(0), model_of(1)
    rows = measure_contests(answers_of(model), {NAME: answers_of(other)}, [PLAIN, NOISY, SHIFTED], 20, seed=5)
    noisy = make_task("noisy_linear_regression", n_dims=3, n_points=5, noise_std=0.5)
    plain, shifted = (make_task(NAME, n_dims=3, n_points=n_points) for n_points in (4, 4))
    drawn = [
        plain.sample(20, make_generator("specialists", 5)),
        noisy.sample(20, make_generator("specialists", 5)),
        SHIFTS["scale_x_2"].sample(shifted, 20, make_generator("specialists", 5), 4),
    ]
    for row, contest, prompts in zip(rows, (PLAIN, NOISY, SHIFTED), drawn, strict=True):
        own, others = (naive_errors(each, prompts, contest.places) for each in (model, other))
        alpha = 0.25 if contest is NOISY else 1.0
        ridge = predict_prefixes(
            lambda *columns, a=alpha: predict_ridge(*columns, alpha=a), prompts["xs"], prompts["ys"]
        )
        error = (ridge - prompts["labels"])[:, contest.places].square().mean().item() / 3
        unit = error if contest is NOISY else 1.0
        assert row.limit == pytest.approx(1.0 if contest is NOISY else row.solvers["least squares"])
        if contest is not NOISY:
            assert row.solvers["ridge"] == pytest.approx(error)
        assert row.model == pytest.approx(own.mean() / unit, rel=1e-4)
        assert row.specialists == {NAME: pytest.approx(others.mean() / unit, rel=1e-4)}
        assert row.difference.error == pytest.approx((own - others).mean() / unit, rel=1e-3, abs=1e-6)
        assert row.difference.low < row.difference.error < row.difference.high
        assert (row.is_shift, row.target) == (contest is SHIFTED, contest.target)
        assert row.examples == ("2 to 3" if contest is PLAIN else str(contest.places[0]))


def test_models_that_do_not_fit_each_other_are_refused_before_any_work(model_of, answers_of):
    answers = answers_of(model_of(0))
    with pytest.raises(ValueError, match="`specialists` must hold a model of linear_regression, got parity"):
        measure_contests(answers, {"parity": answers}, [PLAIN], 20, seed=1)
    with pytest.raises(ValueError, match="`n_dims` of the model and of the specialist of linear_regression must be"):
        measure_contests(answers, {NAME: answers_of(model_of(0, n_dims=4))}, [PLAIN], 20, seed=1)
    with pytest.raises(ValueError, match="`n_points` must be <= 2"):
        measure_contests(answers, {NAME: answers_of(model_of(0, n_positions=4))}, [PLAIN], 20, seed=1)


def test_r2_on_tables_is_a_mean_over_draws(model_of):
    model, other = model_of(0, 10, 82), model_of(1, 10, 82)
    row = measure_friedman(model, {"b": other, "a": model}, n_draws=2, seed=1)
    assert row.specialists["a"] == row.model
    best = max(row.specialists.values())
    assert row.difference.error == pytest.approx(row.model - best)
    assert max(best, *row.solvers.values()) < row.limit < 1
    assert row.solvers["ridge"] == pytest.approx(0.6, abs=0.2)
    assert row.solvers["Gaussian process, a scale per column"] > row.solvers["ridge"]
    assert row.more_is_better
    again = measure_friedman(model, {"b": other, "a": model}, n_draws=2, seed=1)
    assert np.isclose(again.model, row.model)
    averaged = measure_friedman(model, {"b": other}, n_draws=2, seed=1, n_estimators=3)
    assert averaged.figure == "friedman1 of scikit-learn, R², mean of 3 estimators"
    assert averaged.model != row.model
    assert averaged.solvers == row.solvers
