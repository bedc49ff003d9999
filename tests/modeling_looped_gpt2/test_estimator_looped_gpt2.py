import copy
import os
import pickle
import subprocess
import sys
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures
from sklearn.utils.estimator_checks import check_estimator
from transformers import AutoModel

from modeling_looped_gpt2 import (
    LoopedGPT2ForInContextClassification,
    LoopedGPT2ForInContextRegression,
)
from modeling_looped_gpt2 import estimator_base_looped_gpt2 as module
from modeling_looped_gpt2.estimator_looped_gpt2 import InContextClassifier, InContextRegressor


ROOT = Path(__file__).parents[2]


def test_scikit_learn_accepts_it(make_model, tmp_path):
    # in float64, for scikit-learn compares predictions in another order to seven digits
    make_model(n_dims=20, n_positions=41, n_loops=2).double().save_pretrained(tmp_path)
    results = check_estimator(InContextRegressor(str(tmp_path)), on_skip=None)
    assert sum(result["status"] == "passed" for result in results) > 40


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
    expected = regressor.predict(queries)
    for copied in (pickle.loads(pickle.dumps(regressor)), clone(regressor).fit(X, y)):
        np.testing.assert_allclose(copied.predict(queries), expected, rtol=1e-5, atol=1e-6)
    squares = PolynomialFeatures(include_bias=False)
    pipeline = make_pipeline(squares, clone(regressor)).fit(X, y)
    expected = clone(regressor).fit(squares.fit_transform(X), y).predict(squares.transform(queries))
    np.testing.assert_array_equal(pipeline.predict(queries), expected)
    folds = {"cv": 2, "scoring": "neg_mean_squared_error"}
    search = GridSearchCV(clone(regressor), {"n_loops": [1, 2, 5]}, **folds).fit(X, y)
    scores = [cross_val_score(clone(regressor).set_params(n_loops=n), X, y, **folds).mean() for n in (1, 2, 5)]
    assert len(set(scores)) == 3
    assert search.cv_results_["mean_test_score"].tolist() == scores


def test_a_folder_is_loaded_and_frames_keep_their_names(make_model, data, tmp_path):
    X, y, queries = data
    make_model().save_pretrained(tmp_path / "model")
    columns = ["age", "bmi", "pressure"]
    regressor = InContextRegressor(tmp_path / "model").fit(pd.DataFrame(X, columns=columns), pd.Series(y))
    expected = InContextRegressor(make_model()).fit(X, y).predict(queries)
    answers = regressor.predict(pd.DataFrame(queries, columns=columns))
    np.testing.assert_allclose(answers, expected, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="feature names"):
        regressor.predict(pd.DataFrame(queries, columns=columns[::-1]))


def test_a_model_that_is_given_stays_as_it_is(make_model, data):
    model = make_model().train()
    regressor = InContextRegressor(model).fit(*data[:2])
    before = regressor.predict(data[2])
    assert model.training
    torch.nn.init.zeros_(model.read_out.weight)
    np.testing.assert_array_equal(regressor.predict(data[2]), before)


def test_a_fitted_estimator_of_remote_code_works_in_another_process(make_model, data, tmp_path, monkeypatch):
    X, y, queries = data
    make_model().save_pretrained(tmp_path / "model")
    model = AutoModel.from_pretrained(tmp_path / "model", trust_remote_code=True)
    assert not isinstance(model, LoopedGPT2ForInContextRegression)
    fitted = InContextRegressor(model).fit(X, y)
    expected = fitted.predict(queries)
    assert type(fitted.model_) is LoopedGPT2ForInContextRegression
    own = InContextRegressor(make_model()).fit(X, y).predict(queries)
    np.testing.assert_allclose(own, expected, rtol=1e-5, atol=1e-6)
    for same in (copy.deepcopy(fitted), clone(fitted).fit(X, y), pickle.loads(pickle.dumps(fitted))):
        np.testing.assert_allclose(same.predict(queries), expected, rtol=1e-5, atol=1e-6)
    joblib.dump((fitted, InContextRegressor(model), X, y, queries), tmp_path / "fitted.joblib")
    code = "import joblib, sys, numpy as np\n"
    code += "fitted, fresh, X, y, queries = joblib.load(sys.argv[1])\n"
    code += "np.save(sys.argv[2], [fitted.predict(queries), fresh.fit(X, y).predict(queries)])\n"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_MODULES_CACHE": str(tmp_path / "empty")}
    command = [sys.executable, "-c", code, str(tmp_path / "fitted.joblib"), str(tmp_path / "answers.npy")]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path, timeout=300)
    assert result.returncode == 0, result.stderr
    np.testing.assert_allclose(np.load(tmp_path / "answers.npy"), [expected, expected], rtol=1e-5)


