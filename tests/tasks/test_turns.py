"""Turns of x: the best predictor of a class answers turned prompts as it answers the prompts."""

import pytest
import torch

from tasks import TASKS, make_task
from tasks.baselines.prefixes import predict_prefixes
from tasks.turns import TURNS, draw_turns


def make_generator(seed=0):
    return torch.Generator().manual_seed(seed)


TURNED = [name for name, task in TASKS.items() if task.turns]


SETTINGS = {"decision_tree": {"depth": 2}, "sparse_linear_regression": {"sparsity": 2}}


@pytest.fixture
def prompts_of():
    def make(name):
        task = make_task(name, n_dims=4, n_points=7, **SETTINGS.get(name, {}))
        return task, {key: values.double() for key, values in task.sample(6, make_generator()).items()}

    return make


def limits(task, xs, ys):
    return torch.as_tensor(predict_prefixes(task.limit.predictor, xs, ys))


@pytest.mark.parametrize("name", TURNED)
def test_the_best_predictor_answers_turned_prompts_as_it_answers_the_prompts(name, prompts_of):
    task, prompts = prompts_of(name)
    expected = limits(task, prompts["xs"], prompts["ys"])
    turns = draw_turns(task, 4, make_generator(1)).double()
    assert not torch.allclose(turns[1], turns[2])
    for turn in turns:
        found = limits(task, prompts["xs"] @ turn, prompts["ys"])
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_sparse_functions_know_axes_and_are_not_rotated(prompts_of):
    task, prompts = prompts_of("sparse_linear_regression")
    (rotation,) = TURNS["rotations"](1, 4, make_generator()).double()
    expected = limits(task, prompts["xs"], prompts["ys"])
    assert not torch.allclose(limits(task, prompts["xs"] @ rotation, prompts["ys"]), expected, rtol=1e-2)


@pytest.mark.parametrize("kind", TURNS)
def test_turns_are_orthogonal_and_all_axes_equally_likely(kind):
    turns = TURNS[kind](3000, 3, make_generator())
    torch.testing.assert_close(turns @ turns.mT, torch.eye(3).expand(3000, 3, 3), rtol=0, atol=1e-5)
    assert turns.mean(dim=0).abs().max() < 0.05
    torch.testing.assert_close(turns.square().mean(dim=0), torch.full((3, 3), 1 / 3), rtol=0, atol=0.03)


def test_the_first_turn_leaves_prompts_as_they_are_and_one_is_none():
    task = make_task("linear_regression", n_dims=3)
    assert torch.equal(draw_turns(task, 3, make_generator())[0], torch.eye(3))
    assert draw_turns(task, 1, make_generator()) is None
    assert draw_turns(make_task("parity"), 1, make_generator()) is None
    assert torch.equal(draw_turns(task, 3, make_generator()), draw_turns(task, 3, make_generator()))


@pytest.mark.parametrize("name", ["fourier_regression", "many_outlier_regression", "parity"])
def test_a_class_of_which_no_turns_are_known_has_none(name):
    with pytest.raises(ValueError, match=f"`n_turns` must be 1 for {name}, of which no turns of x are known, got 2."):
        draw_turns(make_task(name), 2, make_generator())
