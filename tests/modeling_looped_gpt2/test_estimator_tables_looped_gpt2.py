"""The estimators on tables as people have them, for models of points one after another, of sets and of cells."""

import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.multiclass import OneVsRestClassifier
from sklearn.utils.estimator_checks import check_estimator

from modeling_looped_gpt2 import LoopedGPT2ForInContextClassification, LoopedGPT2ForInContextRegression
from modeling_looped_gpt2.estimator_looped_gpt2 import InContextClassifier, InContextRegressor
from modeling_looped_gpt2.estimator_views_looped_gpt2 import CellView, RowView


ORDERS = {
    "causal": {},
    "set": {"example_order": "set"},
    "cells": {"example_order": "cells", "position_embedding": "none", "n_layer": 2},
}
CLASSES = {
    InContextClassifier: LoopedGPT2ForInContextClassification,
    InContextRegressor: LoopedGPT2ForInContextRegression,
}


@pytest.fixture
def make(make_config):
    """An estimator with a model of an order of examples; options of the model by their names, others of itself."""

    def make(estimator, order, **options):
        torch.manual_seed(0)
        fields = {
            name: options.pop(name)
            for name in ("n_quantiles", "n_dims", "num_labels", "n_positions")
            if name in options
        }
        sizes = {"n_embd": 16, "n_head": 2, "n_dims": 8, "n_positions": 41, "n_loops": 3, "num_labels": 4}
        model = CLASSES[estimator](make_config(**sizes | ORDERS[order] | fields)).eval()
        return estimator(model, random_state=0, **options)

    return make


@pytest.fixture
def patients():
    """A frame of twelve rows with gaps, its numbers, a number to predict and three classes."""
    generator = np.random.default_rng(0)
    age, ward = generator.normal(50, 9, size=12), np.resize(["a", "b", "c", "b"], 12)
    smokes = generator.random(12) < 0.5
    frame = pd.DataFrame(
        {"age": age, "ward": ward, "smokes": pd.array(smokes, dtype="boolean"), "sex": ["f", "m"] * 6}
    )
    frame.loc[3, "age"], frame.loc[5, "ward"], frame.loc[7, "smokes"] = None, None, pd.NA
    levels = [np.where(frame["ward"].isna(), np.nan, frame["ward"] == level) for level in "abc"]
    columns = [frame["age"], *levels, frame["smokes"].astype("Float64"), frame["sex"] == "m"]
    numbers = np.stack([np.asarray(column, dtype=float) for column in columns], axis=1)
    return frame, numbers, age / 10 + smokes, ward


def answer(estimator, X):
    return estimator.predict_proba(X) if hasattr(estimator, "predict_proba") else estimator.predict(X)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("estimator", CLASSES)
def test_a_frame_means_its_numbers(estimator, order, make, patients):
    frame, numbers, y, classes = patients
    target = classes if estimator is InContextClassifier else y
    fitted = make(estimator, order).fit(frame, target)
    assert fitted.columns_ == ["age", "ward=a", "ward=b", "ward=c", "smokes", "sex=m"]
    expected = answer(make(estimator, order).fit(numbers, target), numbers)
    np.testing.assert_array_equal(answer(fitted, frame), expected)
    assert np.ptp(expected, axis=0).min() > 1e-5
    asked = frame.astype({"ward": "category", "sex": "category", "smokes": object})
    np.testing.assert_array_equal(answer(fitted, asked), expected)
    unknown = fitted.predict(frame.assign(ward="z"))
    np.testing.assert_array_equal(unknown, fitted.predict(frame.assign(ward=None)))
    again = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_allclose(answer(again, frame), expected, rtol=1e-5)


def test_cells_are_shown_as_they_are(make, patients):
    _, numbers, y, _ = patients
    regressor = make(InContextRegressor, "cells").fit(numbers[:9], y[:9])
    deviations = (numbers - np.nanmean(numbers[:9], axis=0)) / np.nanstd(numbers[:9], axis=0)
    xs = torch.as_tensor(deviations, dtype=torch.float32)
    assert xs.isnan().sum() == 5
    ys = torch.as_tensor((y[:9] - y[:9].mean()) / y[:9].std(), dtype=torch.float32)
    expected = regressor.model(xs[None], ys[None]).predictions[0].detach() * y[:9].std() + y[:9].mean()
    np.testing.assert_allclose(regressor.predict(numbers[9:]), expected, rtol=1e-5)


