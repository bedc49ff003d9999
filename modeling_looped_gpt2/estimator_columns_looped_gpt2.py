"""How the columns of a table, a data frame or an array, become columns of numbers for a model."""

from collections import Counter
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from numbers import Real
from typing import Any

import numpy as np


# a category of at most so many levels has a column of 0 and 1 for each; one of more has a single column of codes
MAX_LEVEL_COLUMNS = 30
# a column of text is free text where it has more than so many different values, and more than this share of its rows:
# a level that is seen once tells a model nothing
MAX_TEXT_LEVELS = 30
MAX_TEXT_SHARE = 0.9
NUMBERS = (Real, Decimal, np.bool_)
REFUSED = {
    "dates": "dates or times in the columns {}: count days or seconds, e.g. by `(day - day.min()).dt.days`.",
    "text": "free text, nearly as many different values as rows, in the columns {}: drop them, make a few categories "
    "of them, or read numbers by `pandas.to_numeric`.",
    "mixed": "numbers beside text in the columns {}: read them by `pandas.to_numeric`, or all as text by "
    "`astype(str)`.",
    "others": "values of other kinds in the columns {}: drop them or turn them into numbers or text.",
}


@dataclass(frozen=True)
class Column:
    """
    A column of numbers as a model is to see it, made of a column of a table.

    Args:
        name (`str`):
            "age"; "ward=b" for whether the column ward is b; "x3" in an array.
        source (`Hashable`):
            Name of the table's column, for messages.
        position (`int`):
            Place of the table's column, >= 0: names may occur twice.
        numbers (`Mapping[Hashable, float]`, *optional*):
            What the levels of a category count as. A level that is not there is missing. `None`: a column of numbers.
    """

    name: str
    source: Hashable
    position: int
    numbers: Mapping[Hashable, float] | None = None

    def read(self, values: Any) -> np.ndarray:
        """The numbers `(n,)`, float64 and NaN for missing values, of the column of a frame with these `values`."""
        try:
            if self.numbers is not None:
                return np.array([self.numbers.get(level, np.nan) for level in values.tolist()], dtype=np.float64)
            if values.dtype.kind in "mM":
                raise TypeError
            with np.errstate(over="ignore"):  # of a wider kind: becomes infinite, and is refused as such
                return values.to_numpy(dtype=np.float64, na_value=np.nan)
        except (TypeError, ValueError, OverflowError):
            raise ValueError(
                f"X must hold what `fit` found in the columns {[self.source]}, numbers within the range of float64 or "
                f"categories, got {values.dtype} with other values: convert them."
            ) from None


def is_frame(X: Any) -> bool:
    """Whether X is a pandas data frame."""
    return hasattr(X, "iloc") and hasattr(X, "columns")


def find_columns(X: Any) -> list[Column]:
    """
    Say what numbers a table is to be read as.

    A category, or text, of two levels is a column of 0 and 1; one of up to 30 a column for each level, 1 where a row
    has it. One of more levels is a column of codes, the most frequent being 0; that of ordered categories is their
    rank. Numbers of any type and truth values stay what they are.

    Args:
        X (`pandas.DataFrame` or `np.ndarray` of shape `(n, n_features)`):
            The examples; an array holds numbers.

    Raises:
        `ValueError`: a column is of dates, durations, free text, more than a few values of which some are numbers
            and some are not, or values that are neither numbers nor can be levels.
    """
    if not is_frame(X):
        return [Column(f"x{i}", i, i) for i in range(X.shape[1])]
    found, refused = [], {}
    for position, (source, values) in enumerate(X.items()):
        kind = _kind(values)
        if kind in REFUSED:
            refused.setdefault(kind, []).append(source)
        elif kind == "numbers":
            found.append(Column(str(source), source, position))
        else:
            found += _level_columns(source, position, values)
    for kind, sources in refused.items():
        raise ValueError("X must be numbers or categories, got " + REFUSED[kind].format(sources))
    return found


