"""The classical methods take tables as people have them."""

import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression

from scripts.suite import baselines
from scripts.suite.baselines import ResidualQuantiles, aligned_probabilities, make_baselines
from scripts.suite.measuring import measure
from scripts.suite.metrics import LEVELS
from scripts.suite.tables import SuiteTable


@pytest.fixture
def columns():
    """Numbers, booleans and text with missing values, a column with none at all, and one with a single value."""
    generator = np.random.default_rng(0)
    columns = pd.DataFrame(
        {
            "number": generator.normal(size=120),
            "truth": generator.random(120) < 0.5,
            "text": generator.choice(["a", "b", "rare"], 120, p=[0.5, 0.45, 0.05]),
            "absent": np.nan,
            "constant": 1,
        }
    )
    columns.loc[::7, "number"] = np.nan
    columns["text"] = columns["text"].astype(object).where(np.arange(120) % 9 > 0, np.nan)
    return columns


@pytest.fixture(autouse=True)
def few_fits(monkeypatch):
    monkeypatch.setattr(baselines, "N_TREES", 10)
    monkeypatch.setattr(baselines, "N_FOLDS", 2)


def make_answers(columns, kind):
    signal = columns["number"].fillna(0) + 2 * columns["truth"] + (columns["text"] == "a")
    return signal.to_numpy() if kind == "regression" else np.where(signal > 1, "high", "low").astype(str)


@pytest.mark.parametrize(("kind", "metric", "least"), [("classification", "auc", 0.75), ("regression", "r2", 0.3)])
def test_every_method_learns_and_gives_the_same_twice(columns, kind, metric, least):
    table = SuiteTable(kind, "a/b", "what", "y")
    answers = make_answers(columns, kind)
    for name, method in make_baselines(kind).items():
        first, again = (measure(table, method, columns, answers, 60, 1) for _ in range(2))
        assert first[metric] > least, name
        for metrics in (first, again):
            assert min(metrics.pop("fit_seconds"), metrics.pop("predict_seconds")) > 0
        assert first == again
        assert all(np.isfinite(value) for value in first.values())


def test_classes_that_are_rare_in_training_are_no_obstacle(columns):
    answers = np.array(["a"] * 90 + ["b"] * 20 + ["c"] * 10)
    table = SuiteTable("classification", "a/b", "what", "y")
    for method in make_baselines("classification").values():
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert 0 <= measure(table, method, columns, answers, 20, 0)["auc"] <= 1


def test_probabilities_are_0_for_classes_that_were_not_shown(columns):
    method = make_baselines("classification")["7 nearest neighbours"].fit(columns[:40], ["b", "d"] * 20)
    probabilities = aligned_probabilities(method, columns[:5], ["a", "b", "c", "d"])
    assert probabilities[:, [0, 2]].tolist() == [[0, 0]] * 5
    assert probabilities[:, [1, 3]].tolist() == method.predict_proba(columns[:5]).tolist()


def test_quantiles_are_the_prediction_plus_errors_at_rows_that_were_held_out():
    generator = np.random.default_rng(0)
    xs = generator.normal(size=(400, 3))
    ys = xs.sum(axis=1) + generator.normal(size=400)
    method = ResidualQuantiles(LinearRegression()).fit(xs, ys)
    quantiles = method.predict_quantiles(xs[:10], LEVELS)
    assert quantiles.shape == (10, 19)
    assert np.ptp(quantiles - method.predict(xs[:10])[:, None], axis=0) == pytest.approx(0, abs=1e-9)
    assert quantiles[0, [0, 18]] - method.predict(xs[:1]) == pytest.approx([-1.64, 1.64], abs=0.3)


def test_a_method_that_refuses_a_table_is_told_with_its_name(columns):
    class Refuses:
        def fit(self, columns, answers):
            raise ValueError("at most 2 columns.")

    table = SuiteTable("regression", "a/b", "what", "y")
    with pytest.raises(ValueError, match="the table a/b: at most 2 columns"):
        measure(table, Refuses(), columns, make_answers(columns, "regression"), 60, 0)