def test_a_missing_value_is_the_mean_for_models_of_points(make, patients):
    _, numbers, y, _ = patients
    regressor = make(InContextRegressor, "causal").fit(numbers, y)
    at_mean = np.where(np.isnan(numbers), np.nanmean(numbers, axis=0), numbers)
    np.testing.assert_allclose(regressor.predict(numbers), regressor.predict(at_mean), rtol=1e-5)


@pytest.mark.parametrize("order", ["set", "cells"])
def test_the_order_of_rows_and_of_columns_changes_nothing(order, make, patients):
    frame, _, _, classes = patients
    expected = answer(make(InContextClassifier, order).fit(frame, classes), frame)
    shuffle = np.random.default_rng(0).permutation(12)
    found = answer(make(InContextClassifier, order).fit(frame.iloc[shuffle], classes[shuffle]), frame)
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    turned = frame.drop(columns="ward")[["sex", "smokes", "age"]]
    back = turned[turned.columns[::-1]]
    expected = answer(make(InContextClassifier, order).fit(turned, classes), turned)
    found = answer(make(InContextClassifier, order).fit(back, classes), back)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("estimator", CLASSES)
def test_of_too_many_columns_some_are_kept(estimator, order, make, monkeypatch):
    for view in (RowView, CellView):
        monkeypatch.setattr(view, "max_columns", 3)
    generator = np.random.default_rng(0)
    X, y = generator.normal(size=(20, 9)), np.arange(20) % 2
    X[:, [2, 5, 8]] += 3 * y[:, None]
    fitted = make(estimator, order, n_dims=3).fit(X, y)
    assert fitted.columns_ == ["x2", "x5", "x8"]
    few = make(estimator, order, n_dims=3).fit(X[:, [2, 5, 8]], y)
    np.testing.assert_array_equal(answer(fitted, X), answer(few, X[:, [2, 5, 8]]))


@pytest.mark.parametrize("order", ORDERS)
def test_more_rows_than_a_context_are_dealt_and_averaged(order, make):
    generator = np.random.default_rng(0)
    X, y = generator.normal(size=(30, 2)), np.arange(30) % 3
    classifier = make(InContextClassifier, order, max_examples=8).fit(X, y)
    assert (classifier.n_contexts_, classifier.n_examples_) == (4, 8)
    found = classifier.predict_proba(X[:1])[0]
    rows = np.resize(np.random.RandomState(0).permutation(30), (4, 8))
    total = 0
    for part in rows:
        model = make(InContextClassifier, order).model
        xs = classifier._view.show(np.concatenate((X[part], X[:1])))[None]
        for first in range(3):
            logits = model(xs, torch.as_tensor((y[part] + first) % 3)[None]).logits[0, -1, :3]
            total = total + logits.softmax(dim=-1).roll(-first).detach().numpy()
    np.testing.assert_allclose(found, total / 12, rtol=1e-4)
    assert make(InContextClassifier, order, max_examples=8, max_contexts=2).fit(X, y).n_contexts_ == 2


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("estimator", CLASSES)
def test_loops_end_once_answers_have_settled(estimator, order, make):
    generator = np.random.default_rng(0)
    X, y = generator.normal(size=(20, 3)), np.arange(20) % 2
    counts = {}
    for tolerance in (1e3, 1e-9):
        fitted = make(estimator, order, n_loops=7, exit_tolerance=tolerance).fit(X, y)
        counts[tolerance] = fitted.n_loops_
        same = make(estimator, order, n_loops=fitted.n_loops_).fit(X, y)
        np.testing.assert_array_equal(answer(fitted, X), answer(same, X))
    assert counts == {1e3: counts[1e3], 1e-9: 7}
    assert counts[1e3] <= 2
    assert make(estimator, order, exit_tolerance=1e3).fit(X, y).n_loops_ == counts[1e3]
    with pytest.raises(ValueError, match="`exit_tolerance` must be"):
        make(estimator, order, exit_tolerance=-1.0).fit(X, y)
    assert make(estimator, order, exit_tolerance=0.1).fit(X[:1], y[:1]).predict(X[:1]) == y[:1]  # nothing to ask


