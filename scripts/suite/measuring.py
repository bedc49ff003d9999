"""Fits a method to training rows of a table and measures its answers to test rows."""

import time
import warnings

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning

from scripts.suite.baselines import aligned_probabilities
from scripts.suite.metrics import LEVELS, class_metrics, value_metrics
from scripts.suite.splits import split_rows
from scripts.suite.tables import SuiteTable


def measure(
    table: SuiteTable, method: BaseEstimator, columns: pd.DataFrame, answers: np.ndarray, n_train: int, number: int
) -> dict[str, float]:
    """
    Fit a method to training rows of a table and measure its answers to the test rows.

    Args:
        table ([`SuiteTable`]), columns, answers:
            The table, and what it loads.
        method:
            An estimator of scikit-learn's interface with `predict_proba`, or with `predict` and
            `predict_quantiles(columns, levels)`, `(rows, levels)`.
        n_train, number (`int`):
            Training rows, and number of the split.

    Returns:
        The metrics, and `fit_seconds` and `predict_seconds`, those of probabilities or values.

    Raises:
        `ValueError`: the method refuses the table; the message names it.
    """
    measure_kind = measure_classes if table.kind == "classification" else measure_values
    groups = answers if table.kind == "classification" else np.zeros(len(answers))
    train, test = split_rows(table.name, groups, n_train, number)
    with warnings.catch_warnings():
        # a penalty that is not chosen need not have converged; rare classes have fewer rows than there are folds
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.filterwarnings("ignore", "The least populated class")
        try:
            start = time.perf_counter()
            method.fit(columns.iloc[train], answers[train])
            fitted = time.perf_counter()
            metrics, answered = measure_kind(method, columns.iloc[test], answers, test)
        except ValueError as error:
            raise ValueError(f"the table {table.name}: {error}") from error
    return metrics | {"fit_seconds": fitted - start, "predict_seconds": answered - fitted}


def measure_classes(
    method: BaseEstimator, asked: pd.DataFrame, answers: np.ndarray, test: np.ndarray
) -> tuple[dict[str, float], float]:
    """Return the metrics at the test rows `asked`, and when it had answered them."""
    classes, labels = np.unique(answers, return_inverse=True)
    probabilities = aligned_probabilities(method, asked, classes)
    answered = time.perf_counter()
    return class_metrics(labels[test], probabilities), answered


def measure_values(
    method: BaseEstimator, asked: pd.DataFrame, answers: np.ndarray, test: np.ndarray
) -> tuple[dict[str, float], float]:
    """As [`measure_classes`], of predicted values; the quantiles are asked after them."""
    predictions = method.predict(asked)
    answered = time.perf_counter()
    quantiles = method.predict_quantiles(asked, LEVELS)
    return value_metrics(answers[test], predictions, quantiles, answers.std()), answered
