"""What an evaluation measured: the record that scripts/evaluate.py writes and the other programs read.

The JSON file has the names and the structure of the classes here. Fields without a value are left out.
"""

import json
import math
import reprlib
from dataclasses import MISSING, asdict, dataclass, field, fields
from numbers import Real
from pathlib import Path
from typing import Any, TypeVar

from scripts.common.records import RecordError, read_json, write_atomically


Part = TypeVar("Part")
NEEDED_LOOPS = "needed loops"  # the rule of `stops` that knows how many loops a prompt needs
ALWAYS_WRITTEN = ("shifts", "published", "published_shifts")  # also where they are empty, as in older records


@dataclass(frozen=True)
class Interval:
    """A mean over prompts and the ends of its 90% bootstrap interval."""

    error: float
    low: float
    high: float

    def check(self, where: str):
        """Raise [`RecordError`] unless these are numbers."""
        for name, value in asdict(self).items():
            _check(_is_number(value), f"{where}.{name}", "be a finite number", value)


@dataclass(frozen=True)
class Curve:
    """
    Errors at the places 0, 1, ... of a score.

    Args:
        error (`list[float]`):
            Means over prompts; `None` where a published curve under a shift is hidden by another.
        low (`list[float]`, *optional*), high (`list[float]`, *optional*):
            The ends of their 90% intervals, both or none.
        digitisation_error (`float`, *optional*):
            Largest deviation of errors that were read from a published picture.
    """

    error: list[float | None]
    low: list[float] | None = None
    high: list[float] | None = None
    digitisation_error: float | None = None

    def check(self, where: str, most: int | None = None):
        """Raise [`RecordError`] unless this has numbers at 1 ... `most` places; without `most`, at some places."""
        _check((self.low is None) == (self.high is None), where, "have both `low` and `high` or none of them", self)
        _check(isinstance(self.error, list), f"{where}.error", "be a list", self.error)
        shown = self.error if most else [value for value in self.error if value is not None]
        _check(_are_numbers(shown), f"{where}.error", "be a list of finite numbers", self.error)
        rule = f"have 1 to {most or 'any number of'} values"
        _check(1 <= len(self.error) <= (most or math.inf), f"{where}.error", rule, self.error)
        for name in ("low", "high") if self.low is not None else ():
            ends, rule = getattr(self, name), f"be a list of {len(self.error)} finite numbers"
            _check(_are_numbers(ends) and len(ends) == len(self.error), f"{where}.{name}", rule, ends)
        width = self.digitisation_error
        _check(width is None or _is_number(width), f"{where}.digitisation_error", "be a finite number", width)


