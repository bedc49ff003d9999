import numpy as np
import pytest

from tasks.in_context_error import InContextError
from tasks.metrics import bootstrap_interval, curve_of, normalised_squared_error


def test_predicting_zero_gives_one():
    labels = np.random.default_rng(0).normal(0, 20**0.5, (5000, 3))
    assert normalised_squared_error(np.zeros_like(labels), labels, 20).mean() == pytest.approx(1, abs=0.05)


def test_one_error_for_every_prediction():
    errors = normalised_squared_error(np.array([[1.0, 2.0]]), np.array([[3.0, 2.0]]), 2.0)
    assert errors.tolist() == [[2.0, 0.0]]


def test_the_interval_holds_the_mean_nine_times_in_ten():
    rng = np.random.default_rng(0)
    samples = rng.exponential(1.0, (200, 300))  # mean 1; one column a repetition
    low, high = bootstrap_interval(samples, n_resamples=400)
    assert low.shape == high.shape == (300,)
    assert ((low < 1) & (high > 1)).mean() == pytest.approx(0.9, abs=0.06)


def test_the_interval_equals_a_naive_bootstrap():
    values = np.random.default_rng(1).normal(size=40)
    low, high = bootstrap_interval(values, n_resamples=20_000)
    rng = np.random.default_rng(2)
    means = [rng.choice(values, 40).mean() for _ in range(20_000)]
    assert [low, high] == pytest.approx(np.quantile(means, [0.05, 0.95]), abs=0.01)


def test_a_place_that_some_prompts_lack_is_measured_on_those_that_have_it():
    rng = np.random.default_rng(1)
    values = rng.normal(size=(60, 3))
    plain = curve_of(values)
    values[20:, 1] = np.nan
    curve = curve_of(values)
    for key in ("error", "low", "high"):  # the other places keep every bit
        assert [curve[key][0], curve[key][2]] == [plain[key][0], plain[key][2]]
    assert curve["error"][1] == pytest.approx(values[:20, 1].mean())
    means = [np.nanmean(rng.choice(values[:, 1], 60)) for _ in range(20_000)]
    low, high = bootstrap_interval(values[:, 1], n_resamples=20_000)
    assert [low, high] == pytest.approx(np.quantile(means, [0.05, 0.95]), abs=0.01)


def test_a_resample_without_the_place_says_nothing():
    values = np.array([[2.0, 1.0], [np.nan, 3.0]])
    assert curve_of(values)["error"] == [2.0, 2.0]
    low, high = bootstrap_interval(values)
    assert (low[0], high[0]) == (2.0, 2.0)


def test_two_calls_give_the_same_bits():
    values = np.random.default_rng(0).normal(size=(30, 4))
    assert np.array_equal(bootstrap_interval(values), bootstrap_interval(values))


def test_the_evaluate_module_agrees_to_the_last_bit():
    rng = np.random.default_rng(0)
    predictions, labels = rng.normal(size=(2, 60, 5))
    result = InContextError().compute(predictions=predictions, references=labels, normaliser=3.0)
    errors = normalised_squared_error(predictions, labels, 3.0)
    low, high = bootstrap_interval(errors)
    assert result == {"error": errors.mean(axis=0).tolist(), "low": low.tolist(), "high": high.tolist()}


BAD_INPUT = {
    "shapes": (np.zeros((2, 3)), np.zeros((2, 4)), 1.0, r"one shape .* got \(2, 3\) and \(2, 4\)"),
    "empty": (np.zeros((0, 3)), np.zeros((0, 3)), 1.0, "not be empty"),
    "NaN": (np.full((2, 3), np.nan), np.zeros((2, 3)), 1.0, "`predictions` must be finite"),
    "infinite label": (np.zeros((2, 3)), np.full((2, 3), np.inf), 1.0, "`labels` must be finite"),
    "rows": ([[1.0, 2.0], [3.0]], [[1.0, 2.0], [3.0]], 1.0, "`predictions` must be numbers, all rows of one length"),
    "text": (np.zeros((1, 2)), [["a", "b"]], 1.0, "`labels` must be numbers"),
    "normaliser": (np.zeros((2, 3)), np.zeros((2, 3)), 0.0, "`normaliser` must be > 0, got 0.0"),
}


@pytest.mark.parametrize("name", BAD_INPUT)
def test_bad_input_is_refused(name):
    predictions, labels, normaliser, message = BAD_INPUT[name]
    with pytest.raises(ValueError, match=message):
        normalised_squared_error(predictions, labels, normaliser)


@pytest.mark.parametrize("name", [name for name in BAD_INPUT if name != "text"])
def test_the_evaluate_module_refuses_the_same(name):
    predictions, labels, normaliser, message = BAD_INPUT[name]
    with pytest.raises(ValueError, match="not be empty" if name == "empty" else message):
        InContextError().compute(predictions=predictions, references=labels, normaliser=normaliser)


def test_a_bad_interval_is_refused():
    with pytest.raises(ValueError, match="`values` must hold at least one prompt"):
        bootstrap_interval(np.zeros((0, 2)))
    with pytest.raises(ValueError, match=r"`confidence` must be in \(0, 1\), got 1"):
        bootstrap_interval(np.zeros((3, 2)), confidence=1)
    with pytest.raises(ValueError, match="`values` must be finite or NaN, got infinity"):
        bootstrap_interval(np.array([1.0, np.inf]))
    with pytest.raises(
        ValueError,
        match="must have a number at every place, got 1 that no prompt has: draw more prompts",
    ):
        bootstrap_interval(np.array([[1.0, np.nan], [2.0, np.nan]]))
    with pytest.raises(ValueError, match="`n_resamples` must be >= 1, got 0"):
        bootstrap_interval(np.ones(3), n_resamples=0)
