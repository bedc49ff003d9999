from dataclasses import dataclass, replace
from itertools import islice

import pytest
import torch
from torch.utils.data import DataLoader

from tasks import TASKS, FunctionClass, Task, make_task
from tasks.curriculum import Schedule
from tasks.streams import Stream, make_generator


@dataclass(frozen=True)
class Echo(Task):
    """Tokens, the second half of which must be answered by the first."""

    name = "echo"
    objective = "answer_slots"
    n_tokens: int = 6
    n_words: int = 5

    @property
    def sizes(self):
        return {"n_tokens": self.n_tokens, "n_words": self.n_words}

    def check_sizes(self, n_tokens, n_words):  # sizes are checked all at once, as they may depend on each other
        if n_words > self.n_words:
            raise ValueError(f"`n_words` must be <= {self.n_words}, got {n_words}.")

    def sample(self, n_prompts, generator, with_hints=False, n_tokens=None, n_words=None):
        words = torch.randint(0, n_words, (n_prompts, n_tokens), generator=generator)
        return {
            "input_ids": torch.cat((words, torch.full_like(words, self.n_words)), dim=1),
            "labels": torch.cat((torch.full_like(words, -100), words), dim=1),
        }


def make_echo(**changes):
    schedules = {"n_words": Schedule(2, 5, 1, 1), "n_tokens": Schedule(2, 6, 2, 2)}
    return Stream(**({"task": Echo(), "batch_size": 8, "schedules": schedules, "seed": 0} | changes))


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
        assert one.keys() == other.keys()
        for name in one:
            assert torch.equal(one[name], other[name])


STREAMS = {"points": make_stream, "tokens": make_echo}


@pytest.mark.parametrize("make", STREAMS.values(), ids=STREAMS)
def test_element_i_depends_on_settings_seed_and_i_alone(make):
    stream = make()
    elements = read(stream, 6)
    assert_same(elements, [stream.batch(index) for index in range(6)])
    assert_same(elements[4:], read(make(), 2, start=4))
    for other in (make(seed=1), make(split="validation")):
        assert not torch.equal(other.batch(3)["labels"], elements[3]["labels"])


@pytest.mark.parametrize("name", [name for name, kind in TASKS.items() if issubclass(kind, FunctionClass)])
def test_every_tensor_has_memory_of_its_own_as_pinning_for_a_gpu_asks(name):
    task = make_task(name, n_dims=6)
    stream = make_stream(task=task, schedules={}, with_hints=task.n_hints > 0)
    (batch,) = read(stream, 1)
    assert all(values.is_contiguous() for values in batch.values())


def test_the_curriculum_shapes_the_batches():
    elements = read(make_stream(), 5)
    assert [tuple(batch["xs"].shape) for batch in elements] == [(8, n, 6) for n in (3, 3, 5, 5, 7)]
    assert [int((batch["xs"] != 0).any(dim=(0, 1)).sum()) for batch in elements] == [2, 2, 3, 3, 4]
    assert [set(batch) for batch in elements] == [{"xs", "ys", "labels"}] * 5


def test_schedules_are_of_any_sizes_by_their_names():
    stream = make_echo(batch_size=64)
    elements = read(stream, 5)
    assert [tuple(batch["input_ids"].shape) for batch in elements] == [(64, 2 * n) for n in (2, 2, 4, 4, 6)]
    assert [int(batch["labels"].max()) + 1 for batch in elements] == [2, 3, 4, 5, 5]
    assert stream.sizes_at(1) == {"n_tokens": 2, "n_words": 3}
    assert make_echo(schedules={}).sizes_at(10**9) == Echo().sizes
    with pytest.raises(ValueError, match="`n_words` must be <= 5, got 6"):
        make_echo(schedules={"n_words": Schedule(1, 6)})


@pytest.mark.parametrize("make", STREAMS.values(), ids=STREAMS)
@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_the_global_batch_is_the_same_for_any_number_of_processes(world_size, make):
    stream = make()
    parts = [read(stream, 3, rank=rank, world_size=world_size) for rank in range(world_size)]
    joined = [{name: torch.cat([part[i][name] for part in parts]) for name in parts[0][i]} for i in range(3)]
    assert_same(joined, read(stream, 3))


def test_a_set_shows_the_ys_of_its_examples_and_asks_for_the_others():
    sets, points = make_stream(as_sets=True, batch_size=4), make_stream(batch_size=4)
    drawn = set()
    for index, (batch, whole) in enumerate(zip(read(sets, 40), read(points, 40), strict=True)):
        n_examples = batch["ys"].shape[1]
        assert torch.equal(batch["xs"], whole["xs"])
        assert torch.equal(batch["ys"], whole["ys"][:, :n_examples])
        assert torch.equal(batch["labels"], whole["labels"][:, n_examples:])
        if index >= 8:  # all of the largest size
            drawn.add(n_examples)
    assert drawn <= set(range(9))
    assert len(drawn) >= 7  # fewer come from 32 draws once in a thousand times
    assert_same([sets.batch(5)], read(make_stream(as_sets=True, batch_size=4), 1, start=5))
    parts = [read(sets, 3, rank=rank, world_size=2) for rank in range(2)]
    joined = [{name: torch.cat([part[i][name] for part in parts]) for name in parts[0][i]} for i in range(3)]
    assert_same(joined, read(sets, 3))


