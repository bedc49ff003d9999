"""Guidance: the first point of a prompt names the class of functions that the others are of."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch

from .common import FunctionClass, Prompts, Task


@dataclass(frozen=True)
class Named(Task):
    """
    A class of functions whose prompts begin with its name: P points are the name and P - 1 points of the function.

    The name is a point whose x is √D in the dimension `number` and 0 in the others, so it is as long as another x, and
    whose y and label are 0. No score counts it: place n of a score has seen the name and n examples. There are neither
    baselines nor a limit, as they would take the name for an example.

    Args:
        task ([`FunctionClass`]):
            The class.
        number (`int`):
            Number of its name, in 0 ... D - 1.

    Source: Lin et al., "In-Context Learning with Hypothesis-Class Guidance" (2025), where a prompt begins with a
    description of a finite class.
    """

    task: FunctionClass
    number: int

    def __post_init__(self):
        if not isinstance(self.task, FunctionClass):
            raise ValueError(f"`guidance` is of functions, and {self.task.name} is none: leave it out.")
        if self.task.n_dims <= self.number:
            raise ValueError(
                f"`n_dims` of {self.task.name} must be >= {self.number + 1}, as `guidance` names each component by a "
                f"dimension, got {self.task.n_dims}."
            )
        self.check_sizes(**self.sizes)

    @property
    def name(self) -> str:
        return self.task.name

    @property
    def description(self) -> str:
        return self.task.description

    @property
    def objective(self) -> str:
        return self.task.objective

    @property
    def score_name(self) -> str:
        return self.task.score_name

    @property
    def place_name(self) -> str:
        return self.task.place_name

    @property
    def sizes(self) -> dict[str, int]:
        return self.task.sizes

    @property
    def model_fields(self) -> dict[str, int]:
        return self.task.model_fields

    @property
    def normaliser(self) -> float:
        return self.task.normaliser

    def check_sizes(self, n_points: int | None = None, n_dims_active: int | None = None):
        self.task.check_sizes(n_points, n_dims_active)
        if n_points == 1:
            raise ValueError("`n_points` must be >= 2 with `guidance`, whose first point is a name, got 1.")

    def n_tokens(self, **sizes: int) -> int:
        return self.task.n_tokens(**sizes)

    def sample(self, n_prompts: int, generator: torch.Generator, with_hints: bool = False, **sizes: int) -> Prompts:
        sizes = self.checked_sizes(n_prompts, with_hints, **sizes)
        # columns may be one tensor, or parts of one
        prompts = {name: values.clone() for name, values in self.task.sample(n_prompts, generator, **sizes).items()}
        for values in prompts.values():
            values[:, 0] = 0
        prompts["xs"][:, 0, self.number] = self.task.n_dims**0.5
        return prompts

    def score(self, answers: np.ndarray, prompts: Prompts) -> np.ndarray:
        return self.task.score(answers, prompts)[:, 1:]


def named(components: Mapping[str, FunctionClass]) -> dict[str, Named]:
    """The components of a mixture, each with the number of its place as its name."""
    return {name: Named(task, number) for number, (name, task) in enumerate(components.items())}


def misnamed(components: Mapping[str, Task]) -> dict[str, Named]:
    """The components that are [`Named`], each with the name of the next of them."""
    tasks = {name: task for name, task in components.items() if isinstance(task, Named)}
    return {name: replace(task, number=(task.number + 1) % len(tasks)) for name, task in tasks.items()}
