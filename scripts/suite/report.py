"""Comparisons in Markdown: one table per kind and number of training rows, and every table of the suite."""

from collections.abc import Iterator, Mapping
from typing import Any

from scripts.suite.comparison import RANKED_BY


SHOWN = {
    "classification": ("auc", "accuracy", "log_loss", "calibration_error", "fit_seconds", "predict_seconds"),
    "regression": ("r2", "pinball", "coverage", "fit_seconds", "predict_seconds"),
}
HEADINGS = {
    "auc": "AUC",
    "accuracy": "accuracy",
    "log_loss": "log loss",
    "calibration_error": "calibration error",
    "r2": "R²",
    "pinball": "pinball loss",
    "coverage": "coverage of 90%",
    "fit_seconds": "s to fit",
    "predict_seconds": "s to predict",
}


def comparison_lines(kind: str, compared: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Yield the lines of the table of one comparison, a method a line."""
    ranked = RANKED_BY[kind]
    headings = [f"mean rank by {HEADINGS[metric]}" for metric in ranked]
    yield from head_lines(["method", *headings, *(HEADINGS[metric] for metric in SHOWN[kind])])
    for name, entry in compared.items():
        places = (entry[f"rank_by_{metric}"] for metric in ranked)
        cells = [f"{rank['mean']:.2f} ({rank['low']:.2f} to {rank['high']:.2f})" for rank in places]
        yield row_line([name, *cells, *(f"{entry[metric]:.3f}" for metric in SHOWN[kind])])


def table_lines(kind: str, means: Mapping[str, Mapping[str, Mapping[str, float]]]) -> Iterator[str]:
    """Yield the lines of the first ranked metric of every method at every table of the suite."""
    metric = RANKED_BY[kind][0]
    methods = list(next(iter(means.values())))
    yield from head_lines([f"{HEADINGS[metric]}", *methods])
    for table, of in means.items():
        yield row_line([table, *(f"{of[name][metric]:.3f}" for name in methods)])


def head_lines(headings: list[str]) -> Iterator[str]:
    """Yield the head of a table in Markdown."""
    yield row_line(headings)
    yield row_line(["---"] * len(headings))


def row_line(cells: list[str]) -> str:
    """A row of a table in Markdown."""
    return f"| {' | '.join(cells)} |"
