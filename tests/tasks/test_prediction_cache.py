from functools import partial

import numpy as np
import pytest
import torch

from tasks import make_task, prediction_cache
from tasks.baselines.classical import predict_ridge
from tasks.baselines.prefixes import PredictorFamily, predict_prefixes
from tasks.prediction_cache import CHUNK, PredictionCache, code_digest, n_chunks


@pytest.fixture
def prompts():
    return make_task("linear_regression", n_dims=3).sample(CHUNK + 7, torch.Generator().manual_seed(0), n_points=5)


class Counted:
    """A predictor that counts its calls; two with equal settings are the same to the cache."""

    def __init__(self):
        self.calls = 0

    def __call__(self, xs, ys, query, alpha=1.0):
        self.calls += 1
        return predict_ridge(xs, ys, query, alpha)


@pytest.fixture
def counted():
    predictor = Counted()
    predictor.__module__, predictor.__qualname__ = "tests", "counted"
    return predictor


def test_a_second_time_nothing_is_computed_and_every_bit_is_the_same(prompts, counted, tmp_path):
    steps = []
    first = PredictionCache(tmp_path).predict(counted, prompts, lambda: steps.append(1))
    assert len(steps) == n_chunks(CHUNK + 7) == 2
    assert counted.calls == 2 * 4
    whole = predict_prefixes(predict_ridge, prompts["xs"], prompts["ys"])
    np.testing.assert_allclose(first, whole, rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(first, PredictionCache(tmp_path).predict(counted, prompts))
    assert counted.calls == 2 * 4


def test_what_is_missing_is_computed_and_nothing_else(prompts, counted, tmp_path):
    cache = PredictionCache(tmp_path)
    cache.predict(counted, {name: values[:CHUNK] for name, values in prompts.items()})
    calls = counted.calls
    cache.predict(counted, prompts)
    assert counted.calls == calls + 4  # the seven prompts of the second chunk


def change_ys(prompts, predictor):
    return prompts | {"ys": prompts["ys"] + 1}, predictor


def add_queries(prompts, predictor):
    return prompts | {"queries": prompts["xs"].flip(0)}, predictor


def change_alpha(prompts, predictor):
    return prompts, partial(predictor, alpha=2.0)


@pytest.mark.parametrize("change", [change_ys, add_queries, change_alpha])
def test_any_other_prompt_or_setting_is_another_entry(change, prompts, counted, tmp_path):
    cache = PredictionCache(tmp_path)
    before = cache.predict(counted, prompts)
    after = cache.predict(*reversed(change(prompts, counted)))
    assert counted.calls == 4 * 4
    assert not np.array_equal(before, after)


@pytest.mark.parametrize("damage", [lambda b: b[:-1], lambda b: b"", lambda b: b[:-1] + bytes([b[-1] ^ 1])])
def test_a_damaged_entry_is_computed_again(damage, prompts, counted, tmp_path):
    cache = PredictionCache(tmp_path)
    first = cache.predict(counted, prompts)
    for path in tmp_path.iterdir():
        path.write_bytes(damage(path.read_bytes()))
    again = cache.predict(counted, prompts)
    np.testing.assert_allclose(first, again, rtol=1e-9, atol=1e-12)
    assert counted.calls == 4 * 4
    np.testing.assert_array_equal(again, cache.predict(counted, prompts))
    assert counted.calls == 4 * 4


def test_a_failed_write_leaves_nothing_behind(prompts, counted, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("no space left")

    monkeypatch.setattr(prediction_cache.os, "replace", fail)
    with pytest.raises(OSError, match="no space left"):
        PredictionCache(tmp_path).predict(counted, prompts)
    assert list(tmp_path.iterdir()) == []


def test_a_family_is_kept_under_its_predictor_and_its_labels(prompts, counted, tmp_path):
    cache = PredictionCache(tmp_path)
    first = cache.predict(PredictorFamily(counted, ("a",)), prompts)
    np.testing.assert_array_equal(first, cache.predict(PredictorFamily(counted, ("a",)), prompts))
    assert counted.calls == 2 * 4
    cache.predict(PredictorFamily(counted, ("b",)), prompts)
    cache.predict(counted, prompts)
    assert counted.calls == 3 * 2 * 4


def test_the_digest_of_the_code_covers_its_folder_and_those_below(tmp_path, monkeypatch):
    for path in ("top.py", "baselines/below.py", "limits/deep/deepest.py", "notes.txt"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("A = 1\n")
    monkeypatch.setattr(prediction_cache.inspect, "getfile", lambda of: str(tmp_path / "top.py"))
    digests = [code_digest(None)]
    for path in ("top.py", "baselines/below.py", "limits/deep/deepest.py"):
        (tmp_path / path).write_text("A = 2\n")
        digests.append(code_digest(None))
    assert len(set(digests)) == 4
    (tmp_path / "notes.txt").write_text("A = 2\n")
    assert code_digest(None) == digests[-1]
