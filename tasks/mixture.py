"""Mixtures: every prompt comes from one of several tasks."""

import math
from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields, replace
from difflib import get_close_matches
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch.nn.functional import pad

from .common import Prompts, Task, check_at_least_one
from .guidance import named
from .registry import TASKS, make_task, task_fields


@dataclass(frozen=True)
class Mixture(Task):
    """
    Several tasks at once: each prompt comes from one of them, with a probability proportional to its weight.

    A model is measured on each component by itself, so a mixture has no baselines and no limit of its own. Components
    may have different `n_dims`: prompts of fewer than the widest have zeros in the others, as in a curriculum.

    With `fewest_dims` every other batch of a component, by chance, has fewer active dimensions than are asked for: a
    model of the mixture then takes functions of any number of them. A component that takes no functions of so few, as
    sparse ones of fewer dimensions than weights, has the fewest that it takes. A score is of full sizes.

    Args:
        components (`Mapping[str, Task]`):
            The tasks, by name: no mixtures, and alike in objective, sizes and columns, but for `n_dims`.
        weights (`Mapping[str, float]`):
            The weight of each, finite and > 0.
        fewest_dims (`int`, *optional*):
            Fewest active dimensions, >= 1, where fewer are drawn, all equally likely. Default: none are.

    Example: `make_task("mixture", n_dims=5, components={"linear_regression": 2, "decision_tree": {"weight": 1,
    "depth": 2}})` draws on average two linear functions per tree of depth 2, all in 5 dimensions.
    """

    name = "mixture"
    description = "mixtures of tasks"
    components: Mapping[str, Task] = field()
    weights: Mapping[str, float] = field()
    fewest_dims: int | None = None

    def __post_init__(self):
        if not self.components:
            raise ValueError("`components` of a mixture must hold at least one task, got none.")
        if self.weights.keys() != self.components.keys():
            raise ValueError(
                f"`weights` must be of the components {', '.join(self.components)}, got {', '.join(self.weights)}."
            )
        for name, task in self.components.items():
            weight = self.weights[name]
            if not isinstance(weight, Real) or isinstance(weight, bool) or not (0 < weight < math.inf):
                raise ValueError(f"`weight` of {name} must be a finite number > 0, got {weight!r}.")
            if task.components:
                raise ValueError(f"`components` must not be mixtures themselves, got {name}.")
        self._check_alike()
        if self.fewest_dims is not None:
            self._check_fewest_dims()

    def _check_fewest_dims(self):
        """Raise `ValueError` unless the components are functions, and one has as many dimensions."""
        check_at_least_one(fewest_dims=self.fewest_dims)
        width = _width(self._widest)
        if not width:
            raise ValueError(
                f"`fewest_dims` is of functions, and {next(iter(self.components))} is none: leave it out."
            )
        if self.fewest_dims > width:
            raise ValueError(
                f"`fewest_dims` must be <= the most dimensions of a component = {width}, got {self.fewest_dims}."
            )

    def _check_alike(self):
        """Raise `ValueError` unless the components agree in everything that a batch and its score depend on."""
        first, *others = self.components
        width = _width(self._widest)
        expected = _traits(self.components[first], width)
        for other in others:
            for trait, value in _traits(self.components[other], width).items():
                if value != expected[trait]:
                    raise ValueError(
                        f"the components of a mixture must have the same {trait}, got {expected[trait]!r} of {first} "
                        f"and {value!r} of {other}."
                    )

    @classmethod
    def known_fields(cls, settings: Mapping[str, Any]) -> dict[str, Field]:
        """The fields of [`MixtureSettings`], and the settings that all components take."""
        first, *others = (task_fields(name, own) for name, (_, own) in read_components(settings).items())
        shared = {name: known for name, known in first.items() if all(name in other for other in others)}
        return {known.name: known for known in fields(MixtureSettings)} | shared

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> "Mixture":
        """The mixture of these [`MixtureSettings`]; all other settings hold for every component."""
        names = [known.name for known in fields(MixtureSettings)]
        own = MixtureSettings(**{name: value for name, value in settings.items() if name in names})
        shared = {name: value for name, value in settings.items() if name not in names}
        entries = read_components(settings)
        components = {name: make_task(name, **(shared | each)) for name, (_, each) in entries.items()}
        weights = {name: weight for name, (weight, _) in entries.items()}
        return cls(named(components) if own.guidance else components, weights, own.fewest_dims)

    @property
    def _first(self) -> Task:
        """The first component, which has what all of them share."""
        return next(iter(self.components.values()))

    @property
    def _widest(self) -> Task:
        """The first of the components with the most dimensions."""
        return max(self.components.values(), key=_width)

    @property
    def _relative_weights(self) -> list[float]:
        """The weights in units of the largest, so that no sum of them overflows."""
        return [weight / max(self.weights.values()) for weight in self.weights.values()]

    @property
    def objective(self) -> str:
        return self._first.objective

    @property
    def score_name(self) -> str:
        return self._first.score_name

    @property
    def place_name(self) -> str:
        return self._first.place_name

    @property
    def sizes(self) -> dict[str, int]:
        return self._widest.sizes

    @property
    def model_fields(self) -> dict[str, int]:
        return self._widest.model_fields

    @property
    def normaliser(self) -> float:
        """The weighted mean of the components' normalisers, so that predicting 0 has an expected error of 1."""
        normalisers = [task.normaliser for task in self.components.values()]
        return float(np.average(normalisers, weights=self._relative_weights))

    @property
    def n_hints(self) -> int:
        """The number of the components where it is the same for all, else 0."""
        counts = {task.n_hints for task in self.components.values()}
        return counts.pop() if len(counts) == 1 else 0

    def n_tokens(self, **sizes: int) -> int:
        return self._first.n_tokens(**sizes)

    def n_positions(self, **sizes: int) -> int:
        return self._first.n_positions(**sizes)

    def check_sizes(self, **sizes: int):
        self._widest.check_sizes(**sizes)
        for task in self.components.values():
            task.check_sizes(**_sizes_of(task, sizes))

    def sample(self, n_prompts: int, generator: torch.Generator, with_hints: bool = False, **sizes: int) -> Prompts:
        sizes = self.checked_sizes(n_prompts, with_hints, **sizes)
        weights = torch.tensor(self._relative_weights, dtype=torch.float64, device=generator.device)
        component_of = torch.multinomial(weights, n_prompts, replacement=True, generator=generator)
        counts = component_of.bincount(minlength=len(weights)).tolist()
        width = _width(self._widest)
        parts = [
            _widen(task.sample(count, generator, with_hints, **self._drawn_sizes(task, sizes, generator)), width)
            for task, count in zip(self.components.values(), counts, strict=True)
            if count
        ]
        # the parts lie one after the other; row i of the result is the next row of its component
        places = component_of.argsort(stable=True).argsort()
        return {name: torch.cat([part[name] for part in parts])[places] for name in parts[0]}

    def sample_parts(self, n_prompts: int, generator: torch.Generator) -> list[Prompts]:
        return [replace(self, fewest_dims=None).sample(n_prompts, generator)]

    def _drawn_sizes(self, task: Task, sizes: dict[str, int], generator: torch.Generator) -> dict[str, int]:
        """The sizes of a component's prompts, in every other batch with fewer dimensions where these are drawn."""
        sizes = _sizes_of(task, sizes)
        most = sizes.get("n_dims_active", 0)
        if self.fewest_dims is None:
            return sizes
        fewest = next((n for n in range(self.fewest_dims, most) if _takes(task, n)), most)
        if fewest == most:
            return sizes
        options = {"generator": generator, "device": generator.device}
        is_fewer, n_dims = torch.randint(2, (), **options), torch.randint(fewest, most, (), **options)
        return sizes | {"n_dims_active": int(n_dims) if is_fewer else most}

    def score(self, answers: np.ndarray, prompts: Prompts) -> np.ndarray:
        """
        Score as the components do, but with the mean normaliser: it is all that their scores may differ in.

        A batch does not say which component a prompt comes from: such a column would reach the model's `forward`.
        """
        return self._first.score(answers, prompts) * (self._first.normaliser / self.normaliser)


