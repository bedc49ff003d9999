"""Data frames as people have them, and what of them a model is shown."""

from datetime import date, time, timedelta
from decimal import Decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from modeling_looped_gpt2.estimator_columns_looped_gpt2 import choose_columns, find_columns, read_columns


NAN = float("nan")


def read(values, asked=None):
    """Names and numbers of the column c, which is found in `values` and read from `asked`."""
    frame = pd.DataFrame({"c": values})
    columns = find_columns(frame)
    numbers = read_columns(frame if asked is None else pd.DataFrame({"c": asked}), columns)
    return [column.name for column in columns], numbers.T.tolist()


def same(found, expected):
    np.testing.assert_array_equal(found, expected)  # NaN is NaN here


NUMBERS = {
    "integers": [3, 1, 2],
    "small integers": np.array([3, 1, 2], dtype=np.int8),
    "half floats": np.array([3, 1, 2], dtype=np.float16),
    "wide floats": np.array([3, 1, 2], dtype=np.longdouble),
    "nullable integers": pd.array([3, 1, 2], dtype="Int64"),
    "nullable floats": pd.array([3, 1, 2], dtype="Float32"),
    "pyarrow integers": pd.array([3, 1, 2], dtype="int32[pyarrow]"),
    "pyarrow decimals": pd.array([Decimal(3), Decimal(1), Decimal(2)], dtype=pd.ArrowDtype(pa.decimal128(9, 2))),
    "decimals": [Decimal(3), Decimal(1), Decimal(2)],
    "sparse": pd.arrays.SparseArray([3.0, 1.0, 2.0]),
    "objects": np.array([3, 1.0, np.float32(2)], dtype=object),
}


@pytest.mark.parametrize("kind", NUMBERS)
def test_numbers_stay_what_they_are(kind):
    names, numbers = read(NUMBERS[kind])
    assert names == ["c"]
    same(numbers, [[3, 1, 2]])


MISSING = {
    "floats": [1.0, NAN],
    "objects": np.array([1, None], dtype=object),
    "objects beside NaT": np.array([1, pd.NaT], dtype=object),
    "nullable integers": pd.array([1, None], dtype="Int64"),
    "nullable floats": pd.array([1, None], dtype="Float64"),
    "nullable truth values": pd.array([True, None], dtype="boolean"),
    "pyarrow floats": pd.array([1, None], dtype="float32[pyarrow]"),
    "pyarrow truth values": pd.array([True, None], dtype="bool[pyarrow]"),
    "truth values as objects": np.array([True, pd.NA], dtype=object),
}


@pytest.mark.parametrize("kind", MISSING)
def test_what_is_missing_is_nan(kind):
    same(read(MISSING[kind])[1], [[1, NAN]])


@pytest.mark.parametrize("dtype", [object, "str", "string[pyarrow]", "category", pd.ArrowDtype(pa.string())])
def test_text_is_a_category_whatever_holds_it(dtype):
    values = pd.Series(["b", "a", None, "b"], dtype=dtype)
    names, numbers = read(values)
    assert names == ["c=b"]
    same(numbers, [[1, 0, NAN, 1]])
    names, numbers = read(pd.Series(["b", "", "a", None, " "], dtype=dtype))
    assert names == ["c=", "c= ", "c=a", "c=b"]
    same(numbers, np.array([[0, 0, 0, 1], [1, 0, 0, 0], [0, 0, 1, 0], [NAN] * 4, [0, 1, 0, 0]]).T)


def test_numbers_in_text_or_in_categories_are_levels():
    for values in (["1", "10"], pd.Categorical([1, 10]), pd.Categorical([True, False])):
        assert read(values)[1][0] in ([0, 1], [1, 0])


def test_levels_that_are_not_known_are_missing():
    for levels in (["a", "b"], ["a", "b", "c"], 2 * list(map(str, range(31)))):
        names, numbers = read(levels, asked=[levels[0], "z", None, 3])
        same(np.isnan(numbers), [[False, True, True, True]] * len(names))


def test_up_to_thirty_levels_have_a_column_each_and_more_a_code_by_how_frequent_they_are():
    assert len(read([f"level {n}" for n in range(30)])[0]) == 30
    counts = range(1, 32)
    values = [f"level {n}" for n in counts for _ in range(n)]
    names, numbers = read(values)
    assert names == ["c"]
    same(numbers, [[31 - n for n in counts for _ in range(n)]])
    shuffled = np.random.default_rng(0).permutation(values)
    same(read(shuffled, asked=values)[1], numbers)


def test_ordered_categories_are_ranks_of_all_that_are_known():
    values = pd.Categorical(["low", "high", None], categories=["low", "middle", "high"], ordered=True)
    assert read(values)[0] == ["c"]
    same(read(values)[1], [[0, 2, NAN]])
    same(read(values, asked=["middle"])[1], [[1]])
    same(read(pd.cut([1.0, 5.0, 9.0], 3))[1], [[0, 1, 2]])