@pytest.mark.parametrize("order", ORDERS)
def test_quantiles_are_those_of_the_model_in_units_of_y(order, make, patients):
    frame, _, y, _ = patients
    regressor = make(InContextRegressor, order, n_quantiles=5).fit(frame, 3 * y + 7)
    levels = (np.arange(5) + 0.5) / 5
    quantiles = regressor.predict_quantiles(frame, levels)
    assert (np.diff(quantiles, axis=1) > 0).all()
    mean, std = regressor.predict(frame, return_std=True)
    np.testing.assert_allclose(mean, regressor.predict(frame), rtol=1e-6)
    np.testing.assert_allclose(mean, quantiles.mean(axis=1))
    np.testing.assert_allclose(std, quantiles.std(axis=1))
    asked = [0, 0.05, 0.3, 0.42, 0.5, 0.77, 1]
    expected = [np.interp(asked, levels, row) for row in quantiles]
    np.testing.assert_allclose(regressor.predict_quantiles(frame, asked), expected)
    scaled = make(InContextRegressor, order, n_quantiles=5).fit(frame, y)
    np.testing.assert_allclose(scaled.predict_quantiles(frame, levels) * 3 + 7, quantiles, rtol=1e-5)
    np.testing.assert_allclose(scaled.predict(frame, return_std=True)[1] * 3, std, rtol=1e-5)


def test_quantiles_of_contexts_are_averaged_and_of_a_constant_are_it(make, patients):
    frame, _, y, _ = patients
    parts = make(InContextRegressor, "cells", n_quantiles=4, max_examples=6, y_std=2.0).fit(frame, y)
    assert parts.n_contexts_ == 2
    mean, std = parts.predict(frame, return_std=True)
    np.testing.assert_allclose(mean, parts.predict(frame), rtol=1e-6)
    constant = make(InContextRegressor, "cells", n_quantiles=4).fit(frame, np.full(12, 0.1))
    np.testing.assert_array_equal(constant.predict_quantiles(frame), np.full((12, 3), 0.1))
    mean, std = constant.predict(frame, return_std=True)
    np.testing.assert_array_equal(mean, np.full(12, 0.1))
    np.testing.assert_array_equal(std, np.zeros(12))
    single = make(InContextRegressor, "cells", n_quantiles=1).fit(frame, y)
    np.testing.assert_allclose(
        single.predict_quantiles(frame, [0.1, 0.9]), single.predict(frame)[:, None].repeat(2, 1)
    )


def test_bad_levels_and_models_without_quantiles_are_refused(make, patients):
    frame, _, y, _ = patients
    regressor = make(InContextRegressor, "cells", n_quantiles=2).fit(frame, y)
    for levels in ([1.5], [-0.1, 0.5], [[0.5]], 0.5, [float("nan")], ["0.5"], None):
        with pytest.raises(ValueError, match=r"`levels` must be a list of numbers in 0 \.\.\. 1, got"):
            regressor.predict_quantiles(frame, levels)
    without = make(InContextRegressor, "cells").fit(frame, y)
    for call in (lambda: without.predict_quantiles(frame), lambda: without.predict(frame, return_std=True)):
        with pytest.raises(ValueError, match="needs a model with quantiles, got one of `n_quantiles` = 0"):
            call()


LABELS = {
    "text with blanks": ["", " ", "a b", " a b"],
    "truth values": [True, False],
    "nullable truth values": pd.array([True, False], dtype="boolean"),
    "pyarrow truth values": pd.array([True, False], dtype="bool[pyarrow]"),
    "integers": [-3, 0, 7, 10**12],
    "nullable integers": pd.array([5, 3], dtype="Int64"),
    "whole floats": [1.0, 2.0],
    "objects": np.array(["yes", "no"], dtype=object),
    "text of pandas": pd.array(["yes", "no"], dtype="str"),
    "text of pyarrow": pd.array(["yes", "no"], dtype="string[pyarrow]"),
    "categories": pd.Categorical(["yes", "no"], categories=["no", "maybe", "yes"]),
    "numbers as categories": pd.Categorical([3, 1]),
}