@dataclass(frozen=True)
class MixtureSettings:
    """
    What a recipe says of a mixture itself.

    Args:
        components (`Mapping[str, Any]`):
            By the name of a task its weight, or a mapping with `weight` and settings of this component alone.
        fewest_dims (`int`, *optional*):
            As [`Mixture`] takes it.
        guidance (`bool`, defaults to `False`):
            Whether every component is a [`~tasks.guidance.Named`], whose prompts begin with its name.
    """

    components: Mapping[str, Any] = field()
    fewest_dims: int | None = None
    guidance: bool = False

    def __post_init__(self):
        if not isinstance(self.guidance, bool):
            raise ValueError(f"`guidance` must be true or false, got {self.guidance!r}.")


def read_components(settings: Mapping[str, Any]) -> dict[str, tuple[Any, dict[str, Any]]]:
    """
    Return the weight of every component in the settings of a mixture, and the component's own settings, by name.

    Raises:
        `ValueError`: they are not as [`MixtureSettings`] says.
    """
    entries = settings.get("components")
    if not isinstance(entries, Mapping) or not entries:
        others = "".join(f" and `{name}`" for name in settings if name != "components")
        raise ValueError(
            "`components` of a mixture must map names of tasks to weights, such as {linear_regression: 2, "
            f"decision_tree: {{weight: 1, depth: 2}}}}, got {entries!r}{others}."
        )
    components = {}
    # by name: the order decides what is drawn, and a recipe that is written again may have another
    for name, entry in sorted(entries.items(), key=lambda item: str(item[0])):
        own = dict(entry) if isinstance(entry, Mapping) else {"weight": entry}
        if name not in TASKS:
            close = get_close_matches(str(name), TASKS, 1)
            hint = f", did you mean `{close[0]}`?" if close else "."
            raise ValueError(f"`components` of a mixture must be tasks, got `{name}`{hint}")
        if issubclass(TASKS[name], Mixture):
            raise ValueError(f"`components` must not be mixtures themselves, got {name}.")
        if "weight" not in own:
            raise ValueError(f"`components` of a mixture must give {name} a `weight`, got {entry!r}.")
        components[name] = own.pop("weight"), own
    return components


