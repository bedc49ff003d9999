"""Compares methods over tables: mean ranks with an interval, and mean metrics."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tasks.metrics import bootstrap_interval


RANKED_BY = {"classification": ("auc", "accuracy"), "regression": ("r2",)}  # of all, more is better


def ranks(values: np.ndarray) -> np.ndarray:
    """The rank of every method at every table `(tables, methods)`, the largest value being 1; ties are averaged."""
    is_better = values[:, None, :] > values[:, :, None]
    is_equal = values[:, None, :] == values[:, :, None]
    return is_better.sum(axis=-1) + (is_equal.sum(axis=-1) + 1) / 2


def compare(
    kind: str, measured: Sequence[Mapping[str, Mapping[str, float]]], classical: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """
    Compare models with the classical methods.

    Args:
        kind (`str`):
            `"classification"` or `"regression"`.
        measured (`Sequence` of one mapping per table):
            Metrics by name of the method.
        classical (`Sequence[str]`):
            Names of the classical methods; all others are models.

    Returns:
        By method the mean of every metric over tables, and under `rank_by_<metric>` the mean rank with the `low` and
        `high` end of its 90% bootstrap interval over tables. A model is ranked among the classical methods and itself;
        they are ranked among themselves and the first model.
    """
    compared = {
        name: {metric: float(np.mean([table[name][metric] for table in measured])) for metric in measured[0][name]}
        for name in measured[0]
    }
    models = [name for name in measured[0] if name not in classical]
    for group in [[*classical, model] for model in models] or [classical]:
        for metric in RANKED_BY[kind]:
            of_table = ranks(np.array([[table[name][metric] for name in group] for table in measured]))
            ends = zip(of_table.mean(axis=0), *bootstrap_interval(of_table), strict=True)
            for name, values in zip(group, ends, strict=True):
                entry = dict(zip(("mean", "low", "high"), map(float, values), strict=True))
                compared[name].setdefault(f"rank_by_{metric}", entry)
    return compared