@pytest.mark.parametrize("kind", LABELS)
def test_labels_of_every_kind_come_back(kind, make):
    labels = np.asarray(LABELS[kind])
    classes = np.arange(12) % len(labels)
    X = np.random.default_rng(0).normal(size=(12, 2))
    y = pd.Series(LABELS[kind]).iloc[classes]
    fitted = make(InContextClassifier, "cells").fit(X, y)
    assert sorted(labels) == fitted.classes_.tolist()
    rank = np.argsort(np.argsort(labels))
    expected = make(InContextClassifier, "cells").fit(X, rank[classes])
    np.testing.assert_array_equal(fitted.predict_proba(X), expected.predict_proba(X))
    assert fitted.predict(X).tolist() == fitted.classes_[expected.predict(X)].tolist()


def test_labels_of_two_kinds_are_refused(make):
    for y in (["a", 1, "b"], pd.Series(["a", 1, "b"]), np.array(["a", 1, "b"], dtype=object)):
        with pytest.raises(ValueError, match=r"y must be text or numbers, got both: convert it, e.g. by `y.astype"):
            make(InContextClassifier, "cells").fit(np.eye(3), y)


@pytest.mark.parametrize("order", ORDERS)
def test_a_single_class_is_certain(order, make, patients):
    frame, *_ = patients
    fitted = make(InContextClassifier, order).fit(frame, ["only one"] * 12)
    np.testing.assert_array_equal(fitted.predict_proba(frame), np.ones((12, 1)))
    assert set(pickle.loads(pickle.dumps(fitted)).predict(frame)) == {"only one"}
    with pytest.raises(ValueError, match="feature names"):
        fitted.predict(frame[["age"]])


def test_more_classes_than_the_model_has_are_for_one_against_the_rest(make):
    X, y = np.random.default_rng(0).normal(size=(15, 2)), np.arange(15) % 5
    with pytest.raises(ValueError, match=r"`num_labels` = 4 classes .* got 5 classes: merge .*OneVsRestClassifier"):
        make(InContextClassifier, "cells").fit(X, y)
    probabilities = OneVsRestClassifier(make(InContextClassifier, "cells")).fit(X, y).predict_proba(X)
    assert probabilities.shape == (15, 5)


@pytest.mark.parametrize("estimator", CLASSES)
def test_weights_are_refused_in_a_sentence(estimator, make):
    with pytest.raises(TypeError, match=r"`fit` takes X and y alone, got `sample_weight`. .*sklearn.utils.resample"):
        make(estimator, "cells").fit(np.eye(3), [0, 1, 0], sample_weight=np.ones(3))


def test_columns_are_told_by_their_names(make, patients):
    frame, numbers, y, _ = patients
    regressor = make(InContextRegressor, "cells").fit(frame, y)
    with pytest.raises(ValueError, match="feature names"):
        regressor.predict(frame[frame.columns[::-1]])
    message = r"X must be a data frame .* has categories in the columns \['ward', 'sex'\], got an array"
    with pytest.raises(ValueError, match=message), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn's, of names that are not there
        regressor.predict(numbers[:, :4])
    expected = make(InContextRegressor, "cells").fit(numbers, y).predict(numbers)
    for names in (["a", "b", "a", "a.1", "a", "a"], [0, 1, 0, "0", 2, 3]):
        twins = pd.DataFrame(numbers, columns=names)
        fitted = make(InContextRegressor, "cells").fit(twins, y)
        np.testing.assert_array_equal(fitted.predict(twins), expected)
        assert len(set(fitted.columns_)) == 6


class OfPolars:
    """A frame of another library, with the methods that polars has."""

    def __init__(self, frame):
        self.columns, self.to_pandas, self.to_numpy = list(frame.columns), lambda: frame, frame.to_numpy


def test_frames_of_other_libraries_are_read_as_those_of_pandas(make, patients):
    frame, _, y, _ = patients
    expected = make(InContextRegressor, "cells").fit(frame, y).predict(frame)
    fitted = make(InContextRegressor, "cells").fit(OfPolars(frame), y)
    assert fitted.feature_names_in_.tolist() == list(frame.columns)
    np.testing.assert_array_equal(fitted.predict(OfPolars(frame)), expected)


