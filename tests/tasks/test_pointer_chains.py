"""Pointer chains beside following the pointers one by one."""

import pytest
import torch

from tasks.pointer_chains import sample_chains


def make_generator():
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize(("n_nodes", "max_hops"), [(2, 1), (6, 5), (12, 4), (12, 11)])
def test_answers_are_where_the_pointers_lead(n_nodes, max_hops):
    prompts = sample_chains(200, n_nodes, max_hops, make_generator())
    assert prompts["input_ids"].shape == (200, 3 * n_nodes)
    for ids, answers, hops in zip(*(prompts[name].tolist() for name in ("input_ids", "answers", "hops")), strict=True):
        pointer = dict(zip(ids[: 2 * n_nodes : 2], ids[1 : 2 * n_nodes : 2], strict=True))
        queries = ids[2 * n_nodes :]
        assert sorted(pointer) == sorted(queries) == list(range(n_nodes))
        for query, answer, n_hops in zip(queries, answers, hops, strict=True):
            node, followed = query, 0
            while pointer[node] != node:
                node, followed = pointer[node], followed + 1
            assert (node, followed) == (answer, n_hops)
    assert prompts["hops"].max() == max_hops
    assert prompts["hops"].min() == 0


def test_the_generator_decides_all():
    first, second = (sample_chains(5, 6, 3, make_generator()) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["input_ids"], sample_chains(5, 6, 3, torch.Generator().manual_seed(1))["input_ids"])


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((0, 6, 3), "`n_prompts` must be >= 1 and `n_nodes` >= 2, got 0 and 6"),
        ((1, 1, 1), "`n_prompts` must be >= 1 and `n_nodes` >= 2, got 1 and 1"),
        ((1, 6, 0), r"`max_hops` must be in 1 ... `n_nodes` - 1 = 5, got 0"),
        ((1, 6, 6), r"`max_hops` must be in 1 ... `n_nodes` - 1 = 5, got 6"),
    ],
)
def test_bad_sizes_are_refused(sizes, message):
    with pytest.raises(ValueError, match=message):
        sample_chains(*sizes, make_generator())
