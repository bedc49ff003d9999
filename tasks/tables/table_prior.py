"""Made-up tables such as people have: a model that learns them answers real ones."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from ..common import Prompts, Task, check_at_least_one, draw_normal, draw_uniform
from .columns import lose_values
from .draws import draw_kinds, standardise
from .presentation import present
from .targets import draw_tables


N_SIGNALS = 10  # of a table; a class has one of its own
LEAST_EXAMPLES = 5
N_PLACES = 7  # of a score: an eighth of the rows are examples, two eighths, ...
N_WIDTHS = 8  # numbers of columns that are scored
CLASS_WEIGHTS = (20, 5, 3, 2, 2, 1, 1, 1, 1)  # of 2, 3, ... classes


@dataclass(frozen=True)
class TablePrior(Task):
    """
    Random tables of numbers, levels and categories with a target; a prompt is a table of examples and queries.

    Columns, rows and laws are those of [`draw_tables`]; the target is noisy. Every table of a batch has as many
    columns and examples as the others, and these numbers are drawn for the batch: 1 ... `n_columns` columns, few more
    often than many, and from 5 examples to all rows but an eighth. Columns and the target of a regression are
    standardised by the examples alone, as whoever asks a model must do it; missing values are NaN.

    Args:
        kind (`str`, defaults to `"classification"`):
            What the target is: `"classification"`, of 2 ... 10 classes, or `"regression"`.
        n_columns (`int`, defaults to 30):
            Largest number of columns, >= 1.
        n_points (`int`, defaults to 128):
            Rows P of a table, >= 8.
        n_dims (`int`, *optional*):
            Show tables to a model that reads so many numbers per row, >= `n_columns`, as [`present`] says. Default:
            columns as they come, as `example_order: cells` takes them.

    Source: the idea of a prior over tables is of Hollmann et al. (ICLR 2023).
    """

    name = "table_prior"
    description = "made-up tables"
    place_name = "in-context examples"
    has_queries = True

    kind: Literal["classification", "regression"] = "classification"
    n_columns: int = 30
    n_points: int = 128
    n_dims: int | None = None

    def __post_init__(self):
        if self.kind not in ("classification", "regression"):
            raise ValueError(f"`kind` must be classification or regression, got {self.kind!r}.")
        check_at_least_one(n_points=self.n_points, n_columns=self.n_columns)
        self.check_sizes(n_points=self.n_points, n_columns=self.n_columns)
        if self.n_dims is not None:
            check_at_least_one(n_dims=self.n_dims)
            if self.n_dims < self.n_columns:
                raise ValueError(f"`n_dims` must be >= `n_columns` = {self.n_columns}, got {self.n_dims}.")

    @property
    def objective(self) -> str:
        return self.kind

    @property
    def score_name(self) -> str:
        return "share of wrong classes" if self.kind == "classification" else "squared error over the variance of y"

    @property
    def first_place(self) -> int:
        return self.n_points // (N_PLACES + 1)

    @property
    def place_step(self) -> int:
        return self.first_place

    @property
    def sizes(self) -> dict[str, int]:
        return {"n_points": self.n_points, "n_columns": self.n_columns}

    @property
    def model_fields(self) -> dict[str, int]:
        fields = {"n_positions": self.n_points} | ({} if self.n_dims is None else {"n_dims": self.n_dims})
        return fields | {"num_labels": N_SIGNALS} if self.kind == "classification" else fields

    def n_tokens(self, **sizes: int) -> int:
        """One for each row, or for each cell of the largest table, target included."""
        return sizes["n_points"] * (1 if self.n_dims is not None else sizes["n_columns"] + 1)

    def check_sizes(self, n_points: int | None = None, n_columns: int | None = None):
        for name, size in {"n_points": n_points, "n_columns": n_columns}.items():
            if size is not None:
                check_at_least_one(**{name: size})
        if n_points is not None and n_points < 8:
            raise ValueError(f"`n_points` must be >= 8, got {n_points}.")
        if n_columns is not None and n_columns > self.n_columns:
            raise ValueError(f"`n_columns` must be <= that of the task, {self.n_columns}, got {n_columns}.")

    def draw_shape(self, generator: torch.Generator, **sizes: int) -> tuple[int, int]:
        """As many rows as the size says, and the number of columns that is drawn for a batch."""
        return sizes["n_points"], count_columns(sizes["n_columns"], float(draw_uniform((), generator)))

    def sample(
        self, n_prompts: int, generator: torch.Generator, with_hints: bool = False, **sizes: int | None
    ) -> Prompts:
        """
        Draw tables as [`Task.sample`] says, of D <= `n_columns` columns with C < P examples.

        Returns:
            `xs` of shape `(B, P, D)`, float32 with NaN for missing values, `ys` of the C examples and `labels` of the
            P - C queries, int64 or float32.
        """
        sizes = self.checked_sizes(n_prompts, with_hints, **sizes)
        n_rows, n_columns = self.draw_shape(generator, **sizes)
        n_examples = int(torch.randint(LEAST_EXAMPLES, n_rows - n_rows // 8 + 1, (), generator=generator))
        return self.sample_tables(n_prompts, n_rows, n_columns, n_examples, generator)

    def sample_tables(
        self, n_prompts: int, n_rows: int, n_columns: int, n_examples: int, generator: torch.Generator
    ) -> Prompts:
        """As `sample`, of one shape."""
        columns, signals = draw_tables(n_prompts, n_rows, n_columns, N_SIGNALS, generator)
        target = (draw_classes if self.kind == "classification" else draw_values)(signals, generator)
        if self.kind == "regression":
            target = standardise(target.unsqueeze(2), n_examples).squeeze(2)
        xs = standardise(lose_values(columns, generator), n_examples)
        ys, labels = target[:, :n_examples], target[:, n_examples:]
        if self.n_dims is not None:
            xs = present(xs, ys, self.n_dims)
        return {"xs": xs, "ys": ys, "labels": labels}

    def sample_parts(self, n_prompts: int, generator: torch.Generator) -> list[Prompts]:
        """Tables with examples for every place, first of few columns at each, then of more, in parts of one size."""
        size = -(-n_prompts // (N_PLACES * N_WIDTHS))
        parts = []
        for number, start in enumerate(range(0, n_prompts, size)):
            width, place = divmod(number, N_PLACES)
            n_columns = count_columns(self.n_columns, (width + 0.5) / N_WIDTHS)
            shape = (self.n_points, n_columns, self.first_place * (1 + place))
            parts.append(self.sample_tables(min(size, n_prompts - start), *shape, generator))
        return parts

    def score(self, answers: np.ndarray, prompts: Prompts) -> np.ndarray:
        """
        The share of queries with a wrong class, or their mean squared error, `(B, places)`.

        A table counts at the place of its number of examples, or at the next, alone.
        """
        labels, n_examples = prompts["labels"].numpy(), prompts["ys"].shape[1]
        errors = answers != labels if self.kind == "classification" else (answers.astype(np.float64) - labels) ** 2
        scores = np.full((len(labels), N_PLACES), np.nan)
        scores[:, min(-(-n_examples // self.place_step), N_PLACES) - 1] = errors.mean(axis=1)
        return scores


def count_columns(most: int, share: float) -> int:
    """The columns, 1 ... `most`, of the table at this share in [0, 1) of all from the narrowest on; few are common."""
    return 1 + int(most * share**1.5)


def add_noise(signals: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Add to signals `(B, P, S)` normal noise of 0.05 to 3 times their deviation, heavy-tailed in some tables."""
    shape = (len(signals), 1, 1)
    deviation = torch.exp(torch.empty(shape).uniform_(-3, 1.1, generator=generator))
    noise = draw_normal(signals.shape, generator)
    heavy = draw_uniform(shape, generator) < 0.15
    noise = torch.where(heavy, noise * torch.exp(0.7 * draw_normal(signals.shape, generator)), noise)
    return signals + deviation * noise


