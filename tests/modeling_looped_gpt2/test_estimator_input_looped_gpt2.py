from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import r2_score

from modeling_looped_gpt2 import (
    LoopedGPT2Config,
    LoopedGPT2ForInContextRegression,
)
from modeling_looped_gpt2.estimator_looped_gpt2 import InContextClassifier, InContextRegressor


ROOT = Path(__file__).parents[2]


WHOLE = [-300.0, 0.0, 1.0, 40.0, 800.0, 1.0]  # what every kind of number below can hold
KINDS = {
    **{name: np.array(WHOLE, dtype=name) for name in ("float16", "float32", "longdouble", "int16", ">f8", "object")},
    "list of integers": [int(value) for value in WHOLE],
    "decimals": [Decimal(value) for value in WHOLE],
    "nullable integers": pd.Series(WHOLE, dtype="Int64"),
    "nullable floats": pd.Series(WHOLE, dtype="Float64"),
    "pyarrow floats": pd.Series(WHOLE, dtype="float32[pyarrow]"),
    "pyarrow decimals": pd.Series(map(Decimal, WHOLE), dtype=pd.ArrowDtype(pa.decimal128(9, 2))),
    "pyarrow": pa.array(WHOLE),
    "bfloat16": torch.tensor(WHOLE, dtype=torch.bfloat16, requires_grad=True),
}


@pytest.mark.parametrize("kind", KINDS)
def test_numbers_of_every_kind_mean_the_same(kind, make_model, data):
    X, _, queries = data
    values, regressor = KINDS[kind], InContextRegressor(make_model())
    expected = regressor.fit(X, np.array(WHOLE)).predict(queries)
    assert np.ptp(expected) > 1
    np.testing.assert_array_equal(regressor.fit(X, values).predict(queries), expected)
    column = values.reshape(6, 1) if hasattr(values, "reshape") else pd.DataFrame({"x": values})
    expected = regressor.fit(np.array(WHOLE)[:, None], WHOLE).predict(np.array(WHOLE)[:, None])
    np.testing.assert_array_equal(regressor.fit(column, WHOLE).predict(column), expected)


def test_truth_values_are_numbers(make_model, data):
    X, truth, regressor = data[0] > 5, [True, False, True, True, False, False], InContextRegressor(make_model())
    expected = regressor.fit(X.astype(float), np.array(truth, dtype=float)).predict(X.astype(float))
    for values in (truth, np.array(truth), pd.Series(truth, dtype="boolean"), pd.Series(truth, dtype="bool[pyarrow]")):
        for rows in (X, pd.DataFrame(X, dtype="boolean"), pd.DataFrame(X, dtype="bool[pyarrow]")):
            np.testing.assert_array_equal(regressor.fit(rows, values).predict(rows), expected)


def test_tables_of_other_libraries_keep_their_names(make_model, data):
    X, y, queries = data
    columns = ["age", "bmi", "pressure"]
    frame, asked = (pd.DataFrame(rows, columns=columns) for rows in (X, queries))
    expected = InContextRegressor(make_model()).fit(frame, y).predict(asked)
    for make in (pa.Table.from_pandas, Dataset.from_pandas):
        regressor = InContextRegressor(make_model()).fit(make(frame), y)
        assert regressor.feature_names_in_.tolist() == columns
        np.testing.assert_array_equal(regressor.predict(make(asked)), expected)


@pytest.mark.parametrize("power", [-1060, -900, -40, 40, 900, 1010])
def test_no_size_of_numbers_loses_the_answer(power, make_model, data):
    X, y, queries = data
    expected = InContextRegressor(make_model()).fit(X, y).predict(queries)
    regressor = InContextRegressor(make_model()).fit(X, np.ldexp(y, power))
    np.testing.assert_allclose(np.ldexp(regressor.predict(queries), -power), expected, rtol=1e-2)  # subnormal: 6 bits
    regressor = InContextRegressor(make_model()).fit(np.ldexp(X, power), y)
    np.testing.assert_allclose(regressor.predict(np.ldexp(queries, power)), expected, rtol=1e-2)


