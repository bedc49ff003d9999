import numpy as np
import pytest

from tasks.published import published, published_curves


@pytest.mark.parametrize("task", published()["tasks"])
def test_every_curve_of_the_paper_is_there(task):
    curves = published_curves(task, 20)
    assert {"standard transformer", "looped transformer"} < curves.keys()
    assert published()["tasks"][task]["source"]
    n_points = 41 if "linear" in task else 101
    for curve in curves.values():
        assert {len(values) for key, values in curve.items() if key != "digitisation_error"} == {n_points}
        low, error, high = (np.array(curve.get(key, curve["error"]), float) for key in ("low", "error", "high"))
        seen = ~np.isnan(error)
        assert ((low <= error) & (error <= high))[seen].all()


def test_the_published_least_squares_follows_the_limit():
    curve = published_curves("linear_regression", 20)["least squares"]
    expected = np.clip(1 - np.arange(41) / 20, 0, None)
    assert (np.array(curve["low"]) <= expected + 1e-6).all()
    assert (expected <= curve["high"]).all()


def test_there_are_none_for_other_sizes_or_classes():
    assert published_curves("linear_regression", 5) == published_curves("noisy_linear_regression", 20) == {}
    assert len(published()["openml"]["rows"]) == 10
    assert len(published()["probing"]["xty"]["looped transformer"]) == 21
