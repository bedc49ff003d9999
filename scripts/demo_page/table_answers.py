"""The answers of a model of tables after every loop, and how they are shown."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from transformers import PreTrainedModel

from modeling_looped_gpt2.estimator_looped_gpt2 import InContextClassifier, InContextRegressor
from scripts.demo_page.figures import start_panels, style
from scripts.demo_page.pasted_table import Question
from scripts.demo_page.shown_model import LOOPS_SHOWN, say_loops
from scripts.evaluation.axes import plain


PANELS = 4  # rows that are drawn
LEVELS = (0.05, 0.5, 0.95)
# Okabe and Ito's, then greys
COLOURS = (
    "#D55E00",
    "#0072B2",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#000000",
    "#555555",
    "#888888",
    "#BBBBBB",
)
LEGEND_COLUMNS, LEGEND_LINE = 3, 0.2  # inches


@dataclass(frozen=True, eq=False)
class TableAnswers:
    """
    What a model answers to Q rows after each of L loops: K numbers for each.

    Args:
        by_loop (`np.ndarray` of shape `(L, Q, K)`):
            These numbers.
        names (`list[str]`):
            What they are of.
        rows (`list[int]`):
            Numbers of the rows in the table, from 1.
        truth (`list`, *optional*):
            What is true of them, where it is known.
        n_loops (`int`):
            Loops that the model was trained with.
    """

    estimator_class: ClassVar[type]
    headers: ClassVar[tuple[str, ...]]  # of the cells that tell an answer

    by_loop: np.ndarray
    names: list[str]
    rows: list[int]
    truth: list[Any] | None
    n_loops: int

    @classmethod
    def of(cls, model: PreTrainedModel, question: Question) -> "TableAnswers":
        """Ask a model; raises `ValueError` where the table is not what it takes."""
        by_loop = []
        for n_loops in range(1, LOOPS_SHOWN * model.config.n_loops + 1):
            estimator = cls.estimator_class(model, n_loops=n_loops, random_state=0, verbose=False)
            by_loop.append(cls.predict(estimator.fit(question.known, question.ys), question.asked))
        names = cls.names_of(estimator)
        return cls(np.stack(by_loop), names, question.rows, question.truth, model.config.n_loops)

    @staticmethod
    def check_model(name: str, model: PreTrainedModel):
        """Raise `ValueError` unless the model gives such answers."""

    @staticmethod
    def predict(estimator: Any, asked: Any) -> np.ndarray:
        """The K numbers of each row `(Q, K)`, by an estimator that is fitted."""
        raise NotImplementedError("A subclass must define `predict`.")

    @staticmethod
    def names_of(estimator: Any) -> list[str]:
        """What they are of."""
        raise NotImplementedError("A subclass must define `names_of`.")

    def tell(self, numbers: np.ndarray) -> list[str]:
        """The cells, one for each of `headers`, that tell the K numbers of a row."""
        raise NotImplementedError(f"{type(self).__name__} must define `tell`.")

    def say(self, truth: Any) -> str:
        """What is true of a row, in the words of the answers."""
        raise NotImplementedError(f"{type(self).__name__} must define `say`.")

    def judge(self, answers: np.ndarray) -> str:
        """How near the answers `(Q, K)` are to the truth, in Markdown."""
        raise NotImplementedError(f"{type(self).__name__} must define `judge`.")

    def draw(self, axes: Axes, loops: np.ndarray, index: int):
        """Draw the numbers of row `index` over `loops`, with labels for a legend."""
        raise NotImplementedError(f"{type(self).__name__} must define `draw`.")

    def table(self, n_loops: int) -> list[list[str]]:
        """The answers after `n_loops` loops: a row with its number, the cells of `headers`, and the truth if known."""
        rows = zip(self.rows, self.by_loop[n_loops - 1], self.truth or [None] * len(self.rows), strict=True)
        return [
            [str(row), *self.tell(numbers), *([] if self.truth is None else [self.say(truth)])]
            for row, numbers, truth in rows
        ]

    def table_headers(self) -> list[str]:
        """Names of the columns of `table`."""
        return ["row", *self.headers, *([] if self.truth is None else ["truth"])]

    def describe(self, n_loops: int) -> str:
        """Return a sentence in Markdown on the answers after `n_loops` loops."""
        judged = "" if self.truth is None else f", {self.judge(self.by_loop[n_loops - 1])}"
        return f"After **{say_loops(n_loops)}**{judged}. Trained with {say_loops(self.n_loops)}."

    def plot(self, n_loops: int) -> Figure:
        """Plot the answers to the first rows after every loop, and mark `n_loops`."""
        shown, loops = range(min(PANELS, len(self.rows))), np.arange(1, len(self.by_loop) + 1)
        legend_lines = -(-len(self.names) // LEGEND_COLUMNS)
        panels = start_panels(len(shown), height=1.1, top=0.3 + LEGEND_LINE * legend_lines)
        for axes, index in zip(panels, shown, strict=True):
            self.draw(axes, loops, index)
            axes.axvline(self.n_loops, color="#666666", linestyle="--", linewidth=1)
            axes.axvline(n_loops, color="#666666", linewidth=1)
            truth = "" if self.truth is None else f", in truth {_short(self.say(self.truth[index]))}"
            axes.set_title(f"row {self.rows[index]}{truth}", loc="left", fontsize=9, pad=3)
            axes.set_xlim(0.5, len(loops) + 0.5)
            axes.tick_params(labelsize=8, labelbottom=axes is panels[-1])
            style(axes)
        panels[-1].set_xlabel("loops; dashed: as many as in training", fontsize=9)
        handles, labels = panels[0].get_legend_handles_labels()
        figure = panels[0].figure
        figure.legend(handles, labels, loc="upper center", ncols=LEGEND_COLUMNS, fontsize=8, frameon=False)
        return figure


class ClassAnswers(TableAnswers):
    """Probabilities of K classes."""

    estimator_class = InContextClassifier
    headers = ("answer", "probability")

    @classmethod
    def of(cls, model: PreTrainedModel, question: Question) -> "TableAnswers":
        """As elsewhere; refuses more classes than the model tells apart."""
        n_classes, limit = len(set(question.ys)), model.config.num_labels
        if n_classes > limit:
            raise ValueError(
                f"The model tells up to {limit} classes apart, and the column to predict has {n_classes} different "
                "ones: merge rare ones, or predict another column if this is free text."
            )
        return super().of(model, question)

    @staticmethod
    def predict(estimator: InContextClassifier, asked: Any) -> np.ndarray:
        """The probabilities of the classes."""
        return estimator.predict_proba(asked)

    @staticmethod
    def names_of(estimator: InContextClassifier) -> list[str]:
        """The classes."""
        return list(map(str, estimator.classes_))

    def tell(self, numbers: np.ndarray) -> list[str]:
        """The likeliest class and its probability."""
        return [self.names[numbers.argmax()], f"{numbers.max():.2f}"]

    def say(self, truth: str) -> str:
        """The class itself."""
        return truth

    def judge(self, answers: np.ndarray) -> str:
        """How many likeliest classes are right."""
        answered = [self.names[index] for index in answers.argmax(axis=1)]
        n_right = sum(answer == truth for answer, truth in zip(answered, self.truth, strict=True))
        return f"**{n_right} of {len(answered)}** rows held out are answered right"

    def draw(self, axes: Axes, loops: np.ndarray, index: int):
        """A line for each class."""
        for number, name in enumerate(self.names):
            # a label that begins with "_" would not be shown
            label, colour = f" {_short(name)}", COLOURS[number % len(COLOURS)]
            axes.plot(loops, self.by_loop[:, index, number], color=colour, linewidth=1.5, label=label)
        axes.set(ylim=(-0.05, 1.05), yticks=(0, 0.5, 1), ylabel="probability")


class NumberAnswers(TableAnswers):
    """Quantiles of a number at `LEVELS`."""

    estimator_class = InContextRegressor
    headers = ("5%", "median", "95%")

    @staticmethod
    def check_model(name: str, model: PreTrainedModel):
        """Refuse a model without quantiles."""
        if not model.config.n_quantiles:
            raise ValueError(f"{name} must have quantiles, whose intervals the page shows, got `n_quantiles` = 0.")

    @staticmethod
    def predict(estimator: InContextRegressor, asked: Any) -> np.ndarray:
        """The quantiles."""
        return estimator.predict_quantiles(asked, LEVELS)

    @staticmethod
    def names_of(estimator: InContextRegressor) -> list[str]:
        """The quantiles."""
        return list(NumberAnswers.headers)

    def tell(self, numbers: np.ndarray) -> list[str]:
        """All of them."""
        return list(map(self.say, numbers))

    def say(self, truth: float) -> str:
        """The number, in four digits."""
        return f"{truth:.4g}"

    def judge(self, answers: np.ndarray) -> str:
        """How far the median is off, and how many lie in the interval."""
        low, median, high = answers.T
        truth = np.array(self.truth)
        n_inside = int(((low <= truth) & (truth <= high)).sum())
        return (
            f"the median of rows held out is **{np.abs(median - truth).mean():.3g}** from the truth in the mean, and "
            f"**{n_inside} of {len(truth)}** lie in the interval of 90%"
        )

    def draw(self, axes: Axes, loops: np.ndarray, index: int):
        """The median, the interval and the truth."""
        low, median, high = self.by_loop[:, index].T
        axes.fill_between(loops, low, high, color="#D55E00", alpha=0.2, linewidth=0, label="90% interval")
        axes.plot(loops, median, color="#D55E00", linewidth=1.5, label="median")
        if self.truth is not None:
            axes.axhline(self.truth[index], color="#000000", linestyle=":", linewidth=1.5, label="truth")


def _short(text: str) -> str:
    return plain(text if len(text) <= 18 else text[:17] + "…")


# by what a column is predicted as
ANSWERS: dict[str, type[TableAnswers]] = {"classification": ClassAnswers, "regression": NumberAnswers}