def _width(task: Task) -> int:
    """The dimensions of a class of functions, 0 of another task."""
    return task.sizes.get("n_dims_active", 0)


def _takes(task: Task, n_dims: int) -> bool:
    """Whether a class has functions of so many active dimensions."""
    try:
        task.check_sizes(n_dims_active=n_dims)
    except ValueError:
        return False
    return True


def _sizes_of(task: Task, sizes: dict[str, int]) -> dict[str, int]:
    """The sizes of a mixture's prompts as a component draws them: no more active dimensions than it has."""
    return {name: min(size, _width(task)) if name == "n_dims_active" else size for name, size in sizes.items()}


def _widen(prompts: Prompts, width: int) -> Prompts:
    """Add zeros to xs `(B, P, D)` up to so many dimensions; 0 adds none."""
    return prompts | {"xs": pad(prompts["xs"], (0, width - prompts["xs"].shape[2]))} if width else prompts


def _traits(task: Task, width: int) -> dict[str, Any]:
    """Return everything that a batch, its loss and its score depend on, by its name in messages, of xs so wide."""
    prompts = task.sample(1, torch.Generator().manual_seed(0))
    names = ("objective", "score_name", "place_name", "sizes", "model_fields")
    traits = {f"`{name}`": getattr(task, name) for name in names}
    if _width(task):
        prompts = _widen(prompts, width)
        traits["`sizes`"] = task.sizes | {"n_dims_active": width}
        traits["`model_fields`"] = task.model_fields | {"n_dims": width}
    return traits | {"columns": {name: (str(each.dtype), tuple(each.shape[1:])) for name, each in prompts.items()}}