def test_taking_a_model_of_remote_code_draws_no_random_number_and_leaves_it_alone(make_model, data, tmp_path):
    make_model().save_pretrained(tmp_path)
    model = AutoModel.from_pretrained(tmp_path, trust_remote_code=True, attn_implementation="eager").double()
    state = torch.get_rng_state()
    regressor = InContextRegressor(model).fit(*data[:2])
    assert torch.equal(torch.get_rng_state(), state)
    assert (regressor.model_.dtype, regressor.model_.config._attn_implementation) == (torch.float64, "eager")
    before = regressor.predict(data[2])
    torch.nn.init.zeros_(model.read_out.weight)
    np.testing.assert_array_equal(regressor.predict(data[2]), before)


class Terminal:
    """Keeps what is written, as a terminal would show it."""

    def __init__(self, is_terminal):
        self.text, self.isatty = "", lambda: is_terminal

    def write(self, text):
        self.text += text

    def flush(self):
        pass


def test_pieces_change_nothing_and_many_of_them_show_their_progress(make_model, data, monkeypatch):
    X, y, queries = data
    X, y = np.tile(X, (2, 1)), np.tile(y, 2)
    expected = InContextRegressor(make_model(), random_state=0).fit(X, y).predict(queries)
    monkeypatch.setattr(module, "ANSWERS_AT_A_TIME", 6)
    monkeypatch.setattr(module, "MANY_ANSWERS", 6)
    for verbose, is_terminal, n_queries in ((True, True, 4), (False, True, 4), (True, False, 4), (True, True, 3)):
        regressor = InContextRegressor(make_model(), random_state=0, verbose=verbose).fit(X, y)
        assert regressor.n_contexts_ == 2
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stderr", Terminal(is_terminal))
            predictions = regressor.predict(queries[:n_queries])
            text = sys.stderr.text
        np.testing.assert_allclose(predictions, expected[:n_queries], rtol=1e-5)
        assert ("predict" in text and "4/4" in text) == (verbose and is_terminal and n_queries == 4)