def _table(**columns):
    return pd.DataFrame({"size": [1.0, 2.0, 3.0, 4.0], **columns})


HOSTILE = {
    "one row": pd.DataFrame({"age": [3], "ward": ["a"]}),
    "one column that is constant": pd.DataFrame({"age": [3.0] * 4}),
    "constant columns": _table(age=3, ward="a"),
    "nothing is known": pd.DataFrame(
        {"age": [np.nan] * 4, "ward": [None] * 4, "sex": pd.array([None] * 4, dtype="str")}
    ),
    "a column without values": _table(age=np.nan, ward=None),
    "huge and tiny numbers": _table(huge=[1e308, -1e308, 0, 1], tiny=[5e-324, 0, 1e-300, 0]),
    "an array with gaps": np.array([[1, np.nan], [np.nan, np.nan], [3, 2], [4, np.nan]]),
    "columns without names": pd.DataFrame([[1, "a"], [2, "b"], [3, "a"], [4, None]]),
    "another index": _table(ward=["a", "b", "b", None]).set_index(pd.Index([7, 7, 3, 1])),
}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("estimator", CLASSES)
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_tables_are_answered(name, estimator, order, make):
    X = HOSTILE[name]
    y = np.arange(len(X)) % 2
    answers = answer(make(estimator, order).fit(X, y), X)
    assert len(answers) == len(X)
    assert np.isfinite(answers).all()
    if estimator is InContextClassifier:
        np.testing.assert_allclose(answers.sum(axis=1), 1)
    if name in ("one column that is constant", "nothing is known"):
        np.testing.assert_allclose(answers, answers[:1].repeat(4, axis=0), rtol=1e-5)


@pytest.mark.parametrize(("order", "n_kept"), [("set", 100), ("cells", 40)])
def test_ten_thousand_columns_are_answered(order, n_kept, make):
    X, y = np.random.default_rng(0).normal(size=(9, 10_000)), np.arange(9) % 2
    classifier = make(InContextClassifier, order).fit(X, y)
    assert len(classifier.columns_) == n_kept
    frame = pd.DataFrame(X).rename(columns="x{}".format)
    np.testing.assert_array_equal(
        make(InContextClassifier, order).fit(frame, y).predict_proba(frame), classifier.predict_proba(X)
    )


@pytest.mark.parametrize("order", ORDERS)
def test_what_never_varies_changes_nothing(order, make, patients):
    frame, _, y, _ = patients
    more = frame.assign(year=2020, empty=None, place="here", gone=np.nan)
    expected = make(InContextRegressor, order).fit(frame, y).predict(frame)
    fitted = make(InContextRegressor, order).fit(more, y)
    np.testing.assert_array_equal(fitted.predict(more), expected)
    np.testing.assert_array_equal(fitted.predict(more.assign(year=1e9, empty="x", place=3, gone=np.inf)), expected)


INFINITE = {"frame": _table(age=[1, 2, 3, np.inf]), "array": np.array([[1.0], [2.0], [3.0], [-np.inf]])}


@pytest.mark.parametrize("estimator", CLASSES)
@pytest.mark.parametrize("kind", INFINITE)
def test_infinity_is_refused(kind, estimator, make):
    X = INFINITE[kind]
    finite = X.replace(np.inf, 9.0) if kind == "frame" else np.abs(X.clip(-9))
    fitted = make(estimator, "cells").fit(finite, [0, 1, 0, 1])
    message = r"infinity in the columns \['age'\]" if kind == "frame" else "Input X contains infinity"
    for call in (lambda: fitted.predict(X), lambda: make(estimator, "cells").fit(X, [0, 1, 0, 1])):
        with pytest.raises(ValueError, match=message):
            call()


@pytest.mark.parametrize("estimator", CLASSES)
def test_scikit_learn_accepts_models_of_tables(estimator, make, tmp_path):
    make(estimator, "cells").model.double().save_pretrained(tmp_path)
    results = check_estimator(estimator(str(tmp_path)), on_skip=None)
    assert sum(result["status"] == "passed" for result in results) > 40