def test_what_cannot_be_a_set_is_refused():
    with pytest.raises(ValueError, match="echo has no points that could be a set: leave out `example_order`"):
        make_echo(as_sets=True)
    task = make_task("decision_tree", n_dims=6)
    with pytest.raises(ValueError, match=r"sets have no hints, .*: leave out `hint_weight`"):
        make_stream(task=task, schedules={}, with_hints=True, as_sets=True)


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
    with pytest.raises(ValueError, match=r"`schedules` of linear_regression must be of n_points, .*, got `dims`"):
        make_stream(schedules={"dims": Schedule(1, 7)})


def test_a_pool_of_prompts_comes_again():
    settings = (make_task("linear_regression", n_dims=2), 4, {"n_points": Schedule(3, 3)}, 0)
    stream, endless = Stream(*settings, n_distinct_prompts=8), Stream(*settings)
    for index in range(6):
        assert torch.equal(stream.batch(index)["xs"], endless.batch(index % 2)["xs"])
    assert not torch.equal(stream.batch(0)["xs"], stream.batch(1)["xs"])
    with pytest.raises(ValueError, match="`n_distinct_prompts` must be a multiple of `batch_size` = 4, got 6"):
        Stream(*settings, n_distinct_prompts=6)


def weights_of(batch):
    """The w of every prompt with more points than dimensions."""
    return torch.linalg.lstsq(batch["xs"].double(), batch["labels"].double().unsqueeze(2)).solution.squeeze(2)


@pytest.mark.parametrize("n_functions", [1, 3, 16])
def test_so_many_functions_are_met_again_and_again_at_other_points(n_functions):
    settings = {"schedules": {}, "n_distinct_functions": n_functions, "batch_size": 64}
    stream = make_stream(task=make_task("noisy_linear_regression", n_dims=3, n_points=9), **settings)
    batches = [stream.batch(index) for index in range(2)]
    weights = torch.cat([weights_of(batch) for batch in batches])
    generators = map(stream.function_generator, range(n_functions))
    drawn = torch.cat([stream.task.draw_functions(1, 3, generator).weights for generator in generators])
    nearest = torch.cdist(weights, drawn.double())
    assert nearest.min(dim=1).values.max() < 1e-4
    assert len(nearest.argmin(dim=1).unique()) == n_functions
    # inputs and noise never come again
    xs, noise = (torch.cat([batch[name] for batch in batches]).flatten(0, 1) for name in ("xs", "ys"))
    assert len(xs.unique(dim=0)) == len(noise.unique()) == 128 * 9


@pytest.mark.parametrize("change", [{"batch_size": 16}, {"split": "test"}, {"n_distinct_functions": 8}])
def test_a_function_depends_on_the_seed_and_its_number_alone(change):
    stream = make_stream(schedules={}, n_distinct_functions=4)
    other = replace(stream, **change)
    for number in range(4):
        first, second = (each.function_generator(number) for each in (stream, other))
        assert torch.equal(*(stream.task.draw_functions(1, 6, each).weights for each in (first, second)))
    known = torch.cat([stream.task.draw_functions(1, 6, stream.function_generator(k)).weights for k in range(8)])
    for index in range(4):
        assert (torch.cdist(weights_of(other.batch(index)), known.double()).min(dim=1).values < 1e-4).all()
    assert not torch.equal(
        *(torch.randn(9, generator=each.function_generator(0)) for each in (stream, replace(stream, seed=1)))
    )


def test_functions_that_come_again_are_those_of_fewer_dimensions_too():
    task, generator = make_task("linear_regression", n_dims=6), make_stream().function_generator
    few, all_of_them = (task.draw_functions(1, n_dims, generator(0)).weights for n_dims in (2, 6))
    assert torch.equal(few[:, :2], all_of_them[:, :2])


def test_a_batch_of_functions_that_come_again_is_the_same_for_any_number_of_processes():
    stream = make_stream(n_distinct_functions=3)
    parts = [read(stream, 2, rank=rank, world_size=2) for rank in range(2)]
    assert_same(
        read(stream, 2),
        [{name: torch.cat([part[i][name] for part in parts]) for name in parts[0][i]} for i in range(2)],
    )


@pytest.mark.parametrize("name", [name for name, kind in TASKS.items() if issubclass(kind, FunctionClass)])
def test_every_class_has_functions_that_come_again(name):
    task = make_task(name, n_dims=4, n_points=6)
    stream = make_stream(task=task, schedules={}, n_distinct_functions=2)
    plain, batch = replace(stream, n_distinct_functions=None).batch(0), stream.batch(0)
    assert {key: value.shape for key, value in batch.items()} == {key: value.shape for key, value in plain.items()}


def test_functions_that_come_again_are_refused_where_there_are_none():
    with pytest.raises(ValueError, match="`n_distinct_functions` must be an integer >= 1, got 0"):
        make_stream(n_distinct_functions=0)
    with pytest.raises(ValueError, match="`n_distinct_functions` is of a class of functions, and echo is none"):
        make_echo(n_distinct_functions=2)