BAD = {
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
    "text as scale": ({"y_std": "1"}, np.eye(3), np.ones(3), "`y_std` must be a number in 1e-6 ... 1e6, got '1'"),
    "no scale": ({"y_std": 0.0}, np.eye(3), np.ones(3), "`y_std` must be a number in 1e-6 ... 1e6, got 0.0"),
    "a scale beyond float32": ({"y_std": 1e39}, np.eye(3), np.ones(3), "`y_std` must be .* got 1e[+]39"),
    "hidden values": ({}, np.ma.masked_array(np.eye(3), np.eye(3)), np.ones(3), "X must not be masked"),
    "hidden y": ({}, np.eye(3), np.ma.masked_array(np.ones(3), [0, 0, 1]), "y must not be masked"),
    "dates": ({}, np.ones((3, 1), dtype="M8[D]"), np.ones(3), r"X must be numbers, got datetime64\[D\]"),
    "durations as y": (
        {},
        np.eye(3),
        pd.Series(pd.to_timedelta([1, 2, 3])),
        r"y must be numbers, got an array of timedelta64",
    ),
    "infinity in another width": ({}, np.eye(3), np.full(3, np.longdouble("1e400")), "Input y contains infinity"),
    "a missing y": ({}, np.eye(3), pd.Series([1, None, 2], dtype="Int64"), "Input y contains NaN"),
    "a column of dates": (
        {},
        pd.DataFrame({"day": pd.to_datetime(["2020-01-01"] * 3)}),
        np.ones(3),
        r"dates or times in the columns \['day'\]: count",
    ),
    "half a row": ({"max_examples": 0.5}, np.eye(3), np.ones(3), "`max_examples` must be an integer >= 1, got 0.5"),
    "no rows": ({}, pd.DataFrame({"age": []}), [], "0 sample"),
    "no columns": ({}, pd.DataFrame(index=[1, 2]), [1, 2], "0 feature"),
    "text as y": ({}, np.eye(3), ["1", "2", "3"], "y must be numbers, got text: InContextClassifier takes labels"),
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
    with pytest.raises(ValueError, match="`model` must be a folder, a Hub repository or a model, got 3"):
        InContextRegressor(3).fit(np.eye(3), np.ones(3))


def test_without_a_model_a_release_of_the_clone_answers(make_model, data, tmp_path, monkeypatch):
    assert module.RELEASES == ROOT / "model_cards"
    for estimator in (InContextRegressor, InContextClassifier):
        assert (module.RELEASES / estimator.default_model / "config.json").exists()
    monkeypatch.setattr(module, "RELEASES", tmp_path)
    X, y, queries = data
    with pytest.raises(ValueError, match=r"there is no folder .*tables_regression"):
        InContextRegressor().fit(X, y)
    make_model().save_pretrained(tmp_path / InContextRegressor.default_model)
    expected = InContextRegressor(make_model()).fit(X, y).predict(queries)
    np.testing.assert_array_equal(clone(InContextRegressor()).fit(X, y).predict(queries), expected)


def test_a_model_of_vectors_is_refused(make_model):
    with pytest.raises(ValueError, match="`model` must predict a single number, got one of `n_outputs` = 2"):
        InContextRegressor(make_model(n_outputs=2)).fit(np.eye(3), np.ones(3))


def test_a_misspelt_folder_is_not_looked_up_on_the_hub(tmp_path):
    for name in (tmp_path / "quickstrat", str(tmp_path / "quickstrat"), "/no/such/quickstrat", "a/b/quickstrat"):
        with pytest.raises(ValueError, match=r"there is no folder .*quickstrat"):
            InContextRegressor(name).fit(np.eye(3), np.ones(3))


def test_a_model_that_is_not_there_is_named(hub):
    for model, revision in (("ana/absent", None), ("ana/absent", "v1")):
        with pytest.raises(OSError, match=model):
            InContextRegressor(model, revision=revision).fit(np.eye(3), np.ones(3))


@pytest.fixture
def classifier_model(make_config):
    return LoopedGPT2ForInContextClassification(make_config(n_dims=20, n_positions=41, num_labels=4, n_loops=2)).eval()


def test_scikit_learn_accepts_the_classifier(classifier_model, tmp_path):
    classifier_model.double().save_pretrained(tmp_path)
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
        expected = 0
        for numbers in ([0, 1, 2], [1, 2, 0], [2, 0, 1]):  # of "maybe", "no" and "yes"
            ys = torch.tensor([[numbers[label] for label in (1, 2, 0, 1, 2, 0)]])
            logits = classifier_model(xs, ys, n_loops=3).logits[0, -1, :3]
            expected = expected + logits.softmax(0)[numbers].detach().numpy() / 3
        np.testing.assert_allclose(row, expected, rtol=1e-4)
    assert classifier.predict(queries).tolist() == [classifier.classes_[i] for i in probabilities.argmax(axis=1)]


@pytest.mark.parametrize("n_classes", [2, 3, 4])
def test_in_which_order_labels_come_does_not_matter(n_classes, classifier_model, data):
    X, _, queries = data
    classes = np.arange(6) % n_classes
    found = InContextClassifier(classifier_model).fit(X, classes)
    assert found.n_readings_ == n_classes
    turned = InContextClassifier(classifier_model).fit(X, (classes + 1) % n_classes).predict_proba(queries)
    np.testing.assert_allclose(np.roll(turned, -1, axis=1), found.predict_proba(queries), rtol=1e-5)


def test_too_many_classes_are_refused(classifier_model):
    X = np.random.default_rng(0).normal(size=(10, 3))
    with pytest.raises(
        ValueError, match="y must have at most `num_labels` = 4 classes for this model, got 5 classes: merge"
    ):
        InContextClassifier(classifier_model).fit(X, np.arange(10) % 5)