def test_sums_beyond_the_range_of_numbers_are_no_obstacle(make_model):
    largest = np.finfo(float).max * np.repeat([[1.0, -1.0, 0.5]], 16, axis=0).ravel()  # partial sums of both signs
    y = largest[:16] / 16
    for X in (largest.reshape(16, 3), np.resize([largest[0], -largest[0]], (16, 3))):
        predictions = InContextRegressor(make_model(), random_state=0).fit(X, y).predict(X[:5])
        smaller = InContextRegressor(make_model(), random_state=0).fit(np.ldexp(X, -100), np.ldexp(y, -100))
        np.testing.assert_array_equal(np.ldexp(predictions, -100), smaller.predict(np.ldexp(X[:5], -100)))


def test_answers_beyond_the_range_of_numbers_are_refused(make_model, data):
    y = np.array([-1.0, 1.0, -1.0, 1.0, -1.0, 1.0]) * np.finfo(float).max
    model = make_model()
    torch.nn.init.constant_(model.read_out.bias, 10.0)
    with pytest.raises(ValueError, match=r"Predictions are beyond the range of float64.*divide y"):
        InContextRegressor(model).fit(data[0], y).predict(data[2])
    torch.nn.init.constant_(model.read_out.bias, float("nan"))
    with pytest.raises(ValueError, match="weights are not finite"):
        InContextRegressor(model).fit(*data[:2]).predict(data[2])


@pytest.mark.parametrize("constant", [0.0, 1e-6, 0.1, 3.0, -1e6, 1e300, 5e-324])
def test_a_constant_y_is_the_answer(constant, make_model, data):
    X, _, queries = data
    for n in (1, 2, 6):
        predictions = InContextRegressor(make_model()).fit(X[:n], np.full(n, constant)).predict(queries)
        np.testing.assert_array_equal(predictions, np.full(4, constant))


def test_a_constant_column_says_nothing(make_model, data):
    X, y, queries = data
    expected = InContextRegressor(make_model()).fit(X[:, :2], y).predict(queries[:, :2])
    for constant in (0.0, 0.1, 2023.0, -1e300, 5e-324):
        regressor = InContextRegressor(make_model(), y_std=2**0.5).fit(np.c_[X[:, :2], np.full(6, constant)], y)
        for asked in (constant, 0.0, 2030.0, -1e-300, 1e308):
            np.testing.assert_array_equal(regressor.predict(np.c_[queries[:, :2], np.full(4, asked)]), expected)


@pytest.fixture(scope="module")
def released():
    return LoopedGPT2ForInContextRegression.from_pretrained(ROOT / "model_cards" / "linear_regression")


NEARLY_CONSTANT = {
    "round-off": lambda generator: 2023 * (1 + 1e-15 * generator.normal(size=40)),
    "a billionth": lambda generator: 2023 * (1 + 1e-9 * generator.normal(size=40)),
    "a tenth of a thousandth": lambda generator: 2023 * (1 + 1e-4 * generator.normal(size=40)),
    "one row a little": lambda generator: np.r_[np.full(39, 2023.0), 2023.001],
    "one row": lambda generator: np.r_[2024.0, np.full(39, 2023.0)],
}


@pytest.mark.parametrize("name", NEARLY_CONSTANT)
def test_a_nearly_constant_column_destroys_no_answer(name, released):
    generator = np.random.default_rng(0)
    weights, X, queries = generator.normal(size=5), generator.normal(size=(40, 5)), generator.normal(size=(16, 5))
    regressor = InContextRegressor(released).fit(np.c_[X, NEARLY_CONSTANT[name](generator)], X @ weights)
    asked = np.repeat([2023.0, 2030.0, -1e9], 16)
    predictions = regressor.predict(np.c_[np.tile(queries, (3, 1)), asked]).reshape(3, 16)
    for answers in predictions:
        assert r2_score(queries @ weights, answers) > 0.98


