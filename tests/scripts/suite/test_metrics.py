"""Metrics against scikit-learn's and naive ones."""

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, log_loss, mean_pinball_loss, r2_score, roc_auc_score

from scripts.suite.metrics import LEVELS, calibration_error, class_metrics, value_metrics


@pytest.fixture
def generator():
    return np.random.default_rng(0)


@pytest.mark.parametrize("n_classes", [2, 5])
def test_class_metrics_are_those_of_scikit_learn(generator, n_classes):
    labels = np.arange(200) % n_classes
    probabilities = generator.dirichlet(np.ones(n_classes), 200) + 0.3 * np.eye(n_classes)[labels]
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    metrics = class_metrics(labels, probabilities)
    scores = probabilities[:, 1] if n_classes == 2 else probabilities
    assert metrics["auc"] == pytest.approx(roc_auc_score(labels, scores, multi_class="ovr"))
    assert metrics["accuracy"] == accuracy_score(labels, probabilities.argmax(axis=1))
    assert metrics["log_loss"] == pytest.approx(log_loss(labels, probabilities))


def naive_calibration_error(labels, probabilities):
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    error = 0
    for low in np.arange(10) / 10:
        inside = (confidence >= low) & ((confidence < low + 0.1) | (low == 0.9))
        if inside.any():
            error += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    return error


def test_the_calibration_error_is_the_naive_one_and_0_for_true_probabilities(generator):
    probabilities = generator.dirichlet(np.ones(3), 50_000)
    labels = (generator.random((50_000, 1)) > probabilities.cumsum(axis=1)).sum(axis=1)
    assert calibration_error(labels, probabilities) < 0.01
    few = labels[:300], probabilities[:300] ** 3 / (probabilities[:300] ** 3).sum(axis=1, keepdims=True)
    assert calibration_error(*few) == pytest.approx(naive_calibration_error(*few))
    assert calibration_error(np.zeros(4, int), np.eye(2)[[0, 0, 0, 0]]) == 0
    assert calibration_error(np.ones(4, int), np.eye(2)[[0, 0, 0, 0]]) == 1


def test_value_metrics_are_those_of_scikit_learn(generator):
    labels, predictions = generator.normal(size=(2, 100))
    quantiles = predictions[:, None] + np.linspace(-2, 2, len(LEVELS))
    metrics = value_metrics(labels, predictions, quantiles, deviation=2.0)
    losses = [
        mean_pinball_loss(labels, column, alpha=level) for column, level in zip(quantiles.T, LEVELS, strict=True)
    ]
    assert metrics["pinball"] == pytest.approx(np.mean(losses) / 2)
    assert metrics["r2"] == pytest.approx(r2_score(labels, predictions))
    assert metrics["coverage"] == np.mean(abs(labels - predictions) <= 2)


def test_true_quantiles_have_the_least_loss_and_cover_nine_of_ten(generator):
    labels = generator.normal(size=20_000)
    true = np.quantile(generator.normal(size=100_000), LEVELS)[None].repeat(len(labels), axis=0)
    metrics = [value_metrics(labels, true[:, 9], scale * true, 1.0) for scale in (0.5, 1, 2)]
    assert metrics[1]["coverage"] == pytest.approx(0.9, abs=0.01)
    assert metrics[1]["pinball"] < min(metrics[0]["pinball"], metrics[2]["pinball"])
