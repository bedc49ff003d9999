"""Estimators that average what several readings of a table answer."""

import numpy as np
import pytest
import torch

from modeling_looped_gpt2 import LoopedGPT2ForInContextClassification
from modeling_looped_gpt2.estimator_looped_gpt2 import InContextClassifier, InContextRegressor
from modeling_looped_gpt2.estimator_turns_looped_gpt2 import Turn


@pytest.fixture
def make_classifier(make_config):
    def make(**options):
        torch.manual_seed(0)
        sizes = {"n_embd": 16, "n_head": 2, "n_dims": 4, "n_positions": 41, "n_loops": 3, "num_labels": 4}
        return InContextClassifier(LoopedGPT2ForInContextClassification(make_config(**sizes)).eval(), **options)

    return make


def test_the_answer_is_the_mean_of_what_estimators_answer_alone(make_model, data):
    """The second reads what the first reads of a table whose rows and columns are moved, and some signs turned."""
    X, y, queries = data
    averaged = InContextRegressor(make_model(n_dims=5), n_estimators=2, random_state=7).fit(X, y)
    draws = np.random.RandomState(7)
    rows, columns, signs = draws.permutation(len(X)), draws.permutation(3), draws.choice([-1, 1], 5)[:3]
    first = InContextRegressor(make_model(n_dims=5)).fit(X, y).predict(queries)
    turned = InContextRegressor(make_model(n_dims=5)).fit(X[rows][:, columns] * signs, y[rows])
    second = turned.predict(queries[:, columns] * signs)
    np.testing.assert_allclose(averaged.predict(queries), (first + second) / 2, rtol=1e-4)
    assert not np.allclose(first, second, rtol=1e-3)


def test_dealt_examples_and_all_ways_to_number_classes_are_averaged_too(make_classifier):
    generator = np.random.default_rng(0)
    X, y, queries = generator.normal(size=(30, 2)), np.arange(30) % 3, generator.normal(size=(5, 2))
    averaged = make_classifier(n_estimators=3, max_examples=8, random_state=0).fit(X, y)
    assert (averaged.n_readings_, averaged.n_contexts_, averaged.n_examples_) == (3, 4, 8)
    draws = np.random.RandomState(0)
    orders = [np.resize(draws.permutation(30), (4, 8)) for _ in range(3)]
    turns = averaged._turns
    model, total = make_classifier().model, 0
    for turn, order in zip(turns, orders, strict=True):
        for part in order:
            xs = turn(averaged._view.show(np.concatenate((X[part], queries))))
            for first in range(3):
                for place in range(5):
                    prompt = torch.cat((xs[:8], xs[8 + place : 9 + place]))[None]
                    logits = model(prompt, torch.as_tensor((y[part] + first) % 3)[None]).logits[0, -1, :3]
                    of_query = np.zeros((5, 3))
                    of_query[place] = logits.softmax(dim=-1).roll(-first).detach().numpy()
                    total = total + of_query
    np.testing.assert_allclose(averaged.predict_proba(queries), total / 36, rtol=1e-4)


def test_a_random_state_decides_and_one_estimator_needs_none(make_model, data):
    X, y, queries = data

    def answers(**options):
        return InContextRegressor(make_model(), **options).fit(X, y).predict(queries)

    np.testing.assert_array_equal(answers(n_estimators=3, random_state=1), answers(n_estimators=3, random_state=1))
    assert (answers(n_estimators=3, random_state=1) != answers(n_estimators=3, random_state=2)).all()
    np.testing.assert_array_equal(answers(), answers(n_estimators=1, random_state=4))


def test_columns_that_a_model_knows_by_their_order_keep_it_and_those_of_zeros_stay():
    shown = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    shown[:, 3:] = 0
    draws = np.random.RandomState(0)
    turns = [Turn.draw(shown, False, draws) for _ in range(20)]
    assert len({tuple(turn.order) for turn in turns}) == 6
    for turn in turns:
        assert sorted(turn.order[:3]) == [0, 1, 2]
        assert not turn(shown)[:, 3:].any()
        torch.testing.assert_close(turn(shown)[:, :3].abs(), shown[:, turn.order[:3]].abs())
    ordered = [Turn.draw(shown, True, draws) for _ in range(20)]
    assert all(torch.equal(turn(shown).abs(), shown.abs()) for turn in ordered)
    assert len({tuple(turn.signs.tolist()) for turn in ordered}) > 10
    assert torch.equal(Turn.none(shown)(shown), shown)


@pytest.mark.parametrize("n_estimators", [0, 1.5, None])
def test_there_must_be_an_estimator(n_estimators, make_model, data):
    with pytest.raises(ValueError, match="`n_estimators` must be an integer >= 1, got"):
        InContextRegressor(make_model(), n_estimators=n_estimators).fit(*data[:2])
