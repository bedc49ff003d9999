"""What a card is written in: text that is shown and never obeyed, tables, and numbers as a reader wants them."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from scripts.evaluation.metrics import Curve


# what means something in a line of Markdown; an underscore within a word does not
SPECIAL = re.compile(r"[\\`*\[\]<>#|~$&]|(?<![^\W_])_|_(?![^\W_])")


class Markdown(str):
    """Text that is Markdown already and goes into the card as it stands; all other text is shown, not obeyed."""


def escape(value: Any) -> Markdown:
    """What shows a value in one line of Markdown, whatever it holds; raises `ValueError` where there is none."""
    if value is None:
        raise ValueError("a value is missing")
    if isinstance(value, Markdown):
        return value
    return Markdown(SPECIAL.sub(r"\\\g<0>", one_line(str(value))))


def one_line(text: str) -> str:
    """Text without line breaks or other runs of white space."""
    return " ".join(text.split())


def table_row(cells: Iterable[Any], name: Any) -> Markdown:
    """A row of a table; `name` is its first cell."""
    return Markdown("| " + " | ".join(map(escape, (name, *cells))) + " |")


def table_header(cells: Iterable[Any], name: Any) -> Markdown:
    """The first row of a table, and the line below it."""
    cells = list(cells)
    return Markdown(f"{table_row(cells, name)}\n| ---{' | ---' * len(cells)} |")


def table(columns: Iterable[Any], name: Any, rows: Mapping[Any, Iterable[Any]]) -> Markdown:
    """A table: its columns, `name` the first of them, and its rows by their first cells."""
    lines = [table_header(columns, name), *(table_row(cells, first) for first, cells in rows.items())]
    return Markdown("\n".join(lines))


def number(value: float) -> str:
    """Three significant digits."""
    return f"{value:.3g}"


def error_at(place: int, curve: Curve) -> str:
    """The error of a curve at a place, and its interval where there is one; a dash where the curve has ended."""
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
    """Operations that an error needs; no power law is followed beyond a hundred times those that were taken."""
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
