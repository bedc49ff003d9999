"""Results are computed once, written as they come, and computed again where a table has changed."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.dummy import DummyRegressor

from scripts.common.output_folder import OutputError
from scripts.suite import results
from scripts.suite.results import RESULTS_FILE, Results
from scripts.suite.tables import SuiteTable


TABLE = SuiteTable("regression", "a/b", "how much", "y", {"id": "number of the row"})
COLUMNS, ANSWERS = pd.DataFrame({"x": np.arange(80.0)}), np.arange(80.0)


@pytest.fixture
def calls(monkeypatch):
    """The methods that are measured."""
    calls = []

    def measure(table, method, columns, answers, n_train, number):
        calls.append((table.name, method.constant, n_train, number))
        if len(calls) == 7:
            raise KeyboardInterrupt
        return {"r2": number / 10}

    monkeypatch.setattr(results, "measure", measure)
    return calls


def make_results(folder, *constants, **settings):
    methods = {f"method {value}": DummyRegressor(strategy="constant", constant=value) for value in constants}
    return Results(folder, {"regression": methods}, settings or {"version": "1"})


def test_what_is_there_is_not_computed_again(calls, tmp_path):
    first = make_results(tmp_path, 1)
    assert first.n_missing(TABLE, 20) == 5
    assert first.fill(TABLE, COLUMNS, ANSWERS, 20) == 5
    assert calls == [("a/b", 1, 20, number) for number in range(5)]
    assert first.means(TABLE, 20) == {"method 1": {"r2": pytest.approx(0.2)}}
    again = make_results(tmp_path, 1)
    assert again.fill(TABLE, COLUMNS, ANSWERS, 20) == 0
    assert again.means(TABLE, 20) == first.means(TABLE, 20)
    assert len(calls) == 5
    assert again.n_missing(TABLE, 30) == 5
    assert again.n_missing(replace(TABLE, question="other words", left_out={"id": "another reason"}), 20) == 0
    assert again.n_missing(replace(TABLE, left_out={}), 20) == 5


def test_an_interrupted_call_goes_on_with_what_was_written(calls, tmp_path):
    other = replace(TABLE, name="c/d")
    with pytest.raises(KeyboardInterrupt):
        for table in (TABLE, other):
            make_results(tmp_path, 1).fill(table, COLUMNS, ANSWERS, 20)
    assert list(json.loads((tmp_path / RESULTS_FILE).read_text())["tables"]) == ["a/b"]
    assert make_results(tmp_path, 1).n_missing(TABLE, 20) == 0
    assert make_results(tmp_path, 1).fill(other, COLUMNS, ANSWERS, 20) == 5


def test_a_method_more_is_computed_beside_those_that_are_there(calls, tmp_path):
    make_results(tmp_path, 1).fill(TABLE, COLUMNS, ANSWERS, 20)
    both = make_results(tmp_path, 1, 2)
    assert both.n_missing(TABLE, 20) == 5
    assert both.n_missing(replace(TABLE, kind="classification", name="c/d"), 20) == 0


def test_results_of_other_settings_are_not_mixed(calls, tmp_path):
    make_results(tmp_path, 1)
    with pytest.raises(OutputError, match="results of other settings \\(version 1 -> 2\\)"):
        make_results(tmp_path, 1, version="2")