def draw_classes(signals: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """
    Make 2 ... S classes `(B, P)`, int64, of signals `(B, P, S)`: one cuts the first signal, or the largest tells.

    Classes are numbered at random, and often some are rarer than others.
    """
    n_tables, n_rows, n_signals = signals.shape
    n_classes = 2 + draw_kinds(n_tables, CLASS_WEIGHTS, generator).view(-1, 1)
    noisy = add_noise(signals, generator)
    in_use = torch.arange(n_signals) < n_classes  # (B, S)
    balance = draw_uniform((n_tables, 1), generator)
    lean = 1.5 * balance * draw_normal((n_tables, n_signals), generator)
    largest = (noisy + lean.unsqueeze(1)).masked_fill(~in_use.unsqueeze(1), -torch.inf).argmax(dim=2)
    weights = torch.exp(lean).masked_fill(~in_use, 0)
    bounds = (weights.cumsum(dim=1) / weights.sum(dim=1, keepdim=True))[:, :-1]  # shares of rows below each cut
    rank = noisy[..., 0].argsort(dim=1).argsort(dim=1) / n_rows
    cut = (rank.unsqueeze(2) >= bounds.unsqueeze(1)).sum(dim=2).minimum(n_classes - 1)
    is_cut = draw_uniform((n_tables, 1), generator) < torch.where(n_classes == 2, 0.7, 0.3)
    numbers = draw_uniform((n_tables, n_signals), generator).masked_fill(~in_use, 2).argsort(dim=1)
    return numbers.gather(1, torch.where(is_cut, cut, largest))


def draw_values(signals: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Make values `(B, P)` of the first of signals `(B, P, S)`: some skewed, some in levels, some with outliers."""
    values = standardise(add_noise(signals[..., :1], generator)).squeeze(2)
    shape = (len(values), 1)
    strength = 0.2 + draw_uniform(shape, generator)
    kind = draw_uniform(shape, generator)
    values = torch.where(kind < 0.25, torch.exp(strength * values.clamp(-5, 5)), values)
    step = 0.1 + 0.9 * draw_uniform(shape, generator)
    values = torch.where((kind >= 0.25) & (kind < 0.4), (values / step).round() * step, values)
    is_outlier = (draw_uniform(values.shape, generator) < 0.02) & (draw_uniform(shape, generator) < 0.15)
    return torch.where(is_outlier, values + 5 * draw_normal(values.shape, generator), values)