def test_a_query_counts_as_at_most_five_deviations_away_and_beyond_twenty_as_nothing(make_model, data):
    X, y, _ = data
    regressor = InContextRegressor(make_model()).fit(X, y)
    rows = [X.mean(axis=0) + deviations * X.std(axis=0) for deviations in (4.9, 5.1, 19, 21, 1e200, 0)]
    near, far, farther, unlike, infinite, mean = regressor.predict(rows)
    assert near != far
    assert [farther, unlike, infinite] == pytest.approx([far, mean, mean], rel=1e-6)
    assert far != pytest.approx(mean, rel=1e-5)


TINY = {"n_embd": 8, "n_head": 2, "n_dims": 3, "n_positions": 8, "n_loops": 2}
any_number = st.floats(allow_nan=False, allow_infinity=False)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.data())
def test_finite_data_of_any_size_has_finite_answers(data):
    torch.manual_seed(0)
    model = LoopedGPT2ForInContextRegression(LoopedGPT2Config(**TINY))
    n, n_features = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 3))
    X, queries = (data.draw(arrays(float, (rows, n_features), elements=any_number)) for rows in (n, 4))
    # an answer may lie outside the examples: a sixteenth of the range is kept free for that
    y = data.draw(arrays(float, n, elements=any_number)) / 16
    predictions = InContextRegressor(model, random_state=0).fit(X, y).predict(queries)
    assert np.isfinite(predictions).all()
    if np.ptp(y / 2) == 0:
        np.testing.assert_array_equal(predictions, np.full(4, y[0]))


JUNK = [float("inf"), 1j, [1.0], {"a": 1}, 10**400, pd.Timestamp(0)]
NO_NUMBERS = ["a", "", pd.NA, pd.NaT]  # but levels or missing values in a frame
MISSING = [float("nan"), None]


@pytest.mark.parametrize("junk", [*JUNK, *NO_NUMBERS, *MISSING], ids=lambda junk: str(junk)[:20])
@pytest.mark.parametrize("place", ["X", "y", "query", "frame"])
def test_one_value_that_is_no_number_is_refused(place, junk, make_model, data):
    X, y, queries = (values.astype(object) for values in data)
    regressor = InContextRegressor(make_model())
    X[1][1] = queries[1][1] = junk if place in ("X", "query") else X[1][1]
    frame = pd.DataFrame({"age": X[:, 0], "city": [*X[:5, 1], junk]})
    calls = {
        "X": lambda: regressor.fit(X, y).predict(X),
        "y": lambda: regressor.fit(data[0], [*y[:5], junk]),
        "query": lambda: regressor.fit(*data[:2]).predict(queries),
        "frame": lambda: regressor.fit(frame, y).predict(frame),
    }
    allowed = {"X": MISSING, "y": [], "query": MISSING, "frame": [*MISSING, *NO_NUMBERS]}[place]
    if any(junk is each for each in allowed):
        assert np.isfinite(calls[place]()).all()
        return
    # an element of an array that is no number at all is a TypeError by scikit-learn's own rules
    with pytest.raises((ValueError, TypeError)) as error:
        calls[place]()
    assert str(error.value)
    if place == "frame":
        assert error.type is ValueError
        assert "columns ['city']" in str(error.value)


@pytest.mark.parametrize("missing", [None, float("nan"), pd.NA, pd.NaT], ids=str)
@pytest.mark.parametrize("make", [list, pd.Series, lambda values: np.array(values, dtype=object)])
@pytest.mark.parametrize("estimator", [InContextClassifier, InContextRegressor])
def test_a_missing_y_is_refused(estimator, make, missing, make_model):
    with pytest.raises(ValueError, match="Input y contains NaN or other missing values, 2 of them: leave those rows"):
        estimator(make_model()).fit(np.eye(4), make([1, missing, 2, missing]))
