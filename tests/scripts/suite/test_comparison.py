"""Ranks and means over tables."""

import numpy as np
import pytest

from scripts.suite.comparison import compare, ranks
from scripts.suite.report import comparison_lines, table_lines


CLASSICAL = ["logistic regression", "random forest"]


def naive_rank(values, method):
    better = sum(value > values[method] for value in values)
    return better + (sum(value == values[method] for value in values) + 1) / 2


def test_ranks_are_the_naive_ones_and_ties_are_averaged():
    values = np.random.default_rng(0).integers(4, size=(50, 5))
    assert ranks(values).tolist() == [[naive_rank(row, method) for method in range(5)] for row in values]
    assert ranks(np.array([[0.5, 0.9, 0.5]])).tolist() == [[2.5, 1, 2.5]]
    assert (ranks(values).sum(axis=1) == 15).all()


def table(**auc):
    return {
        name: {"auc": value, "accuracy": 1 - value}
        for name, value in zip((*CLASSICAL, *auc), (0.7, 0.8, *auc.values()), strict=True)
    }


def test_a_model_is_ranked_among_the_classical_methods_and_itself():
    measured = [table(looped=0.9, untied=0.95), table(looped=0.75, untied=0.5)]
    compared = compare("classification", measured, CLASSICAL)
    assert list(compared) == [*CLASSICAL, "looped", "untied"]
    means = {name: entry["rank_by_auc"]["mean"] for name, entry in compared.items()}
    assert means == {"logistic regression": 3, "random forest": 1.5, "looped": 1.5, "untied": 2}
    assert compared["looped"]["rank_by_accuracy"] == {"mean": 2.5, "low": 2, "high": 3}
    assert compared["looped"]["auc"] == pytest.approx(0.825)


def test_without_a_model_the_classical_methods_are_ranked_among_themselves():
    compared = compare("classification", [table()] * 3, CLASSICAL)
    assert compared["random forest"]["rank_by_auc"] == {"mean": 1, "low": 1, "high": 1}


def test_the_page_shows_every_method_and_every_table():
    metrics = {"r2": 0.5, "pinball": 0.25, "coverage": 0.9, "fit_seconds": 1, "predict_seconds": 2}
    measured = {"a/b": {"ridge": metrics, "looped": metrics | {"r2": 0.75}}}
    lines = list(comparison_lines("regression", compare("regression", list(measured.values()), ["ridge"])))
    assert lines[0] == "| method | mean rank by R² | R² | pinball loss | coverage of 90% | s to fit | s to predict |"
    assert lines[3] == "| looped | 1.00 (1.00 to 1.00) | 0.750 | 0.250 | 0.900 | 1.000 | 2.000 |"
    assert list(table_lines("regression", measured))[2] == "| a/b | 0.500 | 0.750 |"