REFUSED = {
    "dates": (pd.to_datetime(["2020-01-01", "2021-01-01"]), "dates or times in the columns"),
    "dates of a zone": (pd.to_datetime(["2020-01-01", "2021-01-01"], utc=True), "dates or times"),
    "dates of pyarrow": (pd.array([date(2020, 1, 1)] * 2, dtype=pd.ArrowDtype(pa.date32())), "dates or times"),
    "times of pyarrow": (pd.array([time(1), None], dtype=pd.ArrowDtype(pa.time64("us"))), "dates or times"),
    "dates as objects": ([date(2020, 1, 1), None], "dates or times"),
    "periods": (pd.period_range("2020", periods=2, freq="M"), "dates or times"),
    "durations": (pd.to_timedelta([1, 2]), "dates or times"),
    "durations as objects": (np.array([timedelta(1), None], dtype=object), "dates or times"),
    "lists": ([[1], [2]], "values of other kinds"),
    "complex numbers": ([1j, 2.0], "values of other kinds"),
    "free text": ([f"person {i}" for i in range(40)], "free text, nearly as many different values as rows,"),
    "numbers beside text": ([*range(39), "?"], "numbers beside text"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_neither_number_nor_category_is_refused_by_name(kind):
    values, message = REFUSED[kind]
    frame = pd.DataFrame({"age": range(len(values)), "c": values, "d": values})
    with pytest.raises(
        ValueError, match=f"X must be numbers or categories, got {message}.*\\['c', 'd'\\]: .*"
    ) as error:
        find_columns(frame)
    assert "\n" not in str(error.value)


def test_few_texts_and_texts_that_recur_are_categories():
    assert len(read([f"person {i}" for i in range(30)])[0]) == 30
    assert read([f"street {i // 2}" for i in range(80)])[0] == ["c"]
    assert read(["yes", 1, True, None, "no"])[0] == ["c=1", "c=no", "c=yes"]  # 1 is True


WRONG = {
    "text": ["a"],
    "dates": pd.to_datetime(["2020-01-01"]),
    "lists": [[1]],
    "durations": pd.to_timedelta([1]),
    "a number beyond float64": [10**400],
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_column_of_numbers_stays_one(kind):
    with pytest.raises(ValueError, match=r"X must hold what `fit` found in the columns \['c'\], numbers"):
        read([1.0, 2.0], asked=WRONG[kind])
    if kind == "lists":
        with pytest.raises(ValueError, match=r"X must hold what `fit` found in the columns \['c'\], numbers"):
            read(["a", "b"], asked=WRONG[kind])


def test_infinity_is_refused_by_name():
    for infinity in (np.inf, -np.inf, np.longdouble("1e400")):
        with pytest.raises(ValueError, match=r"X must be finite or missing, got infinity in the columns \['c'\]"):
            read([1.0, infinity])


def test_columns_of_one_name_are_told_apart_by_place():
    frame = pd.DataFrame([[1, 2.0, "x"], [3, 4.0, "y"]], columns=["a", "a", "a"])
    columns = find_columns(frame)
    assert [column.name for column in columns] == ["a", "a", "a=y"]
    same(read_columns(frame, columns), [[1, 2, 0], [3, 4, 1]])


def test_an_array_has_no_categories():
    array = np.array([[1.0, NAN], [2.0, 3.0]])
    assert [column.name for column in find_columns(array)] == ["x0", "x1"]
    same(read_columns(array, find_columns(array)), array)
    columns = find_columns(pd.DataFrame({"a": [1, 2], "c": ["x", "y"]}))
    with pytest.raises(ValueError, match=r"X must be a data frame .* categories in the columns \['c'\], got an array"):
        read_columns(array, columns)


def one_number(y):
    y = y - y.mean()
    return (y / np.sqrt((y**2).sum()))[:, None]


def classes(y):
    found, counts = np.unique(y, return_counts=True)
    return (y[:, None] == found) / counts**0.5


@pytest.mark.parametrize("power", [-900, 0, 900])
def test_columns_nearest_to_a_number_are_those_of_the_largest_correlation(power):
    generator = np.random.default_rng(0)
    numbers, y = generator.normal(size=(30, 12)), generator.normal(size=30)
    numbers[:, 7] += y
    correlations = [abs(np.corrcoef(column, y)[0, 1]) for column in numbers.T]
    for limit in (1, 3, 11):
        expected = np.sort(np.argsort(correlations)[-limit:])
        same(choose_columns(np.ldexp(numbers, power), one_number(y), limit), expected)
    same(choose_columns(numbers, one_number(y), 12), np.arange(12))


def test_columns_nearest_to_classes_are_those_whose_means_differ_most():
    generator = np.random.default_rng(0)
    numbers, y = generator.normal(size=(30, 12)), generator.integers(3, size=30)
    shares = []
    for column in numbers.T:
        between = sum((y == k).sum() * (column[y == k].mean() - column.mean()) ** 2 for k in range(3))
        shares.append(between / ((column - column.mean()) ** 2).sum())
    for limit in (1, 3, 11):
        same(choose_columns(numbers, classes(y), limit), np.sort(np.argsort(shares)[-limit:]))


def test_a_missing_value_says_nothing_about_a_column():
    generator = np.random.default_rng(0)
    y = generator.normal(size=40)
    numbers = np.stack([y, y, generator.normal(size=40)], axis=1)
    numbers[:30, 0] = NAN
    same(choose_columns(numbers, one_number(y), 1), [1])
    same(choose_columns(numbers, one_number(y), 2), [0, 1])


def test_columns_that_never_vary_are_left_out_and_equal_ones_taken_as_they_come():
    y = np.arange(4.0)
    constant, gaps, empty = np.full(4, 7.0), np.array([1, NAN, 1, 1]), np.full(4, NAN)
    numbers = np.stack([constant, y, empty, gaps, y, y], axis=1)
    same(choose_columns(numbers, one_number(y), 9), [1, 3, 4, 5])
    same(choose_columns(numbers, one_number(y), 2), [1, 4])
    for column in (constant, empty):
        same(choose_columns(np.stack([column, column], axis=1), one_number(y), 9), [0])
