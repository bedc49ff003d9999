import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures
from sklearn.utils.estimator_checks import check_estimator

from modeling_looped_gpt2 import LoopedGPT2ForInContextClassification
from modeling_looped_gpt2.estimator_looped_gpt2 import InContextClassifier, InContextRegressor


def test_scikit_learn_accepts_it(make_model, tmp_path):
    make_model(n_dims=20, n_positions=41, n_loops=2).save_pretrained(tmp_path)
    results = check_estimator(InContextRegressor(str(tmp_path)), on_skip=None)
    assert sum(result["status"] == "passed" for result in results) > 40


@pytest.fixture
def data():
    generator = np.random.default_rng(0)
    X = 5 + 3 * generator.normal(size=(6, 3))
    return X, 100 + X @ [1.0, -2.0, 0.5], 5 + 3 * generator.normal(size=(4, 3))


def test_predictions_are_those_of_the_model_on_standardised_prompts(make_model, data):
    model, (X, y, queries) = make_model(), data
    predictions = InContextRegressor(model, n_loops=7).fit(X, y).predict(queries)
    mean, std, scale = X.mean(axis=0), X.std(axis=0), y.std() / 3**0.5
    for query, prediction in zip(queries, predictions, strict=True):
        xs = torch.tensor((np.vstack((X, query)) - mean) / std, dtype=torch.float32)
        ys = torch.tensor((y - y.mean()) / scale, dtype=torch.float32)
        expected = model(xs[None], ys[None], n_loops=7).predictions[0, -1].item() * scale + y.mean()
        assert prediction == pytest.approx(expected, rel=1e-5)


def test_shifts_and_scales_of_the_data_carry_over(make_model, data):
    model, (X, y, queries) = make_model(), data
    predictions = InContextRegressor(model).fit(X, y).predict(queries)
    scaled = InContextRegressor(model).fit(X * [1, 10, 100] - 7, 3 * y + 11).predict(queries * [1, 10, 100] - 7)
    np.testing.assert_allclose(scaled, 3 * predictions + 11, rtol=1e-5)


def test_more_examples_than_positions_are_dealt_into_contexts(make_model):
    generator = np.random.default_rng(0)
    X, y, queries = generator.normal(size=(16, 3)), generator.normal(size=16), generator.normal(size=(2, 3))
    regressor = InContextRegressor(make_model(), random_state=3).fit(X, y)  # 14 positions: 6 examples and a query
    assert (regressor.n_contexts_, regressor.n_examples_) == (3, 6)
    order = np.resize(np.random.RandomState(3).permutation(16), (3, 6))
    xs = torch.tensor((X - X.mean(axis=0)) / X.std(axis=0), dtype=torch.float32)
    ys = torch.tensor((y - y.mean()) / y.std() * 3**0.5, dtype=torch.float32)
    asked = torch.tensor((queries - X.mean(axis=0)) / X.std(axis=0), dtype=torch.float32)
    model = make_model()
    singly = [model.predict(asked[None], model.encode_context(xs[rows][None], ys[rows][None])) for rows in order]
    expected = torch.cat(singly).mean(dim=0).detach().double().numpy() * y.std() / 3**0.5 + y.mean()
    np.testing.assert_allclose(regressor.predict(queries), expected, rtol=1e-5)
    assert set(order.ravel()) == set(range(16))
    few = InContextRegressor(make_model(), max_contexts=2, random_state=3).fit(X, y)
    assert (few.n_contexts_, few.n_examples_) == (2, 6)


def test_it_pickles_clones_and_works_in_pipelines_and_searches(make_model, data):
    X, y, queries = data
    regressor = InContextRegressor(make_model(n_dims=20)).fit(X, y)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(regressor)).predict(queries), regressor.predict(queries))
    np.testing.assert_array_equal(clone(regressor).fit(X, y).predict(queries), regressor.predict(queries))
    pipeline = make_pipeline(PolynomialFeatures(include_bias=False), clone(regressor))
    assert cross_val_score(pipeline, X, y, cv=3, scoring="neg_mean_squared_error").shape == (3,)
    search = GridSearchCV(clone(regressor), {"n_loops": [1, 2]}, cv=2, scoring="neg_mean_squared_error").fit(X, y)
    assert search.best_params_["n_loops"] in (1, 2)


def test_a_folder_is_loaded_and_frames_keep_their_names(make_model, data, tmp_path):
    X, y, queries = data
    make_model().save_pretrained(tmp_path / "model")
    columns = ["age", "bmi", "pressure"]
    regressor = InContextRegressor(tmp_path / "model").fit(pd.DataFrame(X, columns=columns), pd.Series(y))
    expected = InContextRegressor(make_model()).fit(X, y).predict(queries)
    np.testing.assert_array_equal(regressor.predict(pd.DataFrame(queries, columns=columns)), expected)
    with pytest.raises(ValueError, match="feature names"):
        regressor.predict(pd.DataFrame(queries, columns=columns[::-1]))


