from dataclasses import dataclass

import numpy as np
import pytest
import torch

from tasks import TASKS, FunctionClass, Task, make_task, task_fields
from tasks.baselines.prefixes import predict_prefixes
from tasks.common import draw_normal
from tasks.curriculum import Schedule
from tasks.streams import Stream


def test_a_task_is_made_by_its_name_and_its_settings():
    for name, kind in TASKS.items():
        assert name == kind.name
    task = make_task("decision_tree", n_dims=5, depth=2)
    assert (type(task), task.n_dims, task.depth) == (TASKS["decision_tree"], 5, 2)
    assert {name: field.default for name, field in task_fields("decision_tree", {}).items()} == {
        "n_dims": 20,
        "n_points": 41,
        "depth": 4,
    }


def test_unknown_tasks_and_settings_are_refused():
    with pytest.raises(ValueError, match=r"`task` must be one of .*, got 'linear'"):
        make_task("linear", n_dims=5)
    with pytest.raises(ValueError, match="the settings of decision_tree are n_dims, n_points, depth, got `noise_std`"):
        make_task("decision_tree", noise_std=0.5)


def test_a_class_of_the_users_has_no_known_limit_and_what_it_must_define_is_said():
    class OfAUser(FunctionClass):
        name = "of_a_user"

    task = OfAUser()
    assert task.limit is None
    assert task.shifts == task.published == task.published_shifts == task.components == {}
    for call in (lambda: task.normaliser, lambda: task.draw_functions(1, 1, None), lambda: Task().sizes):
        with pytest.raises(NotImplementedError, match="must define"):
            call()


@dataclass(frozen=True)
class Planes(FunctionClass):
    """Vectors y = W x of K numbers, at inputs uniform in 0 ... 1."""

    name = "planes"
    description = "linear maps"
    n_numbers: int = 2

    @property
    def n_outputs(self):
        return self.n_numbers

    @property
    def normaliser(self):
        return self.n_dims * self.n_numbers / 3  # E x² = 1 / 3

    def draw_functions(self, n_prompts, n_dims_active, generator):
        weights = draw_normal((n_prompts, self.n_dims, self.n_numbers), generator)
        return lambda xs: xs @ weights

    def draw_xs(self, n_prompts, n_points, n_dims_active, generator):
        xs = torch.rand((n_prompts, n_points, self.n_dims), generator=generator)
        return xs * (torch.arange(self.n_dims) < n_dims_active)


def generator():
    return torch.Generator().manual_seed(0)


def test_values_may_be_vectors_at_inputs_of_any_distribution():
    task = Planes(n_dims=3, n_points=7)
    assert task.model_fields == {"n_dims": 3, "n_positions": 14, "n_outputs": 2}
    assert task.n_tokens(**task.sizes) == 13
    prompts = task.sample(4000, generator(), n_dims_active=2)
    assert {name: tuple(values.shape) for name, values in prompts.items()} == {
        "xs": (4000, 7, 3),
        "ys": (4000, 7, 2),
        "labels": (4000, 7, 2),
    }
    assert prompts["xs"].min() == 0
    assert prompts["xs"].max() < 1
    assert not prompts["xs"][..., 2:].any()
    batch = next(iter(Stream(task, 4, {"n_dims_active": Schedule(1, 3)}, seed=0).iterable()))
    assert batch["ys"].shape == (4, 7, 2)
    assert not batch["xs"][..., 1:].any()


def test_errors_of_vectors_are_summed_over_their_numbers():
    task = Planes(n_dims=3, n_points=7)
    prompts = task.sample(4000, generator())
    answers = np.random.default_rng(0).normal(size=(4000, 7, 2))
    expected = np.square(answers - prompts["labels"].numpy()).sum(axis=2) / 2
    np.testing.assert_allclose(task.score(answers, prompts), expected)
    errors = task.score(np.zeros_like(answers), prompts)
    assert errors.mean() == pytest.approx(1, abs=4 * errors.mean(axis=1).std() / 4000**0.5)


def test_vectors_of_one_number_are_scored_as_numbers_are():
    vectors, numbers = Planes(n_dims=3, n_numbers=1), FunctionClass.score
    prompts = vectors.sample(5, generator(), n_points=4)
    flat = {name: values.squeeze(2) if name != "xs" else values for name, values in prompts.items()}
    assert np.array_equal(vectors.score(np.ones((5, 4, 1)), prompts), numbers(vectors, np.ones((5, 4)), flat))


def test_every_number_of_a_vector_is_predicted_on_its_own():
    task = Planes(n_dims=3, n_points=7)
    prompts = task.sample(5, generator())
    for predictor in task.baselines.values():
        together = predict_prefixes(predictor, prompts["xs"], prompts["ys"])
        alone = [predict_prefixes(predictor, prompts["xs"], ys) for ys in prompts["ys"].unbind(2)]
        assert torch.equal(together, torch.stack(alone, dim=2))
    least_squares = predict_prefixes(task.baselines["least squares"], prompts["xs"], prompts["ys"])
    torch.testing.assert_close(least_squares[:, 4:].float(), prompts["labels"][:, 4:], rtol=1e-3, atol=1e-3)
