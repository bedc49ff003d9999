"""Endless streams of training batches whose element i depends on the settings, the seed and i alone."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import datasets
import numpy as np
import torch

from .common import FunctionClass, Prompts, Task, check_at_least_one
from .curriculum import Schedule


@dataclass(frozen=True)
class RowLoops:
    """
    How many loops each row of a batch runs: a multiple of those that its task needs, and some more.

    Args:
        rate (`float`, defaults to 1.0):
            Loops for each that is needed, > 0.
        surplus (`int`, defaults to 0):
            Most loops after those, >= 0. How many is drawn for every row, 0 ... `surplus` equally likely.

    Source: Fan et al., "Looped Transformers for Length Generalization" (ICLR 2025), without a surplus.
    """

    rate: float = 1.0
    surplus: int = 0

    def __post_init__(self):
        if not 0 < self.rate < float("inf"):
            raise ValueError(f"`loop_rate` must be a finite number > 0, got {self.rate}.")
        if self.surplus < 0:
            raise ValueError(f"`loop_surplus` must be >= 0, got {self.surplus}.")

    def needed(self, steps: torch.Tensor) -> torch.Tensor:
        """The loops `(B,)` for a solution of `steps` `(B,)`, rounded up."""
        return (self.rate * steps).ceil().long()

    def draw(self, steps: torch.Tensor, generator: torch.Generator) -> dict[str, torch.Tensor]:
        """The columns `needed_loops` and `n_loops`, int64 of shape `(B,)`, of rows that need these `steps` `(B,)`."""
        needed = self.needed(steps)
        surplus = torch.randint(self.surplus + 1, needed.shape, generator=generator, device=generator.device)
        return {"needed_loops": needed, "n_loops": needed + surplus}


@dataclass(frozen=True)
class Stream:
    """
    Batches of prompts whose sizes follow schedules; batch i is that of training step i.

    Args:
        task ([`Task`]):
            The task that prompts are drawn from.
        batch_size (`int`):
            Prompts per batch over all processes, >= 1.
        schedules (`Mapping[str, Schedule]`):
            Schedules of sizes, by the names of [`Task.sizes`]; a size without one stays as the task has it.
        seed (`int`):
            >= 0. Different seeds give unrelated prompts.
        split (`str`, defaults to `"train"`):
            Streams of different splits share no prompt, whatever their seeds.
        n_distinct_prompts (`int`, *optional*):
            Prompts that are repeated without end, a multiple of `batch_size`: with n batches of them, batch i is drawn
            as batch i modulo n, with the sizes of step i. Default: no prompt is repeated.
        n_distinct_functions (`int`, *optional*):
            Functions of a class, >= 1; each prompt is of one of them, all equally likely, at points of its own.
            Function k depends on `seed` and k alone, so more functions are the same ones and others, in every split.
            Default: each prompt is of a function of its own.
        with_hints (`bool`, defaults to `False`):
            Whether batches hold the hints of the task too.
        as_sets (`bool`, defaults to `False`):
            Whether a prompt of P points is C examples and P - C queries: `ys` are then those of the examples and
            `labels` those of the queries. C is drawn for every batch from 0 ... P - 1, all equally likely.
        row_loops ([`RowLoops`], *optional*):
            Adds its columns to the batches. Default: rows have no loops of their own.
    """

    task: Task
    batch_size: int
    schedules: Mapping[str, Schedule]
    seed: int
    split: str = "train"
    n_distinct_prompts: int | None = None
    n_distinct_functions: int | None = None
    with_hints: bool = False
    as_sets: bool = False
    row_loops: RowLoops | None = None

    def __post_init__(self):
        check_at_least_one(batch_size=self.batch_size)
        if self.n_distinct_prompts is not None:
            check_at_least_one(n_distinct_prompts=self.n_distinct_prompts)
            if self.n_distinct_prompts % self.batch_size:
                raise ValueError(
                    f"`n_distinct_prompts` must be a multiple of `batch_size` = {self.batch_size}, got "
                    f"{self.n_distinct_prompts}."
                )
        if self.n_distinct_functions is not None:
            check_at_least_one(n_distinct_functions=self.n_distinct_functions)
            if not isinstance(self.task, FunctionClass):
                raise ValueError(
                    f"`n_distinct_functions` is of a class of functions, and {self.task.name} is none: leave it out."
                )
        if self.seed < 0:
            raise ValueError(f"`seed` must be >= 0, got {self.seed}.")
        if self.with_hints:
            self.task.check_hints()
        if self.as_sets and "n_points" not in self.task.sizes:
            raise ValueError(f"{self.task.name} has no points that could be a set: leave out `example_order`.")
        if self.as_sets and self.with_hints:
            raise ValueError("sets have no hints, which are of points in their order: leave out `hint_weight`.")
        for name in self.schedules:
            if name not in self.task.sizes:
                known = ", ".join(self.task.sizes)
                raise ValueError(f"`schedules` of {self.task.name} must be of {known}, got `{name}`.")
        ends = {name: schedule.end for name, schedule in self.schedules.items()}
        for sizes in (self.sizes_at(0), self.task.sizes | ends):
            self.task.check_sizes(**sizes)

    def sizes_at(self, index: int) -> dict[str, int]:
        """Sizes of the prompts of batch `index` (>= 0)."""
        return self.task.sizes | {name: schedule.at(index) for name, schedule in self.schedules.items()}

    def batch(self, index: int) -> dict[str, torch.Tensor]:
        """Batch `index` (>= 0), the rows of all processes together, as [`Task.sample`] returns it."""
        prompts = self._draw(self.generator(index), with_hints=self.with_hints, **self.sizes_at(index))
        if self.row_loops is not None:
            generator = make_generator(f"loops of {self.split}", self.seed, index)
            prompts |= self.row_loops.draw(self.task.needed_loops(prompts), generator)
        return self._split(prompts, index) if self.as_sets else prompts

    def generator(self, index: int) -> torch.Generator:
        """What batch `index` (>= 0) is drawn from."""
        n_batches = self.n_distinct_prompts and self.n_distinct_prompts // self.batch_size
        return make_generator(self.split, self.seed, index % n_batches if n_batches else index)

    def function_generator(self, number: int) -> torch.Generator:
        """What function `number`, in 0 ... `n_distinct_functions` - 1, is drawn from."""
        return make_generator("functions", self.seed, number)

    def _draw(self, generator: torch.Generator, **options: int | bool) -> Prompts:
        """Draw a batch: of functions of its own, or of those that come again."""
        if self.n_distinct_functions is None:
            return self.task.sample(self.batch_size, generator, **options)
        numbers = torch.randint(self.n_distinct_functions, (self.batch_size,), generator=generator).tolist()
        prompts = [
            self.task.sample(1, generator, function_generator=self.function_generator(number), **options)
            for number in numbers
        ]
        return {name: torch.cat([prompt[name] for prompt in prompts]) for name in prompts[0]}

    def _split(self, prompts: dict[str, torch.Tensor], index: int) -> dict[str, torch.Tensor]:
        """Leave the ys of the examples and the labels of the queries; how many is drawn apart from the prompts."""
        generator = make_generator(f"examples of {self.split}", self.seed, index)
        n_examples = int(torch.randint(prompts["xs"].shape[1], (), generator=generator))
        return prompts | {"ys": prompts["ys"][:, :n_examples], "labels": prompts["labels"][:, n_examples:]}

    def iterable(self, start: int = 0, rank: int = 0, world_size: int = 1) -> datasets.IterableDataset:
        """
        Return the batches from `start` on as an endless dataset, to be read with `DataLoader(..., batch_size=None)`.

        Every process draws the whole batch and keeps its rows, which costs less than a thousandth of a training step
        and makes the batch the same for any number of processes.

        Args:
            start (`int`, defaults to 0):
                First batch; starting at a million costs no more than at zero.
            rank (`int`, defaults to 0), world_size (`int`, defaults to 1):
                This process, counted from 0, and the number of processes, which must divide `batch_size`.
        """
        if self.batch_size % world_size:
            raise ValueError(
                f"`batch_size` must be a multiple of the number of processes, got {self.batch_size} and {world_size}."
            )
        gen_kwargs = {"stream": self, "start": start, "rank": rank, "world_size": world_size}
        return datasets.IterableDataset.from_generator(_batches_of_process, gen_kwargs=gen_kwargs)


def _batches_of_process(stream: Stream, start: int, rank: int, world_size: int) -> Iterator[dict[str, torch.Tensor]]:
    rows = slice(rank * stream.batch_size // world_size, (rank + 1) * stream.batch_size // world_size)
    index = start
    while True:
        # pinned memory needs contiguous tensors, and hints may be expanded ones
        yield {name: values[rows].contiguous() for name, values in stream.batch(index).items()}
        index += 1


def make_generator(split: str, seed: int, index: int = 0) -> torch.Generator:
    """CPU generator for element `index` of a split, seeded by hashing all three (`numpy.random.SeedSequence`)."""
    entropy = [int.from_bytes(split.encode(), "little"), seed, index]
    return torch.Generator().manual_seed(int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0]))