@dataclass(frozen=True)
class StoppedErrors:
    """
    Errors of prompts that run different numbers of loops.

    Args:
        errors ([`Curve`]):
            Errors at the places of a score.
        mean_loops (`list[float]`):
            Mean loops of the prompts that have each place.
    """

    errors: Curve
    mean_loops: list[float]

    def check(self, where: str, n_points: int):
        """Raise [`RecordError`] unless there are an error and loops at all of `n_points` places."""
        self.errors.check(f"{where}.errors", n_points)
        for name, values in (("errors", self.errors.error), ("mean_loops", self.mean_loops)):
            is_whole = _are_numbers(values) and len(values) == n_points
            _check(is_whole, f"{where}.{name}", f"have a finite number at each of {n_points} places", values)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """
    What was evaluated, and on what.

    Args:
        model (`str`):
            Name of the model's folder or repository.
        task (`str`), task_trained (`str`, *optional*):
            The task of the prompts, and that of the training.
        n_dims (`int`, *optional*), normaliser (`float`, *optional*):
            Dimension of x, and what squared errors are divided by; for classes of functions only.
        n_points (`int`), n_points_trained (`int`, *optional*):
            Places of the score, and the points of a prompt at the end of the training.
        n_prompts (`int`), n_loop_prompts (`int`, *optional*), n_shift_prompts (`int`, defaults to 0):
            Prompts of the errors by place, of the errors by loop, and of each shift.
        seed (`int`, *optional*):
            Seed of the prompts.
        n_loops (`int`), max_loops (`int`, *optional*):
            Loops of the model, and the last loop of the errors by loop.
        n_turns (`int`, *optional*):
            Turns of the xs of each prompt that every answer is a mean over, where there are any.
        limit (`str`, *optional*):
            Name of the best possible predictor.
        n_parameters (`int`), weights_sha256 (`str`, *optional*):
            Number of the model's parameters, and the digest of its weights.
        score (`str`), place (`str`), first_place (`int`, defaults to 0), place_step (`int`, defaults to 1):
            What an error is, what the places of a curve count, from what number, and in what steps.
    """

    model: str
    task: str
    task_trained: str | None = None
    n_dims: int | None = None
    n_points: int
    n_points_trained: int | None = None
    n_prompts: int
    n_loop_prompts: int | None = None
    n_shift_prompts: int = 0
    seed: int | None = None
    n_loops: int
    max_loops: int | None = None
    n_turns: int | None = None
    normaliser: float | None = None
    limit: str | None = None
    n_parameters: int
    weights_sha256: str | None = None
    score: str = "normalised squared error"
    place: str = "in-context examples"
    first_place: int = 0
    place_step: int = 1

    @property
    def place_numbers(self) -> list[int]:
        """The number that each place of a curve stands for."""
        return [self.first_place + number * self.place_step for number in range(self.n_points)]

    @property
    def places(self) -> str:
        """What the places of a curve count, in short: "examples"."""
        return self.place.removeprefix("in-context ")

    def check(self):
        """Raise [`RecordError`] unless every field is of its kind and in its range."""
        for entry in fields(self):
            name, value = entry.name, getattr(self, entry.name)
            if value is None and entry.default is None:
                continue
            if name == "normaliser":
                _check(_is_number(value) and value > 0, f"settings.{name}", "be a finite number > 0", value)
            elif entry.type in (int, int | None):
                least = 0 if name in ("seed", "n_shift_prompts", "first_place") else 1
                _check(_is_count(value, least), f"settings.{name}", f"be an integer >= {least}", value)
            else:
                _check(isinstance(value, str), f"settings.{name}", "be a text", value)


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """
    All that an evaluation measured. A curve has one error per place of the score, a list one error per loop.

    Args:
        settings ([`Settings`]):
            What was evaluated.
        error_by_example (`dict[str, Curve]`):
            Errors of `"model"` and of every baseline.
        limit ([`Curve`], *optional*):
            Errors of the best possible predictor.
        excess_over_limit ([`Curve`], *optional*), excess_of_baselines (`dict[str, Curve]`):
            Errors of the model and of every baseline minus those of the limit, paired prompt by prompt.
        mean_excess ([`Interval`], *optional*):
            The model's excess averaged over all places.
        error_by_loop (`dict[str, list[float]]`):
            The model's error after 1, 2, ... loops: at the `"last_point"`, and its means over all places, `"mean"`,
            and over the last fifth of them, `"last_fifth"`, which older records lack.
        error_by_loop_and_place (`list[list[float]]`), stops (`dict[str, StoppedErrors]`):
            Of a task that knows the loops that its prompts need: the model's errors at every place after each loop,
            and by the rule that ends the loops of a prompt.
        certainty (`dict[str, float]`):
            What the probabilities or quantiles of an in-context model are worth, by the name of the measure.
        coverage_by_example (`list[float]`, *optional*):
            Of a model of quantiles that answers functions: the share of answers in its 90% interval at every place.
        shifts (`dict[str, dict[str, Curve]]`):
            By shift, errors of `"model"`, `"limit"` and some baselines.
        published (`dict[str, Curve]`), published_shifts (`dict[str, Curve]`):
            Errors from the papers, by name, and by shift those of Garg et al.'s standard transformer.
        components (`dict[str, Metrics]`):
            By name, the metrics of every component of a mixture; their `versions` are empty.
        versions (`dict[str, str]`):
            Versions of Python and the libraries.

    Raises:
        [`RecordError`]: a field has the wrong type or does not fit the others; the message names it.
    """

    settings: Settings
    error_by_example: dict[str, Curve]
    limit: Curve | None = None
    excess_over_limit: Curve | None = None
    excess_of_baselines: dict[str, Curve] = field(default_factory=dict)
    mean_excess: Interval | None = None
    error_by_loop: dict[str, list[float]]
    error_by_loop_and_place: list[list[float]] = field(default_factory=list)
    stops: dict[str, StoppedErrors] = field(default_factory=dict)
    certainty: dict[str, float] = field(default_factory=dict)
    coverage_by_example: list[float] | None = None
    shifts: dict[str, dict[str, Curve]] = field(default_factory=dict)
    published: dict[str, Curve] = field(default_factory=dict)
    published_shifts: dict[str, Curve] = field(default_factory=dict)
    components: dict[str, "Metrics"] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)

    def __post_init__(self):
        self.settings.check()
        n_points, n_loops = self.settings.n_points, self.settings.n_loops
        groups = {name: getattr(self, name) for name in ("error_by_example", "excess_of_baselines", "published")}
        for where, curves in (groups | {f"shifts.{shift}": curves for shift, curves in self.shifts.items()}).items():
            for name, curve in curves.items():
                curve.check(f"{where}.{name}", n_points)
        for shift, curve in self.published_shifts.items():
            curve.check(f"published_shifts.{shift}")
        names = next(iter(self.shifts.values()), {"model"})
        for shift, curves in self.shifts.items():
            rule = "have the model and the predictors of the first shift"
            _check("model" in curves and curves.keys() == names.keys(), f"shifts.{shift}", rule, list(curves))
        model = self.error_by_example.get("model")
        is_whole = model is not None and model.low is not None and len(model.error) == n_points
        _check(is_whole, "error_by_example.model", "have an error, low and high at every place", model)
        if self.limit:
            _check(self.settings.limit is not None, "settings.limit", "name the `limit`", None)
            _check(self.excess_over_limit is not None, "excess_over_limit", "be there where `limit` is", None)
        for name in ("limit", "excess_over_limit"):
            if curve := getattr(self, name):
                curve.check(name, n_points)
        if self.mean_excess:
            self.mean_excess.check("mean_excess")
        for rule, stopped in self.stops.items():
            stopped.check(f"stops.{rule}", n_points)
        _check(not self.stops or NEEDED_LOOPS in self.stops, "stops", f"have {NEEDED_LOOPS!r}", list(self.stops))
        rows, rule = self.error_by_loop_and_place, f"be lists of {n_points} finite numbers where there are `stops`"
        are_whole = isinstance(rows, list) and all(_are_numbers(row) and len(row) == n_points for row in rows)
        _check(are_whole and bool(rows) == bool(self.stops), "error_by_loop_and_place", rule, rows)
        for name, value in self.certainty.items():
            _check(_is_number(value), f"certainty.{name}", "be a finite number", value)
        shares, rule = self.coverage_by_example, f"be a list of {n_points} finite numbers"
        are_whole = shares is None or (_are_numbers(shares) and len(shares) == n_points)
        _check(are_whole, "coverage_by_example", rule, shares)
        for name in dict.fromkeys(("last_point", "mean", *self.error_by_loop)):
            errors, rule = self.error_by_loop.get(name), f"be a list of at least {n_loops} finite numbers"
            _check(_are_numbers(errors) and len(errors) >= n_loops, f"error_by_loop.{name}", rule, errors)

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> "Metrics":
        """Build the record from the content of a metrics.json; raises [`RecordError`], which names the field."""
        given = {name: value for name, value in content.items() if value is not None}
        groups = ("error_by_example", "excess_of_baselines", "published", "published_shifts")
        shifts, components = (_mapping(given.get(name, {}), name) for name in ("shifts", "components"))
        parts = {}
        for name, part in components.items():
            try:
                parts[name] = cls.from_dict(_mapping(part, f"components.{name}"))
            except RecordError as error:
                raise RecordError(f"in the component {name}, {error}") from None
        stops = {
            rule: _stopped(part, f"stops.{rule}") for rule, part in _mapping(given.get("stops", {}), "stops").items()
        }
        return cls(
            settings=_part(Settings, given.get("settings"), "settings"),
            **{name: _curves(given.get(name, {}), name) for name in groups},
            **{name: _part(Curve, given[name], name) for name in ("limit", "excess_over_limit") if name in given},
            mean_excess=_part(Interval, given["mean_excess"], "mean_excess") if "mean_excess" in given else None,
            error_by_loop=_mapping(given.get("error_by_loop"), "error_by_loop"),
            error_by_loop_and_place=given.get("error_by_loop_and_place", []),
            stops=stops,
            certainty=_mapping(given.get("certainty", {}), "certainty"),
            coverage_by_example=given.get("coverage_by_example"),
            shifts={shift: _curves(curves, f"shifts.{shift}") for shift, curves in shifts.items()},
            components=parts,
            versions=_mapping(given.get("versions", {}), "versions"),
        )

    @classmethod
    def read(cls, path: Path) -> "Metrics":
        """
        Read a metrics.json, also one of an older version: fields that it lacks are empty or `None`.

        Raises:
            [`RecordError`]: there is no such file, or it is something else; the message names the field.
        """
        content = read_json(path)
        try:
            return cls.from_dict(content)
        except RecordError as error:
            text = " ".join(str(error).split())
            raise RecordError(f"{path} is not what scripts/evaluate.py writes: {text}. Evaluate again.") from None

    def write(self, path: Path):
        """Write a metrics.json, whole or not at all."""
        write_atomically(path, json.dumps(_written(asdict(self)), indent=1, allow_nan=False))


