from itertools import islice

import pytest
import torch
from torch.utils.data import DataLoader

from tasks import TASKS, make_task
from tasks.curriculum import Schedule
from tasks.streams import Stream, make_generator


def make_stream(**changes):
    settings = {
        "task": make_task("linear_regression", n_dims=6),
        "batch_size": 8,
        "schedules": {"n_points": Schedule(3, 9, 2, 2), "n_dims_active": Schedule(2, 6, 1, 2)},
        "seed": 0,
    }
    return Stream(**(settings | changes))


def read(stream, n, **where):
    return list(islice(DataLoader(stream.iterable(**where), batch_size=None), n))


def assert_same(first, second):
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        assert one.keys() == other.keys() == {"xs", "ys", "labels"}
        for name in one:
            assert torch.equal(one[name], other[name])


def test_element_i_depends_on_settings_seed_and_i_alone():
    stream = make_stream()
    elements = read(stream, 6)
    assert_same(elements, [stream.batch(index) for index in range(6)])
    assert_same(elements[4:], read(make_stream(), 2, start=4))
    for other in (make_stream(seed=1), make_stream(split="validation")):
        assert not torch.equal(other.batch(3)["xs"], elements[3]["xs"])


@pytest.mark.parametrize("name", TASKS)
def test_every_tensor_has_memory_of_its_own_as_pinning_for_a_gpu_asks(name):
    task = make_task(name, n_dims=6)
    stream = make_stream(task=task, schedules={}, with_hints=task.n_hints > 0)
    (batch,) = read(stream, 1)
    assert all(values.is_contiguous() for values in batch.values())


def test_the_curriculum_shapes_the_batches():
    elements = read(make_stream(), 5)
    assert [tuple(batch["xs"].shape) for batch in elements] == [(8, n, 6) for n in (3, 3, 5, 5, 7)]
    assert [int((batch["xs"] != 0).any(dim=(0, 1)).sum()) for batch in elements] == [2, 2, 3, 3, 4]


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_the_global_batch_is_the_same_for_any_number_of_processes(world_size):
    stream = make_stream()
    parts = [read(stream, 3, rank=rank, world_size=world_size) for rank in range(world_size)]
    joined = [{name: torch.cat([part[i][name] for part in parts]) for name in parts[0][i]} for i in range(3)]
    assert_same(joined, read(stream, 3))


def test_resuming_at_a_million_draws_one_batch(monkeypatch):
    drawn = []
    monkeypatch.setattr(Stream, "batch", lambda stream, index: drawn.append(index) or {"xs": torch.zeros(8)})
    read(make_stream(), 1, start=1_000_000)
    assert drawn == [1_000_000]


def test_generators_of_different_elements_are_unrelated():
    draws = {
        torch.randn(1, generator=make_generator("train", seed, i)).item() for seed in range(30) for i in range(30)
    }
    assert len(draws) == 900


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match="`batch_size` must be a multiple of the number of processes, got 8 and 3"):
        make_stream().iterable(rank=0, world_size=3)
    with pytest.raises(ValueError, match="`batch_size` must be an integer >= 1"):
        make_stream(batch_size=0)
    with pytest.raises(ValueError, match="`seed` must be >= 0"):
        make_stream(seed=-1)
    with pytest.raises(ValueError, match="`n_dims_active` must be <= `n_dims` = 6, got 7"):
        make_stream(schedules={"n_dims_active": Schedule(1, 7)})
    with pytest.raises(ValueError, match=r"`schedules` of linear_regression are of n_points, n_dims_.*, got `dims`"):
        make_stream(schedules={"dims": Schedule(1, 7)})
