"""What is compared: prompts, limits and published figures of every contest."""

import numpy as np
import pytest
import torch

from modeling_looped_gpt2 import LoopedGPT2Config
from scripts.specialists.contests import CONTESTS, Contest
from tasks import make_task
from tasks.published import published
from tasks.shifts import SHIFTS
from tasks.streams import make_generator


CONFIG = LoopedGPT2Config(n_dims=20, n_positions=202)
named = pytest.mark.parametrize("contest", CONTESTS, ids=lambda contest: f"{contest.figure} {contest.examples}")


@named
def test_its_prompts_are_of_the_class_and_as_long_as_it_needs(contest):
    task = contest.task(CONFIG)
    prompts = contest.sample(task, 3, make_generator("specialists", 1))
    assert prompts.keys() == {"xs", "ys", "labels"}
    assert prompts["xs"].shape == (3, contest.places[-1] + 1, 20)
    assert prompts["ys"].shape == prompts["labels"].shape == (3, contest.places[-1] + 1)
    if contest.shift:  # asked at the points themselves
        shifted = SHIFTS[contest.shift].sample(task, 3, make_generator("specialists", 1), task.n_points)
        assert torch.equal(shifted["queries"], prompts["xs"])
    elif "noise_std" not in contest.settings:
        assert torch.equal(prompts["ys"], prompts["labels"])


@named
def test_the_limit_is_no_worse_than_any_solver_that_is_not_given_the_class(contest):
    task = contest.task(CONFIG)
    prompts = contest.sample(task, 512, make_generator("specialists", 1))
    n = contest.places[0]
    xs, ys = prompts["xs"].double(), prompts["ys"].double()
    predictors = {"limit": contest.limit(task), **contest.solvers(task)}
    errors = {}
    for name in ("limit", "zero", "least squares", "3-nearest neighbours", "ridge, penalty chosen"):
        if name in predictors:
            predictions = predictors[name](xs[:, :n], ys[:, :n], xs[:, n])
            errors[name] = (predictions - prompts["labels"][:, n]).square().mean().item()
    assert len(errors) >= 4
    assert errors["limit"] <= 1.05 * min(errors.values()) + 1e-9


def test_figures_of_papers_are_means_of_their_curves_at_the_same_places():
    (late,) = (contest for contest in CONTESTS if contest.task_name == "decision_tree")
    curves = make_task("decision_tree", n_points=101).published
    assert late.published(late.task(CONFIG)) == {
        name: pytest.approx(np.mean(curves[name]["error"][80:101]))
        for name in ("standard transformer", "looped transformer")
    }
    (skewed,) = (contest for contest in CONTESTS if contest.shift == "skewed")
    error = published()["shifts"]["curves"]["skewed"]["error"][40]
    assert skewed.published(skewed.task(CONFIG)) == ({"standard transformer": error} if error is not None else {})
    fewer = Contest("linear", "linear_regression", [3], "linear_regression")
    assert fewer.published(fewer.task(LoopedGPT2Config(n_dims=5, n_positions=22))) == {}


def test_a_model_that_cannot_read_the_prompts_is_refused():
    (late,) = (contest for contest in CONTESTS if contest.task_name == "decision_tree")
    with pytest.raises(ValueError, match="`n_points` must be <= 41 for a model of `n_positions` = 82, got 101"):
        late.task(LoopedGPT2Config(n_dims=20, n_positions=82))
