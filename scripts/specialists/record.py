"""What compare_specialists.py found: the record beside a model, and its table."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from scripts.common.records import SPECIALISTS_FILE, RecordError, read_json, write_atomically
from scripts.evaluation.metrics_record import Interval
from scripts.release.markdown import Markdown, number, table_header, table_row


HEADS = ("examples", "target", "limit", "best solver", "best published", "best specialist", "this model", "best")


@dataclass(frozen=True, kw_only=True)
class Row:
    """
    A figure of several contenders on the same prompts.

    Args:
        figure (`str`), examples (`str`):
            What is compared, after how many examples.
        is_shift (`bool`, defaults to `False`), more_is_better (`bool`, defaults to `False`):
            Whether the prompts are unlike those of the specialist's training, and whether it is no error.
        target (`float`, *optional*):
            What a model of many classes should reach.
        limit (`float`):
            The figure of the best possible predictor.
        solvers (`dict[str, float]`), published (`dict[str, float]`), specialists (`dict[str, float]`):
            Those of classical solvers, of the papers' models on their own draws, and of models of one class each.
        model (`float`):
            That of the model of many classes.
        difference ([`~scripts.evaluation.metrics_record.Interval`]):
            The model's figure less that of the best specialist, prompt by prompt.
    """

    figure: str
    examples: str
    is_shift: bool = False
    more_is_better: bool = False
    target: float | None = None
    limit: float
    solvers: dict[str, float]
    published: dict[str, float] = field(default_factory=dict)
    specialists: dict[str, float]
    model: float
    difference: Interval

    def best_of(self, values: dict[str, float]) -> str:
        """The name of the best of some figures."""
        return (max if self.more_is_better else min)(values, key=values.__getitem__)

    @property
    def beats_the_specialist(self) -> bool:
        """Whether the model is better than the best specialist."""
        return self.best_of({"model": self.model, **self.specialists}) == "model"

    @property
    def is_near_the_limit(self) -> bool:
        """Whether the model's error is within half of the limit's, and 0.01."""
        return self.model <= 1.5 * self.limit + 0.01

    def cells(self) -> list[Any]:
        """The cells of the table, in the order of [`HEADS`]; the best contender's figure is bold."""
        groups = (
            self.solvers,
            {f"{name}, published": value for name, value in self.published.items()},
            {f"{name.replace('_', ' ')} specialist": value for name, value in self.specialists.items()},
            {"this model": self.model},
        )
        best = self.best_of({name: value for group in groups for name, value in group.items()})
        shown = []
        for group in groups:
            name = self.best_of(group) if group else None
            text = number(group[name]) if group else "-"
            text = f"**{text}**" if name == best else text
            shown.append(Markdown(f"{text}, {name}") if len(group) > 1 else Markdown(text))
        target = "-" if self.target is None else f"{self.target:g}"
        return [self.examples, target, number(self.limit), *shown, best]


@dataclass(frozen=True)
class Comparison:
    """
    The record: settings with the `weights_sha256` of the model, and the rows.

    Args:
        settings (`dict`):
            What was compared: `weights_sha256` of the model, those of the `specialists` by their task, `n_prompts`,
            `n_draws` of tables and `seed`.
        rows (`list[Row]`):
            The figures.
    """

    settings: dict[str, Any]
    rows: Sequence[Row]

    @classmethod
    def read(cls, path: Path) -> "Comparison":
        """Read a record; raises [`RecordError`] where it is something else."""
        content = read_json(path)
        try:
            rows = [Row(**(row | {"difference": Interval(**row["difference"])})) for row in content["rows"]]
            return cls({"weights_sha256": content["settings"]["weights_sha256"], **content["settings"]}, rows)
        except (TypeError, LookupError, AttributeError) as error:
            raise RecordError(
                f"{path} is not what scripts/compare_specialists.py writes ({error!r}): run it again."
            ) from None

    def write(self, folder: Path) -> Path:
        """Write the record into a folder; returns its path."""
        path = folder / SPECIALISTS_FILE
        write_atomically(path, json.dumps(asdict(self), indent=1, allow_nan=False))
        return path

    @property
    def table(self) -> Markdown:
        """The rows as a table in Markdown, which says who is best in each."""
        lines = [table_header(HEADS, "error"), *(table_row(row.cells(), row.figure) for row in self.rows)]
        return Markdown("\n".join(lines))

    @property
    def summary(self) -> str:
        """How often the model is ahead where prompts are unlike those of the specialist's training."""
        shifts = [row for row in self.rows if row.is_shift]
        better = sum(row.beats_the_specialist for row in shifts)
        near = sum(row.is_near_the_limit for row in shifts)
        return (
            f"On {len(shifts)} kinds of shifted prompts it is better than the specialist on {better}, and within 1.5 "
            f"times the limit's error + 0.01 on {near}."
        )
