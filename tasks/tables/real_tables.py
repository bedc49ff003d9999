"""Real tables, those of scikit-learn or the paper's of OpenML: all of them, one, or all but one."""

from dataclasses import dataclass
from functools import cache
from typing import Literal, NamedTuple

import numpy as np
import torch

from .common import TableTask


OPENML_IDS = (720, 725, 737, 803, 807, 816, 819, 847, 871, 42193)  # inferred from the sizes of the authors' splits

RowsAndClasses = tuple[np.ndarray, np.ndarray]  # (R, C) and (R,)


class Table(NamedTuple):
    """Standardised columns `(R, C)`, float32, none of them constant, and the indices of each class's rows."""

    columns: torch.Tensor
    rows_of_class: tuple[torch.Tensor, ...]


def bundled_tables() -> dict[str, RowsAndClasses]:
    """The tables that come with scikit-learn; the diabetes progression is split at its median."""
    from sklearn import datasets

    loaded = {
        name: getattr(datasets, f"load_{name}")(return_X_y=True)
        for name in ("iris", "wine", "breast_cancer", "digits", "diabetes")
    }
    rows, progression = loaded["diabetes"]
    return loaded | {"diabetes": (rows, progression > np.median(progression))}


def openml_tables() -> dict[str, RowsAndClasses]:
    """The numeric columns of the paper's data sets, from OpenML."""
    from sklearn import datasets

    loaded = [datasets.fetch_openml(data_id=number, as_frame=True) for number in OPENML_IDS]
    return {
        data.details["name"]: (data.data.select_dtypes("number").to_numpy(float), data.target.astype(str))
        for data in loaded
    }


SOURCES = {"scikit-learn": bundled_tables, "openml": openml_tables}


@cache
def load_tables(source: str) -> dict[str, Table]:
    """
    The tables of a source, an entry of [`SOURCES`], by name.

    Raises:
        `ValueError`: scikit-learn is not installed, or the tables cannot be fetched.
    """
    try:
        return {name: standardise(*table) for name, table in SOURCES[source]().items()}
    except (ImportError, OSError) as error:
        raise ValueError(f"the tables of {source} (`source`) cannot be loaded: {error}.") from None


def standardise(rows: np.ndarray, classes: np.ndarray) -> Table:
    """Make a table of its rows `(R, C)` and their classes `(R,)`."""
    deviation = rows.std(axis=0)
    varies = deviation > 0
    columns = (rows - rows.mean(axis=0))[:, varies] / deviation[varies]
    members = [np.flatnonzero(classes == name) for name in np.unique(classes)]
    return Table(torch.from_numpy(columns).float(), tuple(map(torch.from_numpy, members)))


@dataclass(frozen=True)
class RealTables(TableTask):
    """
    Real tables, all equally likely; a prompt shows some columns of one, in random order and with random signs.

    A row is shown twice only where its class has no other left.

    Args:
        source (`str`, defaults to `"scikit-learn"`):
            Where the tables come from, an entry of [`SOURCES`]; `"openml"` fetches the paper's over the network.
        only (`str`, *optional*), left_out (`str`, *optional*):
            The only table to draw prompts from, or the only one not to. Default: all tables are used.

    Source: Yang et al. (ICLR 2024), appendix on OpenML.
    """

    name = "real_tables"
    description = "real tables"

    source: Literal[tuple(SOURCES)] = "scikit-learn"
    only: str | None = None
    left_out: str | None = None

    def __post_init__(self):
        super().__post_init__()
        if self.source not in SOURCES:
            raise ValueError(f"`source` must be one of {', '.join(SOURCES)}, got {self.source!r}.")
        tables = load_tables(self.source)
        for field in ("only", "left_out"):
            if getattr(self, field) not in (None, *tables):
                raise ValueError(f"`{field}` must be one of {', '.join(tables)}, got {getattr(self, field)!r}.")
        few = [name for name, table in self.tables.items() if len(table.rows_of_class) < self.n_labels]
        if few or not self.tables:
            raise ValueError(
                f"`only` and `left_out` must leave tables of at least `n_labels` = {self.n_labels} classes, got "
                f"{', '.join(few) or 'none'}."
            )

    @property
    def tables(self) -> dict[str, Table]:
        """The tables that prompts are drawn from, by name."""
        tables = load_tables(self.source)
        return {name: tables[name] for name in tables if name != self.left_out and self.only in (None, name)}

    def sample_rows(self, labels: torch.Tensor, n_columns: int, generator: torch.Generator) -> torch.Tensor:
        tables = list(self.tables.values())
        chosen = torch.randint(len(tables), (len(labels),), generator=generator)
        xs = torch.zeros(*labels.shape, self.n_dims)
        for x, classes, number in zip(xs, labels, chosen.tolist(), strict=True):
            columns, rows_of_class = tables[number]
            rows = torch.empty_like(classes)
            shown = torch.randperm(len(rows_of_class), generator=generator)[: self.n_labels]
            for label, members in enumerate(rows_of_class[index] for index in shown.tolist()):
                is_class = classes == label
                order = torch.randperm(len(members), generator=generator)
                rows[is_class] = members[order[torch.arange(int(is_class.sum())) % len(members)]]
            kept = torch.randperm(columns.shape[1], generator=generator)[:n_columns]
            signs = 2 * torch.randint(2, (len(kept),), generator=generator) - 1
            x[:, : len(kept)] = columns[rows[:, None], kept] * signs
        return xs
