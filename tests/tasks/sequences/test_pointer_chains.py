"""Pointer chains beside following the pointers one by one."""

import numpy as np
import pytest
import torch

from tasks import make_task
from tasks.curriculum import Schedule
from tasks.sequences.pointer_chains import PointerChains
from tasks.streams import Stream


def make_generator(seed=0):
    return torch.Generator().manual_seed(seed)


def followed(ids, n_nodes):
    """The end of the chain of every query and the pointers to it."""
    pointer = dict(zip(ids[: 2 * n_nodes : 2], ids[1 : 2 * n_nodes : 2], strict=True))
    assert sorted(pointer) == sorted(ids[2 * n_nodes :]) == list(range(n_nodes))
    for node in ids[2 * n_nodes :]:
        hops = 0
        while pointer[node] != node:
            node, hops = pointer[node], hops + 1
        yield node, hops


@pytest.mark.parametrize(("n_nodes", "max_hops"), [(2, 1), (6, 5), (12, 4), (12, 11)])
def test_answers_are_where_the_pointers_lead(n_nodes, max_hops):
    task = PointerChains(n_nodes, max_hops)
    prompts = task.sample(200, make_generator())
    assert prompts["input_ids"].shape == prompts["labels"].shape == (200, 3 * n_nodes)
    assert (prompts["labels"][:, : 2 * n_nodes] == -100).all()
    hops = task.follow(prompts["input_ids"])[1]
    answers = prompts["labels"][:, 2 * n_nodes :]
    for ids, of_prompt in zip(prompts["input_ids"].tolist(), zip(answers, hops, strict=True), strict=True):
        assert list(followed(ids, n_nodes)) == list(zip(*(values.tolist() for values in of_prompt), strict=True))
    assert hops.max() == max_hops
    assert hops.min() == 0


def test_the_generator_decides_all():
    task = PointerChains(6, 3)
    first, second = (task.sample(5, make_generator()) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["input_ids"], task.sample(5, make_generator(1))["input_ids"])


def test_shorter_chains_come_first_where_a_schedule_says_so():
    task = make_task("pointer_chains", n_nodes=8, max_hops=5)
    stream = Stream(task, 64, {"max_hops": Schedule(1, 5, interval=2)}, seed=0)
    longest = [task.follow(stream.batch(index)["input_ids"])[1].max().item() for index in (0, 1, 2, 4, 8, 20)]
    assert longest == [1, 1, 2, 3, 5, 5]


def test_the_score_is_the_share_of_wrong_answers_by_pointers_to_follow():
    task = PointerChains(6, 3)
    prompts = task.sample(50, make_generator())
    answers = torch.randint(6, prompts["labels"].shape, generator=make_generator(1)).numpy()
    scores = task.score(answers, prompts)
    assert scores.shape == (50, 4)
    for row, (ids, answered) in enumerate(zip(prompts["input_ids"].tolist(), answers[:, 12:], strict=True)):
        wrong = {hops: [] for hops in range(4)}
        for (node, hops), answer in zip(followed(ids, 6), answered, strict=True):
            wrong[hops].append(node != answer)
        expected = [np.mean(values) if values else np.nan for values in wrong.values()]
        np.testing.assert_array_equal(scores[row], expected)
    assert np.isnan(scores).any()  # a prompt of short chains asks nothing of long ones
    perfect = task.score(prompts["labels"].numpy(), prompts)
    assert not np.nan_to_num(perfect).any()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_nodes": 1}, "`n_nodes` must be >= 2, got 1"),
        ({"n_nodes": 6, "max_hops": 0}, "`max_hops` must be an integer >= 1, got 0"),
        ({"n_nodes": 6, "max_hops": 6}, r"`max_hops` must be in 1 ... `n_nodes` - 1 = 5, got 6"),
        ({"n_nodes": 6.5}, "`n_nodes` must be an integer >= 1, got 6.5"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        PointerChains(**settings)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_prompts": 0}, "`n_prompts` must be an integer >= 1, got 0"),
        ({"max_hops": 0}, "`max_hops` must be an integer >= 1, got 0"),
        ({"max_hops": 5}, "`max_hops` must be <= that of the task, 4, got 5"),
        ({"with_hints": True}, "pointer_chains has no hints"),
    ],
)
def test_bad_sizes_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        PointerChains().sample(**{"n_prompts": 2, "generator": make_generator()} | arguments)
