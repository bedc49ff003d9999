"""The parts of a card in Markdown: escaped text, tables, and rounded numbers."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from scripts.evaluation.metrics_record import Curve


# characters with a meaning in a line of Markdown; an underscore within a word has none
SPECIAL = re.compile(r"[\\`*\[\]<>#|~$&]|(?<![^\W_])_|_(?![^\W_])")


class Markdown(str):
    """Text that is Markdown already and goes into the card unchanged; all other text is escaped."""


def escape(value: Any) -> Markdown:
    """Return Markdown of one line that shows a value literally; raises `ValueError` for `None`."""
    if value is None:
        raise ValueError("a value is missing")
    if isinstance(value, Markdown):
        return value
    return Markdown(SPECIAL.sub(r"\\\g<0>", one_line(str(value))))


def one_line(text: str) -> str:
    """Return the text with every run of white space replaced by one space."""
    return " ".join(text.split())


def table_row(cells: Iterable[Any], name: Any) -> Markdown:
    """A row of a table; `name` is its first cell."""
    return Markdown("| " + " | ".join(map(escape, (name, *cells))) + " |")


def table_header(cells: Iterable[Any], name: Any) -> Markdown:
    """The first row of a table, and the line below it."""
    cells = list(cells)
    return Markdown(f"{table_row(cells, name)}\n| ---{' | ---' * len(cells)} |")


def table(columns: Iterable[Any], name: Any, rows: Mapping[Any, Iterable[Any]]) -> Markdown:
    """A table: `name` heads the column of the first cells, the keys of `rows`; `columns` head the others."""
    lines = [table_header(columns, name), *(table_row(cells, first) for first, cells in rows.items())]
    return Markdown("\n".join(lines))


def number(value: float) -> str:
    """Three significant digits."""
    return f"{value:.3g}"


def error_at(place: int, curve: Curve) -> str:
    """The error of a curve at a place, with its interval where it has one; a dash where the curve is shorter."""
    if place >= len(curve.error):
        return "-"
    ends = "" if curve.low is None else f" [{number(curve.low[place])}, {number(curve.high[place])}]"
    return Markdown(f"{number(curve.error[place])}{ends}")


def duration(seconds: float) -> str:
    """Hours and minutes, or minutes, or seconds."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def operations_cell(needed: float | None, taken: float) -> str:
    """Operations `needed` for an error; "reached" if not more than `taken`, and never more than 100 times that."""
    if needed is None:
        return "-"
    if needed <= taken:
        return "reached"
    return f"{needed:.1e}" if needed <= 100 * taken else f"beyond {100 * taken:.1e}"


FILTERS = {
    "number": number,
    "duration": duration,
    "operations": operations_cell,
    "row": table_row,
    "header": table_header,
}