def test_a_model_that_is_given_stays_as_it_is(make_model, data):
    model = make_model().train()
    regressor = InContextRegressor(model).fit(*data[:2])
    before = regressor.predict(data[2])
    assert model.training
    torch.nn.init.zeros_(model.read_out.weight)
    np.testing.assert_array_equal(regressor.predict(data[2]), before)


def test_a_constant_y_is_no_division_by_zero(make_model, data):
    X, _, queries = data
    predictions = InContextRegressor(make_model()).fit(X, np.full(6, 3.0)).predict(queries)
    assert np.isfinite(predictions).all()


BAD = {
    "too many features": ({}, np.ones((4, 9)), np.ones(4), "at most `n_dims` = 3 features for this model, got 9"),
    "NaN": ({}, np.full((4, 3), np.nan), np.ones(4), "NaN"),
    "text": ({}, np.full((4, 3), "a"), np.ones(4), "could not convert string to float"),
    "no example": ({}, np.ones((0, 3)), np.ones(0), "0 sample"),
    "unequal lengths": ({}, np.ones((4, 3)), np.ones(5), "inconsistent numbers of samples"),
    "no loops": ({"n_loops": 0}, np.eye(3), np.ones(3), "`n_loops` must be an integer >= 1, got 0"),
    "no contexts": ({"max_contexts": 0}, np.eye(3), np.ones(3), "`max_contexts` must be an integer >= 1, got 0"),
    "half a context": (
        {"max_contexts": 1.5},
        np.eye(3),
        np.ones(3),
        "`max_contexts` must be an integer >= 1, got 1.5",
    ),
    "labels": ({}, np.eye(3), np.array(["a", "b", "c"]), "y must be numbers, .*InContextClassifier takes labels"),
    "text as scale": ({"y_std": "1"}, np.eye(3), np.ones(3), "`y_std` must be a finite number > 0, got '1'"),
    "no scale": ({"y_std": 0.0}, np.eye(3), np.ones(3), "`y_std` must be a finite number > 0, got 0.0"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_by_name(name, make_model):
    options, X, y, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        InContextRegressor(make_model(), **options).fit(X, y)


def test_a_model_of_another_class_is_refused(make_model, tmp_path):
    make_model().save_pretrained(tmp_path)
    message = "`model` must be a LoopedGPT2ForInContextClassification .* got a LoopedGPT2ForInContextRegression"
    for model in (make_model(), tmp_path):
        with pytest.raises(ValueError, match=message):
            InContextClassifier(model).fit(np.eye(3), [0, 1, 0])
    for model in (None, 3):
        with pytest.raises(ValueError, match=f"`model` must be a folder, a Hub repository or a model, got {model}"):
            InContextRegressor(model).fit(np.eye(3), np.ones(3))


def test_a_model_that_is_not_there_is_named(hub):
    for model, revision in (("/nowhere/model", None), ("ana/absent", None), ("ana/absent", "v1")):
        with pytest.raises(OSError, match=model):
            InContextRegressor(model, revision=revision).fit(np.eye(3), np.ones(3))


@pytest.fixture
def classifier_model(make_config):
    return LoopedGPT2ForInContextClassification(make_config(n_dims=20, n_positions=41, num_labels=4, n_loops=2)).eval()


def test_scikit_learn_accepts_the_classifier(classifier_model, tmp_path):
    classifier_model.save_pretrained(tmp_path)
    results = check_estimator(InContextClassifier(str(tmp_path)), on_skip=None)
    assert sum(result["status"] == "passed" for result in results) > 40


def test_probabilities_are_those_of_the_model_on_standardised_prompts(classifier_model, data):
    X, _, queries = data
    labels = np.array(["no", "yes", "maybe", "no", "yes", "maybe"])
    classifier = InContextClassifier(classifier_model, n_loops=3).fit(X, labels)
    assert classifier.classes_.tolist() == ["maybe", "no", "yes"]
    probabilities = classifier.predict_proba(queries)
    mean, std = X.mean(axis=0), X.std(axis=0)
    for query, row in zip(queries, probabilities, strict=True):
        xs = torch.zeros(1, 7, 20)
        xs[0, :, :3] = torch.tensor((np.vstack((X, query)) - mean) / std)
        ys = torch.tensor([[1, 2, 0, 1, 2, 0]])
        expected = classifier_model(xs, ys, n_loops=3).logits[0, -1, :3].softmax(0).detach().numpy()
        np.testing.assert_allclose(row, expected, rtol=1e-4)
    assert classifier.predict(queries).tolist() == [classifier.classes_[i] for i in probabilities.argmax(axis=1)]


def test_too_many_classes_are_refused(classifier_model):
    X = np.random.default_rng(0).normal(size=(10, 3))
    with pytest.raises(ValueError, match="y must have 2 to `num_labels` = 4 classes for this model, got 5"):
        InContextClassifier(classifier_model).fit(X, np.arange(10) % 5)
