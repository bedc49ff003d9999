"""The bases of all tasks and of all classes of functions.

Example: `LinearRegression(n_dims=5, n_points=11).sample(64, torch.Generator().manual_seed(0))` gives 64 prompts.
"""

from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass, fields
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch

from .baselines.classical import GENERIC_BASELINES, predict_least_squares
from .baselines.prefixes import Predictor
from .metrics import normalised_squared_error
from .published import published_curves


Prompts = dict[str, torch.Tensor]


class NamedPredictor(NamedTuple):
    """A predictor and what it is called."""

    name: str
    predictor: Predictor


@dataclass(frozen=True)
class Task:
    """
    What a model learns: how prompts are drawn, how answers are scored, and what to compare a model with.

    A subclass is a frozen dataclass in a file of its own, and an entry of [`tasks.TASKS`]. Its fields are the settings
    that a recipe can give.

    Class attributes:
        name (`str`):
            What recipes and records call it.
        description (`str`):
            What is learned, as a plural without an article: "linear functions".
        objective (`str`):
            How a model is trained on its prompts, an entry of `scripts.training.objectives.OBJECTIVES`.
        score_name (`str`):
            What [`~Task.score`] measures; less is better.
        place_name (`str`):
            What the places of a score count: "in-context examples".
        headline_places (`Mapping[str, list[int]]`, defaults to none):
            The errors that papers report: by heading, the places that each is a mean over.
        has_queries (`bool`, defaults to `False`):
            Whether a prompt of it is a table of P rows and D columns, of which C are examples with `ys` `(B, C)` and
            the others queries with `labels` `(B, P - C)`; else a point is a query and then an example.
        has_steps (`bool`, defaults to `False`):
            Whether prompts show the steps of their answers, which [`~Task.roll_out`] asks for instead.
        turns (`str`, *optional*):
            What may be done to the axes of x, for all points of a prompt alike, and the functions are of the class
            still: an entry of [`tasks.turns.TURNS`], `None` where nothing is known to.
        components (`Mapping[str, Task]`, defaults to none):
            The tasks that a mixture is made of, by name; those of an instance.
    """

    name: ClassVar[str]
    description: ClassVar[str]
    objective: ClassVar[str]
    score_name: ClassVar[str]
    place_name: ClassVar[str]
    headline_places: ClassVar[Mapping[str, list[int]]] = {}
    has_queries: ClassVar[bool] = False
    has_steps: ClassVar[bool] = False
    turns: ClassVar[str | None] = None
    components: ClassVar[Mapping[str, "Task"]] = {}

    @classmethod
    def known_fields(cls, settings: Mapping[str, Any]) -> dict[str, Field]:
        """All settings that a recipe can give, by name, if it gives `settings`; called by [`tasks.task_fields`]."""
        return {field.name: field for field in fields(cls)}

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> "Task":
        """The task with these settings, all of them known fields; called by [`tasks.make_task`]."""
        return cls(**settings)

    @property
    def sizes(self) -> dict[str, int]:
        """The largest sizes of a prompt, which schedules can grow to, by the names that `sample` takes."""
        raise NotImplementedError(f"{type(self).__name__} must define `sizes`.")

    @property
    def model_fields(self) -> dict[str, int]:
        """Fields of the model's configuration that the task decides, such as `n_dims` and `n_positions`."""
        raise NotImplementedError(f"{type(self).__name__} must define `model_fields`.")

    @property
    def normaliser(self) -> float:
        """The number that a score is divided by; 1 where there is none."""
        return 1.0

    @property
    def n_hints(self) -> int:
        """Numbers of a hint, one hint per point, for training alone; 0 where a task has no hints."""
        return 0

    @property
    def first_place(self) -> int:
        """What the first place of a score counts: 0 examples, say."""
        return 0

    @property
    def place_step(self) -> int:
        """How much more the next place of a score counts."""
        return 1

    @property
    def baselines(self) -> Mapping[str, Predictor]:
        """Classical predictors to compare with, by name."""
        return {}

    @property
    def limit(self) -> NamedPredictor | None:
        """The predictor with the lowest possible expected error on prompts of full sizes; `None` if unknown."""
        return None

    @property
    def shifts(self) -> Mapping[str, Any]:
        """Other distributions of prompts to test on, by name, each a [`~tasks.shifts.Shift`]."""
        return {}

    @property
    def published(self) -> dict[str, dict[str, list[float | None]]]:
        """Published curves for prompts of this size, by name."""
        return {}

    @property
    def published_shifts(self) -> dict[str, dict[str, list[float | None]]]:
        """Published curves under the shifts, by shift."""
        return {}

    def check_sizes(self, **sizes: int):
        """Raise `ValueError` unless prompts of these sizes can be drawn."""
        raise NotImplementedError(f"{type(self).__name__} must define `check_sizes`.")

    def n_tokens(self, **sizes: int) -> int:
        """Tokens that a model reads per prompt of these [`~Task.sizes`], by default `model_fields["n_positions"]`."""
        return self.model_fields["n_positions"]

    def draw_shape(self, generator: torch.Generator, **sizes: int) -> tuple[int, int]:
        """Rows P and columns D of the tables of a batch, which `sample` draws first, of a task that `has_queries`."""
        raise NotImplementedError(f"{type(self).__name__} must define `draw_shape`.")

    def needed_loops(self, prompts: Prompts) -> torch.Tensor | None:
        """
        The loops `(B,)` after which a model can answer each prompt if it takes a step of the solution in each.

        `None` where a task does not know.
        """
        return None

    def n_positions(self, **sizes: int) -> int:
        """Positions that the tokens of a prompt of these sizes count, by default one for each token."""
        return self.n_tokens(**sizes)

    def sample(self, n_prompts: int, generator: torch.Generator, with_hints: bool = False, **sizes: int) -> Prompts:
        """
        Draw prompts on the device of `generator`; its state decides every number.

        Args:
            n_prompts (`int`):
                Prompts, >= 1.
            generator (`torch.Generator`):
                Source of all randomness.
            with_hints (`bool`, defaults to `False`):
                Also return `hints`; the other columns do not change.
            sizes (`int`, default to [`~Task.sizes`]):
                Sizes of a prompt.

        Returns:
            The arguments of the model's `forward`, one row per prompt.

        Raises:
            `ValueError`: a number is out of its range, or the task has no hints.
        """
        raise NotImplementedError(f"{type(self).__name__} must define `sample`.")

    def sample_parts(self, n_prompts: int, generator: torch.Generator) -> list[Prompts]:
        """Draw prompts of all shapes that are scored, as `sample` does, in parts of one shape each: here one part."""
        return [self.sample(n_prompts, generator)]

    def roll_out(
        self, answer: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], xs: torch.Tensor, ys: torch.Tensor
    ) -> torch.Tensor:
        """
        Answer every question by steps that are answers too, of a task that `has_steps`.

        Args:
            answer (`Callable`):
                From points `(B, n, D)` and the ys of all but the last, `(B, n - 1, K)`, to the answer at the last,
                `(B, K)`.
            xs (`torch.Tensor` of shape `(B, P, D)`), ys (`torch.Tensor` of shape `(B, P, K)`):
                Prompts. What is shown before a question stays as it is.

        Returns:
            `torch.Tensor` of shape `(B, P, K)`: answers as [`~Task.score`] takes them.
        """
        raise NotImplementedError(f"{type(self).__name__} must define `roll_out`.")

    def score(self, answers: np.ndarray, prompts: Prompts) -> np.ndarray:
        """
        Score the answers of a model.

        Args:
            answers (`np.ndarray` of shape `(n_prompts, ...)`):
                What the task's objective reads from the model: values, classes or tokens.
            prompts (`dict`):
                The prompts, as `sample` returns them.

        Returns:
            `np.ndarray` of shape `(n_prompts, n_places)`, float64, NaN where a prompt has no such place.
        """
        raise NotImplementedError(f"{type(self).__name__} must define `score`.")

    def checked_sizes(self, n_prompts: int, with_hints: bool, **given: int | None) -> dict[str, int]:
        """Return [`~Task.sizes`] with those that are given; raises `ValueError` where [`~Task.sample`] does."""
        check_at_least_one(n_prompts=n_prompts)
        sizes = self.sizes | {name: size for name, size in given.items() if size is not None}
        self.check_sizes(**sizes)
        if with_hints:
            self.check_hints()
        return sizes

    def check_hints(self):
        """Raise `ValueError` unless the task has hints."""
        if not self.n_hints:
            raise ValueError(f"the task {self.name} has no hints: leave out `hint_weight`.")