def _written(content: dict[str, Any]) -> dict[str, Any]:
    """Return the content of a record without the fields that have no value."""
    kept = {name: value for name, value in content.items() if value not in (None, {}, []) or name in ALWAYS_WRITTEN}
    return {name: _written(value) if isinstance(value, dict) else value for name, value in kept.items()}


def _curves(content: Any, where: str) -> dict[str, Curve]:
    return {name: _part(Curve, curve, f"{where}.{name}") for name, curve in _mapping(content, where).items()}


def _stopped(content: Any, where: str) -> StoppedErrors:
    part = _part(StoppedErrors, content, where)
    return StoppedErrors(_part(Curve, part.errors, f"{where}.errors"), part.mean_loops)


def _part(kind: type[Part], content: Any, where: str) -> Part:
    """Build a part of the record; unknown names, of other versions, are left out."""
    known = {entry.name: entry.default for entry in fields(kind)}
    given = {name: value for name, value in _mapping(content, where).items() if name in known}
    for name, default in known.items():
        _check(name in given or default is not MISSING, f"{where}.{name}", "be there", None)
    return kind(**given)


def _mapping(content: Any, where: str) -> dict[str, Any]:
    _check(isinstance(content, dict), where, "be a mapping of names", content)
    return content


def _is_number(value: Any) -> bool:
    try:
        return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # an integer beyond all floats
        return False


def _are_numbers(values: Any) -> bool:
    return isinstance(values, list) and all(map(_is_number, values))


def _is_count(value: Any, least: int) -> bool:
    return type(value) is int and least <= value and _is_number(value)


def _check(holds: bool, where: str, rule: str, value: Any):
    if not holds:
        raise RecordError(f"`{where}` must {rule}, got {reprlib.repr(value)}")
