"""Metrics of methods at the splits of tables, kept in a folder and computed once."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator

from scripts.common.output_folder import claim_own
from scripts.common.records import write_atomically
from scripts.suite.measuring import measure
from scripts.suite.splits import N_SPLITS
from scripts.suite.tables import SuiteTable


RESULTS_FILE = "results.json"


class Results:
    """
    The results of methods that are recorded together.

    Args:
        folder (`Path`):
            New, empty, or that of the same methods. What is there is not computed again, unless the table has changed.
        methods (`Mapping[str, Mapping[str, BaseEstimator]]`):
            By kind of table, estimators by name.
        settings (`dict`):
            What the results depend on.
    """

    def __init__(self, folder: Path, methods: Mapping[str, Mapping[str, BaseEstimator]], settings: dict[str, Any]):
        self.path, self.methods = folder / RESULTS_FILE, methods
        self.record = claim_own(folder, RESULTS_FILE, settings, ())
        self.record.setdefault("tables", {})

    def cells(self, table: SuiteTable, n_train: int) -> list[dict[str, dict[str, float]]]:
        """The metrics by method of every split of a table with `n_train` training rows; a split may lack some."""
        entry = self.record["tables"].get(table.name)
        if entry is None or entry["definition"] != table.definition:
            entry = self.record["tables"][table.name] = {"definition": table.definition, "splits": {}}
        return entry["splits"].setdefault(str(n_train), [{} for _ in range(N_SPLITS)])

    def n_missing(self, table: SuiteTable, n_train: int) -> int:
        """How many metrics of methods have to be computed."""
        names = self.methods.get(table.kind, {})
        return sum(name not in cell for cell in self.cells(table, n_train) for name in names)

    def fill(self, table: SuiteTable, columns: pd.DataFrame, answers: np.ndarray, n_train: int) -> int:
        """Compute what is missing of a table, and write it; returns how much that was."""
        n_missing = self.n_missing(table, n_train)
        if n_missing:
            for number, cell in enumerate(self.cells(table, n_train)):
                for name, method in self.methods[table.kind].items():
                    if name not in cell:
                        cell[name] = measure(table, method, columns, answers, n_train, number)
            write_atomically(self.path, json.dumps(self.record))
        return n_missing

    def means(self, table: SuiteTable, n_train: int) -> dict[str, dict[str, float]]:
        """The mean of every metric over the splits, by method."""
        cells = self.cells(table, n_train)
        return {
            name: {metric: float(np.mean([cell[name][metric] for cell in cells])) for metric in cells[0][name]}
            for name in self.methods.get(table.kind, {})
        }