@dataclass(frozen=True)
class FunctionClass(Task):
    """
    A class of functions f; a prompt is points (x_i, f(x_i)) of one f drawn from it.

    A subclass defines `draw_functions` and `normaliser`. Inputs are standard normal unless it defines `draw_xs` too.

    Args:
        n_dims (`int`, defaults to 20):
            Dimension D of x, >= 1.
        n_points (`int`, defaults to 41):
            Points P of a prompt, >= 1.
    """

    objective = "regression"
    score_name = "normalised squared error"
    place_name = "in-context examples"

    n_dims: int = 20
    n_points: int = 41

    def __post_init__(self):
        check_at_least_one(n_dims=self.n_dims, n_points=self.n_points)

    @property
    def sizes(self) -> dict[str, int]:
        return {"n_points": self.n_points, "n_dims_active": self.n_dims}

    @property
    def n_outputs(self) -> int:
        """Numbers in a value of f: 1, or K where values are vectors; ys and labels are then `(B, P, K)`."""
        return 1

    @property
    def model_fields(self) -> dict[str, int]:
        return {"n_dims": self.n_dims, "n_positions": 2 * self.n_points, "n_outputs": self.n_outputs}

    @property
    def normaliser(self) -> float:
        """Mean squared value of f(x), summed over outputs, in units of y²: the squared error of predicting 0."""
        raise NotImplementedError(f"{type(self).__name__} must define `normaliser`.")

    @property
    def baselines(self) -> Mapping[str, Predictor]:
        return GENERIC_BASELINES

    @property
    def published(self) -> dict[str, dict[str, list[float | None]]]:
        return published_curves(self.name, self.n_dims)

    @property
    def solver(self) -> NamedPredictor:
        """What the demo draws beside the model."""
        return NamedPredictor("least squares", predict_least_squares)

    def check_sizes(self, n_points: int | None = None, n_dims_active: int | None = None):
        if n_points is not None:
            check_at_least_one(n_points=n_points)
        if n_dims_active is not None:
            check_at_least_one(n_dims_active=n_dims_active)
            if n_dims_active > self.n_dims:
                raise ValueError(f"`n_dims_active` must be <= `n_dims` = {self.n_dims}, got {n_dims_active}.")

    def n_tokens(self, **sizes: int) -> int:
        return 2 * sizes["n_points"] - 1  # no token comes after the last y, so it is not read

    def draw_functions(
        self, n_prompts: int, n_dims_active: int, generator: torch.Generator
    ) -> Callable[[torch.Tensor], torch.Tensor]:
        """
        Draw a function per prompt; returns the map from xs `(B, P, D)` to their values `(B, P)`, or `(B, P, K)`.

        With hints the map has a method `hints` from xs to `(B, P, n_hints)`: what else the function tells about a
        point. Source: Abu-Mostafa, "Learning from hints in neural networks" (Journal of Complexity, 1990).
        """
        raise NotImplementedError(f"{type(self).__name__} must define `draw_functions`.")

    def draw_xs(self, n_prompts: int, n_points: int, n_dims_active: int, generator: torch.Generator) -> torch.Tensor:
        """Draw inputs `(B, P, D)`, here standard normal ones; zero beyond the active dimensions."""
        xs = draw_normal((n_prompts, n_points, self.n_dims), generator)
        xs[..., n_dims_active:] = 0
        return xs

    def observe(self, labels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Return the ys that a prompt shows for its noiseless values `labels`, in the same shape."""
        return labels

    def draw_points(
        self,
        function: Callable[[torch.Tensor], torch.Tensor],
        n_prompts: int,
        n_points: int,
        n_dims_active: int,
        generator: torch.Generator,
    ) -> Prompts:
        """
        Draw points of the drawn functions: the columns `xs`, `ys` and `labels` as [`~FunctionClass.sample`] says.

        A class defines it where inputs depend on the function, or ys on more than their labels.
        """
        xs = self.draw_xs(n_prompts, n_points, n_dims_active, generator)
        labels = function(xs)
        return {"xs": xs, "ys": self.observe(labels, generator), "labels": labels}

    def sample(
        self,
        n_prompts: int,
        generator: torch.Generator,
        with_hints: bool = False,
        n_points: int | None = None,
        n_dims_active: int | None = None,
        function_generator: torch.Generator | None = None,
    ) -> Prompts:
        """
        Draw prompts as [`Task.sample`] says, one function per prompt.

        Args:
            n_prompts (`int`), generator (`torch.Generator`), with_hints (`bool`, defaults to `False`):
                As there.
            n_points (`int`, *optional*, defaults to that of the task):
                Points of a prompt, >= 1.
            n_dims_active (`int`, *optional*, defaults to `n_dims`):
                Dimensions in use, in 1 ... `n_dims`; the others are zero in every x (curriculum of Garg et al., 2022).
            function_generator (`torch.Generator`, *optional*, defaults to `generator`):
                What the functions are drawn from: one of the same state draws the same functions at other points.

        Returns:
            float32: `xs` of shape `(B, P, D)`, `ys` and `labels`, the noiseless values, of shape `(B, P)`, or
            `(B, P, K)` where values are vectors. With hints also `hints` of shape `(B, P, n_hints)`.
        """
        sizes = self.checked_sizes(n_prompts, with_hints, n_points=n_points, n_dims_active=n_dims_active)
        n_points, n_dims_active = sizes["n_points"], sizes["n_dims_active"]
        function = self.draw_functions(n_prompts, n_dims_active, function_generator or generator)
        prompts = self.draw_points(function, n_prompts, n_points, n_dims_active, generator)
        return prompts | {"hints": function.hints(prompts["xs"])} if with_hints else prompts

    def score(self, answers: np.ndarray, prompts: Prompts) -> np.ndarray:
        """Squared errors of predictions `(B, P)`, or `(B, P, K)` summed over K, divided by the `normaliser`."""
        errors = normalised_squared_error(answers, prompts["labels"].numpy(), self.normaliser)
        return errors.sum(axis=tuple(range(2, errors.ndim)))


def check_at_least_one(**counts: int):
    """Raise `ValueError` naming the first of `counts` that is not an integer >= 1."""
    for name, value in counts.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"`{name}` must be an integer >= 1, got {value!r}.")


def draw_uniform(shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    """Float32 numbers in [0, 1), on the device of the generator."""
    return torch.rand(shape, generator=generator, device=generator.device)


def draw_normal(shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    """Standard normal float32 numbers on the generator's device."""
    return torch.randn(shape, generator=generator, device=generator.device)
