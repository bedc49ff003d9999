"""Prompts that begin with the name of their class, beside those that do not."""

import numpy as np
import pytest
import torch

from tasks import TASKS, FunctionClass, make_task
from tasks.curriculum import Schedule
from tasks.guidance import Named, misnamed
from tasks.streams import Stream


COMPONENTS = {"linear_regression": 3, "decision_tree": {"weight": 1, "depth": 2}}


def make_mixture(guidance=True, **changes):
    settings = {"n_dims": 4, "n_points": 30, "components": COMPONENTS, "guidance": guidance}
    return make_task("mixture", **settings | changes)


def generator():
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("name", [name for name, task in TASKS.items() if issubclass(task, FunctionClass)])
def test_the_first_point_is_the_name_and_the_others_are_those_of_the_class(name):
    task = make_task(name, n_dims=4, n_points=6)
    named, prompts = Named(task, 2).sample(5, generator(), n_points=5), task.sample(5, generator(), n_points=5)
    assert all(torch.equal(named[column][:, 1:], values[:, 1:]) for column, values in prompts.items())
    assert torch.equal(named["xs"][:, 0], torch.tensor([0.0, 0.0, 2.0, 0.0]).expand(5, 4))
    assert not named["ys"][:, 0].any()
    assert not named["labels"][:, 0].any()


def test_a_name_is_as_long_as_an_x_is():
    xs = Named(make_task("linear_regression", n_dims=9, n_points=200), 0).sample(50, generator())["xs"]
    lengths = xs.square().sum(dim=2)
    assert lengths[:, 0] == pytest.approx(9)
    assert lengths[:, 1:].mean().item() == pytest.approx(9, rel=0.02)


def test_every_prompt_of_a_mixture_begins_with_the_number_of_its_component():
    prompts, plain = make_mixture().sample(60, generator()), make_mixture(guidance=False).sample(60, generator())
    assert all(torch.equal(prompts[column][:, 1:], values[:, 1:]) for column, values in plain.items())
    is_tree = torch.tensor([len(values.unique()) <= 4 for values in plain["ys"]])
    codes = prompts["xs"][:, 0]
    assert torch.equal(codes.argmax(dim=1) == 0, is_tree)  # by name: the tree is the first
    assert torch.equal(codes.sort(dim=1).values, torch.tensor([0.0, 0.0, 0.0, 2.0]).expand(60, 4))


def test_places_of_a_score_count_examples_and_not_the_name():
    mixture, plain = make_mixture(), make_mixture(guidance=False)
    prompts, answers = mixture.sample(8, generator()), np.random.default_rng(0).normal(size=(8, 30))
    scores = mixture.score(answers, prompts)
    assert scores.shape == (8, 29)
    np.testing.assert_array_equal(scores, plain.score(answers, prompts)[:, 1:])
    for task in mixture.components.values():
        assert task.score(answers, prompts).shape == (8, 29)
    assert mixture.normaliser == plain.normaliser


def test_a_named_class_is_the_class_but_for_what_would_take_the_name_for_an_example():
    mixture, plain = make_mixture(), make_mixture(guidance=False)
    assert mixture.components.keys() == plain.components.keys()
    alike = ("name", "description", "objective", "score_name", "place_name", "sizes", "model_fields", "normaliser")
    for named, task in zip(mixture.components.values(), plain.components.values(), strict=True):
        assert all(getattr(named, trait) == getattr(task, trait) for trait in alike)
        assert named.n_tokens(n_points=9) == task.n_tokens(n_points=9)
        assert (named.baselines, named.limit, named.n_hints, named.shifts, named.published) == ({}, None, 0, {}, {})
    with pytest.raises(ValueError, match="the task mixture has no hints"):
        mixture.sample(2, generator(), with_hints=True)


def test_a_name_may_lie_in_a_dimension_that_is_not_active():
    xs = make_mixture(components={"linear_regression": 1, "decision_tree": 1, "relu_2nn_regression": 1}).sample(
        40, generator(), n_dims_active=1
    )["xs"]
    assert not xs[:, 1:, 1:].any()
    assert set(xs[:, 0].argmax(dim=1).tolist()) == {0, 1, 2}


def test_the_wrong_name_is_that_of_the_next_component_and_changes_nothing_else():
    components = make_mixture(
        components={"linear_regression": 1, "decision_tree": 1, "relu_2nn_regression": 1}
    ).components
    wrong = misnamed(components)
    assert [task.number for task in wrong.values()] == [1, 2, 0]
    for name, task in wrong.items():
        prompts, same = task.sample(3, generator()), components[name].sample(3, generator())
        assert all(torch.equal(prompts[column][:, 1:], values[:, 1:]) for column, values in same.items())
        assert not torch.equal(prompts["xs"], same["xs"])
    assert misnamed(make_mixture(guidance=False).components) == {}


@pytest.mark.parametrize("guidance", ["yes", 1, None, {"linear_regression": 0}])
def test_guidance_is_true_or_false(guidance):
    with pytest.raises(ValueError, match="`guidance` must be true or false, got "):
        make_mixture(guidance)


def test_what_cannot_be_named_is_refused():
    with pytest.raises(ValueError, match="`guidance` is of functions, and random_tables is none: leave it out"):
        make_task("mixture", components={"random_tables": 1}, guidance=True)
    with pytest.raises(ValueError, match=r"`n_dims` of linear_regression must be >= 2, as `guidance` .*, got 1"):
        make_mixture(n_dims=1)
    message = "`n_points` must be >= 2 with `guidance`, whose first point is a name, got 1"
    with pytest.raises(ValueError, match=message):
        make_mixture(n_points=1)
    with pytest.raises(ValueError, match=message):
        make_mixture().sample(2, generator(), n_points=1)
    with pytest.raises(ValueError, match=message):
        Stream(make_mixture(), 8, {"n_points": Schedule(1, 30)}, seed=0)
