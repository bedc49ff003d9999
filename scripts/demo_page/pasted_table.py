"""A table that a visitor has pasted, and what is asked of it."""

import csv
import io
from dataclasses import dataclass
from typing import Any

import pandas as pd


MAX_ROWS, MAX_COLUMNS = 300, 40  # a second of one core
LEAST_KNOWN = 4
MOST_HELD_OUT = 5
LARGEST = 1e100  # number to predict, of either sign: a picture has room for no larger ones
DELIMITERS = "\t;,"  # the first of them that the header has
MISSING = {"", "?", "na", "n/a", "nan", "null"}


@dataclass(frozen=True, eq=False)
class Question:
    """
    Rows whose cell in one column is known, and rows of which it is asked.

    Args:
        known (`pd.DataFrame`), ys (`list` of `str` or `float`):
            The examples without that column, columns of numbers or text, and their cells in it.
        asked (`pd.DataFrame`):
            The rows that are asked, with the same columns.
        rows (`list[int]`):
            Their numbers in the table, from 1.
        truth (`list`, *optional*):
            Their cells in the column where they were held out; `None` where these are empty.
        objective (`str`):
            `"regression"` for a column of numbers of more than two values, else `"classification"`.
    """

    known: pd.DataFrame
    ys: list[Any]
    asked: pd.DataFrame
    rows: list[int]
    truth: list[Any] | None
    objective: str


def read_table(text: Any) -> pd.DataFrame:
    """
    Read a table as a spreadsheet copies it, or of comma- or semicolon-separated values, with names in its first row.

    Returns:
        Its cells, text without spaces around it; `None` for those that are empty. Rows without any cell are left out.

    Raises:
        `ValueError`: it is no table of 2 ... [`MAX_COLUMNS`] named columns and as many cells in every row, or of more
            than [`MAX_ROWS`] rows; the message is written for the visitor.
    """
    text = text.strip("\r\n") if isinstance(text, str) else ""
    header = text.partition("\n")[0]
    delimiter = next((each for each in DELIMITERS if each in header), ",")
    try:
        lines = list(csv.reader(io.StringIO(text), delimiter=delimiter, strict=True))
    except csv.Error as error:
        raise ValueError(f"This is no table that can be read, a quotation mark may be missing: {error}.") from None
    lines = [line for line in ([cell.strip() for cell in line] for line in lines) if any(line)]
    if not lines:
        raise ValueError("Paste a table first: names in the first row, one row for each thing.")
    names, rows = lines[0], lines[1:]
    _check_names(names)
    if len(rows) > MAX_ROWS:
        raise ValueError(f"This page takes tables of up to {MAX_ROWS} rows, got {len(rows)}: paste some of them.")
    for number, row in enumerate(rows, start=1):
        if len(row) != len(names):
            raise ValueError(
                f"Every row must have {len(names)} cells, as the first row has names: row {number} below it has "
                f"{len(row)}."
            )
    cells = [[None if cell.lower() in MISSING else cell for cell in row] for row in rows]
    return pd.DataFrame(cells, columns=names, dtype=object)


def _check_names(names: list[str]):
    if not 2 <= len(names) <= MAX_COLUMNS:
        raise ValueError(
            f"A table must have 2 to {MAX_COLUMNS} columns, with tabs, semicolons or commas between them, got "
            f"{len(names)}."
        )
    for number, name in enumerate(names, start=1):
        if not name:
            raise ValueError(f"The first row must name every column: column {number} has no name.")
        if _is_number(name):
            raise ValueError(f"The first row must name the columns, and {name!r:.40} is a number: put names above it.")
        if name in names[: number - 1]:
            raise ValueError(f"Every column needs a name of its own: two are called {name!r:.40}.")


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _read_numbers(cells: pd.Series) -> pd.Series:
    """The numbers of a column, NaN for empty cells; or its text, if a cell is text."""
    filled = cells.dropna()
    return cells.astype(float) if len(filled) and all(map(_is_number, filled)) else cells


def objective_of(cells: pd.Series) -> str:
    """What is predicted of a column: a number where it has numbers of more than two values, else a class."""
    is_of_numbers = _read_numbers(cells).dtype.kind == "f"
    return "regression" if is_of_numbers and cells.nunique() > 2 else "classification"


def ask(table: pd.DataFrame, target: Any) -> Question:
    """
    Ask the rows whose cell in a column is empty; or where none is, the last ones, an eighth but at most five.

    Args:
        table (`pd.DataFrame`):
            What [`read_table`] returned.
        target (`str`):
            Name of the column.

    Raises:
        `ValueError`: there is no such column, too few of its cells are filled, all are alike, or one is too large;
            the message is written for the visitor.
    """
    if not isinstance(target, str) or target not in table.columns:
        raise ValueError(f"The column to predict must be one that the first row names, got {target!r:.40}.")
    is_asked = table[target].isna()
    is_held_out = not is_asked.any()
    if is_held_out:
        n_asked = min(max(1, len(table) // 8), MOST_HELD_OUT)
        is_asked.iloc[-n_asked:] = True
    is_known = ~is_asked
    if is_known.sum() < LEAST_KNOWN:
        raise ValueError(
            f"At least {LEAST_KNOWN} rows beside those asked must have a cell in {target!r:.40}, got {is_known.sum()}."
        )
    objective = objective_of(table[target])
    ys = table[target].astype(float) if objective == "regression" else table[target]
    if objective == "regression" and (largest := ys.abs().max()) > LARGEST:
        raise ValueError(
            f"The column to predict must hold numbers up to {LARGEST:g}, got {largest:g} in {target!r:.40}."
        )
    if ys[is_known].nunique() == 1:
        raise ValueError(f"There is nothing to tell: {target!r:.40} is {ys[is_known].iloc[0]!r:.40} in every row.")
    columns = table.drop(columns=target).apply(_read_numbers)
    return Question(
        known=columns[is_known],
        ys=ys[is_known].tolist(),
        asked=columns[is_asked],
        rows=[number + 1 for number, asked in enumerate(is_asked) if asked],
        truth=ys[is_asked].tolist() if is_held_out else None,
        objective=objective,
    )
