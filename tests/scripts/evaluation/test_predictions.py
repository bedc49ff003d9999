"""What a model answers is what its head gives, and is kept under all that it depends on."""

import itertools

import numpy as np
import pytest
import torch

from scripts.evaluation import predictions
from scripts.evaluation.predictions import Answers
from scripts.training.objectives import Regression
from tasks import make_task
from tasks.prediction_cache import PredictionCache
from tasks.turns import draw_turns


def shifted(shift):
    task = make_task("linear_regression", n_dims=3)
    return task.shifts[shift].sample(task, 5, torch.Generator().manual_seed(0), 7)


@pytest.fixture
def answers_of(tmp_path):
    def make(model, batch_size=2, folder="cache", turns=None):
        return Answers(model, Regression(), PredictionCache(tmp_path / folder), batch_size, turns)

    return make


def test_queries_that_are_the_points_give_the_plain_predictions(make_model, answers_of):
    answers, prompts = answers_of(make_model()), shifted("scale_x_2")
    plain = {name: values for name, values in prompts.items() if name != "queries"}
    by_loop = answers.to_parts([plain], 3, every_loop=True)[0]
    np.testing.assert_allclose(answers.at_queries(prompts, 3), by_loop[:, -1], rtol=1e-4, atol=1e-5)


def test_the_last_loop_is_what_a_model_answers_whatever_the_size_of_a_batch(make_model, answers_of):
    model, prompts = make_model(), shifted("scale_x_2")
    by_loop = answers_of(model, 2, "by loop").to_parts([prompts], 4, every_loop=True)[0]
    assert by_loop.shape == (5, 4, 7)
    last = answers_of(model, 3, "last").to_parts([prompts], 4)[0]
    np.testing.assert_allclose(last, by_loop[:, -1], rtol=1e-4, atol=1e-5)


def test_answers_are_means_over_the_turns_of_a_prompt(make_model, answers_of):
    model, prompts = make_model(), shifted("scale_x_2")
    turns = draw_turns(make_task("linear_regression", n_dims=3), 3, torch.Generator().manual_seed(0))
    averaged, plain = answers_of(model, turns=turns), answers_of(model)
    turned = [prompts | {name: prompts[name] @ turn for name in ("xs", "queries")} for turn in turns]
    for ask in (
        lambda answers, asked: answers.to_parts([asked], 2)[0],
        lambda answers, asked: answers.to_parts([asked], 3, every_loop=True)[0],
        lambda answers, asked: answers.at_queries(asked, 2),
    ):
        alone = [ask(plain, asked) for asked in turned]
        np.testing.assert_allclose(ask(averaged, prompts), np.mean(alone, axis=0), rtol=1e-4, atol=1e-5)
        assert not np.allclose(alone[0], alone[1], atol=1e-3)


def test_answers_are_kept_apart_by_all_that_they_depend_on(make_model, answers_of, tmp_path, monkeypatch):
    model, prompts = make_model(), shifted("random_quadrants")
    answers = answers_of(model, batch_size=5)
    several = [answers.to_parts([prompts], 2)[0], answers.to_parts([prompts], 3)[0]]
    several.append(answers.to_parts([prompts], 3, every_loop=True)[0][:, 0])
    several.append(answers.at_queries(prompts, 3))
    monkeypatch.setattr(predictions.transformers, "__version__", "0.0")
    several.append(answers_of(model, batch_size=5).to_parts([prompts], 3)[0])
    assert len(list((tmp_path / "cache").iterdir())) == 5
    assert all((first != second).any() for first, second in itertools.pairwise(several))
    monkeypatch.setattr(Regression, "answers", lambda *_: pytest.fail("the model answers again"))
    np.testing.assert_array_equal(answers_of(model, batch_size=5).to_parts([prompts], 3)[0], several[-1])


def test_a_model_of_quantiles_is_asked_once_for_them_and_for_their_mean(make_model, answers_of, monkeypatch):
    model, prompts = make_model(n_quantiles=4), shifted("scale_x_2")
    plain = {name: prompts[name] for name in ("xs", "ys")} | {"labels": prompts["labels"]}
    (answered,) = answers_of(model).to_parts([plain], 3)
    with torch.no_grad():
        outputs = model(plain["xs"], plain["ys"], n_loops=3)
    np.testing.assert_allclose(answered, outputs.predictions, rtol=1e-4, atol=1e-6)
    monkeypatch.setattr(Regression, "told", lambda *_: pytest.fail("the model answers again"))
    (quantiles,) = answers_of(model).fields("quantiles", [plain], 3)
    np.testing.assert_allclose(quantiles, outputs.quantiles, rtol=1e-4, atol=1e-6)