def read_columns(X: Any, columns: list[Column]) -> np.ndarray:
    """
    Read the numbers `(n, len(columns))` of a table, float64 and NaN for missing values and levels that are not known.

    Raises:
        `ValueError`: a value is infinite, or no number where `fit` found numbers; or an array is given where `fit`
            found categories.
    """
    if not is_frame(X):
        categories = [column.source for column in columns if column.numbers is not None]
        if categories:
            raise ValueError(
                f"X must be a data frame like that given to `fit`, which has categories in the columns "
                f"{list(dict.fromkeys(categories))}, got an array."
            )
        return X[:, [column.position for column in columns]]
    numbers = np.empty((len(X), len(columns)))
    for i, column in enumerate(columns):
        numbers[:, i] = column.read(X.iloc[:, column.position])
    infinite = [columns[i].source for i in np.flatnonzero(np.isinf(numbers).any(axis=0))]
    if infinite:
        raise ValueError(
            f"X must be finite or missing, got infinity in the columns {infinite}: replace it by NaN or a number."
        )
    return numbers


def choose_columns(numbers: np.ndarray, targets: np.ndarray, limit: int) -> np.ndarray:
    """
    Choose the columns that a model is to see: those that vary, and of more than `limit` those nearest to y.

    Nearest are those of which y explains the largest share of variance: the square of the correlation with a number,
    the variance between classes. A missing value counts as the mean. Of equal ones the first is taken. Where nothing
    varies, the first column stands for all.

    Args:
        numbers (`np.ndarray` of shape `(n, n_columns)`):
            The examples, with NaN for missing values.
        targets (`np.ndarray` of shape `(n, K)`):
            Orthonormal vectors that y is a sum of, besides a constant.
        limit (`int`):
            Most columns, >= 1.

    Returns:
        `np.ndarray`: indices of columns, ascending.
    """
    n_missing = np.isnan(numbers).sum(axis=0)
    known = np.where(n_missing < len(numbers), numbers, 0)
    low, high = np.nanmin(known, axis=0), np.nanmax(known, axis=0)
    varies = (low < high) | ((n_missing > 0) & (n_missing < len(numbers)))
    kept = np.flatnonzero(varies)
    if len(kept) == 0:
        return np.arange(1)
    if len(kept) <= limit:
        return kept
    # scaled to -1 ... 1 first: no square overflows
    scale = np.maximum(np.abs(low[kept]), np.abs(high[kept]))
    scaled = known[:, kept] / np.where(scale > 0, scale, 1)
    centred = np.nan_to_num(scaled - np.nanmean(scaled, axis=0))
    deviation = np.sqrt(np.square(centred).sum(axis=0))
    return np.sort(kept[nearest(centred / np.where(deviation > 0, deviation, 1), targets)[:limit]])


def nearest(numbers: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Indices of standardised columns `(n, n_columns)` by how much of each the `targets` explain, largest first."""
    explained = np.square(targets.T @ numbers).sum(axis=0)
    return np.argsort(-explained.round(12), kind="stable")


def _kind(values: Any) -> str:
    """What a column of a frame holds: numbers, categories, or one of what is `REFUSED`."""
    if hasattr(values, "cat"):
        return "categories"
    if values.dtype.kind in "mM":
        return "dates"
    if values.dtype.kind in "biuf":
        return "numbers"
    present = values.dropna().tolist()
    kinds = set(map(type, present))
    if all(issubclass(kind, NUMBERS) for kind in kinds):
        return "numbers"
    times = (timedelta, np.timedelta64, np.datetime64)
    if any(hasattr(kind, "strftime") or issubclass(kind, times) for kind in kinds):
        return "dates"
    if any(kind.__hash__ is None or issubclass(kind, complex) for kind in kinds):
        return "others"
    n_levels = len(set(present))
    if n_levels <= MAX_TEXT_LEVELS:
        return "categories"
    if any(issubclass(kind, NUMBERS) for kind in kinds):
        return "mixed"
    return "text" if n_levels > MAX_TEXT_SHARE * len(present) else "categories"


def _level_columns(source: Hashable, position: int, values: Any) -> list[Column]:
    """The columns that a category is read as."""
    counts = Counter(values.dropna().tolist())
    levels = sorted(counts, key=lambda level: (-counts[level], str(level)))
    name, is_ordered = str(source), getattr(values.dtype, "ordered", False)
    if is_ordered or len(levels) > MAX_LEVEL_COLUMNS or len(levels) < 2:
        codes = values.cat.categories.tolist() if is_ordered else levels
        return [Column(name, source, position, {level: float(code) for code, level in enumerate(codes)})]
    levels.sort(key=str)
    return [
        Column(f"{name}={shown}", source, position, {level: float(level == shown) for level in levels})
        for shown in (levels if len(levels) > 2 else levels[1:])
    ]
