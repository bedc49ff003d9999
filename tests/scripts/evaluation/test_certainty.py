"""The worth of probabilities and quantiles, against naive sums."""

import numpy as np
import pytest

from scripts.evaluation.certainty import class_figures, quantile_figures


@pytest.fixture
def generator():
    return np.random.default_rng(0)


def test_probabilities_are_judged_by_their_log_loss_whatever_is_added_to_all_logits(generator):
    logits, labels = generator.normal(size=(50, 4)), generator.integers(4, size=50)
    naive = [-np.log(np.exp(row[label]) / np.exp(row).sum()) for row, label in zip(logits, labels, strict=True)]
    for shift in (0, 1e3):
        assert class_figures(logits + shift, labels)["log loss"] == pytest.approx(np.mean(naive))
    certain = 100 * np.eye(4)[labels]
    assert class_figures(certain, labels) == pytest.approx({"log loss": 0, "expected calibration error": 0}, abs=1e-9)
    figures = class_figures(certain, (labels + 1) % 4)
    assert figures == pytest.approx({"log loss": 100, "expected calibration error": 1})


@pytest.mark.parametrize("n_levels", [1, 2, 20, 40])
def test_the_interval_ends_at_the_levels_of_90_percent(n_levels, generator):
    quantiles = np.sort(generator.normal(size=(200, n_levels)), axis=1)
    labels = generator.normal(size=200)
    levels = (np.arange(n_levels) + 0.5) / n_levels
    low, high = (np.array([np.interp(level, levels, row) for row in quantiles]) for level in (0.05, 0.95))
    expected = np.mean((low <= labels) & (labels <= high))
    assert quantile_figures(quantiles, labels) == {"coverage of the 90% interval": pytest.approx(expected)}


def test_true_quantiles_cover_nine_of_ten(generator):
    levels = (np.arange(20) + 0.5) / 20
    quantiles = np.broadcast_to(levels, (20_000, 20))
    covered = quantile_figures(quantiles, generator.random(20_000))["coverage of the 90% interval"]
    assert covered == pytest.approx(0.9, abs=0.01)
