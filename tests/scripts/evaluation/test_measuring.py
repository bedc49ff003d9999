"""Tasks of every objective are measured by the same code; each number is that of a sum written out."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from modeling_looped_gpt2 import (
    LoopedGPT2Config,
    LoopedGPT2ForInContextClassification,
    LoopedGPT2ForInContextRegression,
    LoopedGPT2LMHeadModel,
)
from scripts.evaluation.measuring import Sizes, draw_prompts, measure
from scripts.evaluation.metrics_record import Metrics
from scripts.evaluation.predictions import Answers
from scripts.evaluation.printed_tables import table_lines
from scripts.training.objectives import OBJECTIVES
from tasks import make_task
from tasks.prediction_cache import PredictionCache
from tests.scripts.toy_tasks import Copies, TwoClasses, Vectors


SIZES = Sizes(n_prompts=20, n_loop_prompts=None, n_shift_prompts=4, n_loops=2, max_loops=3, seed=1)


@pytest.fixture
def measured(tmp_path):
    """The record of a small untrained model on a task, and the model."""
    classes = {
        "regression": LoopedGPT2ForInContextRegression,
        "classification": LoopedGPT2ForInContextClassification,
        "answer_slots": LoopedGPT2LMHeadModel,
    }

    def run(task, sizes=SIZES, recipe=None, **fields):
        torch.manual_seed(0)
        sizes_of_task = {"n_dims": 3, "vocab_size": 5, "n_outputs": getattr(task, "n_outputs", 1)}
        order = {"example_order": "set"} if task.has_queries else {}
        sizes_of_task |= {"n_positions": 12} | task.model_fields | order | fields
        config = LoopedGPT2Config(n_embd=16, n_head=2, n_loops=2, **sizes_of_task)
        model = classes[task.objective](config).eval()
        answers = Answers(model, OBJECTIVES[task.objective](), PredictionCache(tmp_path / "cache"), batch_size=8)
        metrics = measure("small", recipe or {}, answers, task, draw_prompts(task, sizes.n_prompts, sizes.seed), sizes)
        metrics.write(tmp_path / "metrics.json")
        assert Metrics.read(tmp_path / "metrics.json") == metrics
        return metrics, model

    return run


def test_a_classification_is_measured_by_its_wrong_classes(measured):
    task = TwoClasses()
    metrics, model = measured(task, recipe={"task": "other", "n_points": 3})
    (prompts,) = draw_prompts(task, SIZES.n_prompts, SIZES.seed)
    labels = prompts["labels"]
    with torch.no_grad():
        by_loop = [model(prompts["xs"], prompts["ys"], n_loops=n).logits.argmax(dim=-1) for n in (1, 2, 3)]
    wrong = [(answers != labels).double() for answers in by_loop]
    errors = metrics.error_by_example
    assert errors["model"].error == pytest.approx(wrong[1].mean(dim=0).tolist())
    assert metrics.error_by_loop["last_point"] == pytest.approx([error[:, -1].mean().item() for error in wrong])
    assert metrics.error_by_loop["mean"] == pytest.approx([error.mean().item() for error in wrong])
    before = torch.cat((torch.zeros_like(labels[:, :1]), labels[:, :-1]), dim=1)  # class 0 where none is seen
    last = (before != labels).double()
    assert list(errors) == ["model", "last class"]
    assert errors["last class"].error == pytest.approx(last.mean(dim=0).tolist())
    assert metrics.limit.error[1:] == [0.0] * 4  # where an example is seen
    least = labels[:, :1].double() * torch.eye(5)[0]
    excess = wrong[1] - least
    assert metrics.excess_over_limit.error == pytest.approx(excess.mean(dim=0).tolist())
    assert metrics.mean_excess.error == pytest.approx(excess.mean().item())
    assert metrics.excess_of_baselines["last class"].error == pytest.approx((last - least).mean(dim=0).tolist())
    settings = metrics.settings
    assert (settings.score, settings.place, settings.limit) == (task.score_name, task.place_name, "the sign")
    assert settings.n_dims is settings.normaliser is None
    assert (settings.task_trained, settings.n_points, settings.n_points_trained) == ("other", 5, 3)
    assert metrics.shifts == metrics.published == metrics.published_shifts == metrics.components == {}


def test_answers_in_slots_are_measured_place_by_place(measured):
    task = Copies()
    metrics, model = measured(task)
    (prompts,) = draw_prompts(task, SIZES.n_prompts, SIZES.seed)
    labels = prompts["labels"][:, 3:]
    asked = labels != -100
    assert not asked.all()
    with torch.no_grad():
        by_loop = [model(prompts["input_ids"], n_loops=n).logits[:, 3:].argmax(dim=-1) for n in (1, 2, 3)]
    # by place, over the prompts that have it
    wrong = [((answers != labels) & asked).sum(dim=0) / asked.sum(dim=0) for answers in by_loop]
    assert metrics.error_by_example["model"].error == pytest.approx(wrong[1].tolist())
    assert metrics.error_by_loop["last_point"] == pytest.approx([error[-1].item() for error in wrong])
    assert metrics.error_by_loop["mean"] == pytest.approx([error.mean().item() for error in wrong])
    assert list(metrics.error_by_example) == ["model"]
    assert metrics.limit is metrics.mean_excess is None
    assert metrics.settings.n_points == 3


def test_values_that_are_vectors_are_measured_by_their_squared_length(measured):
    task = Vectors(n_dims=3, n_points=5)
    metrics, model = measured(task)
    (prompts,) = draw_prompts(task, SIZES.n_prompts, SIZES.seed)
    with torch.no_grad():
        predictions = model(prompts["xs"], prompts["ys"]).predictions
    errors = (predictions - prompts["labels"]).square().sum(dim=2) / 6
    np.testing.assert_allclose(metrics.error_by_example["model"].error, errors.mean(dim=0), rtol=1e-4)
    np.testing.assert_allclose(metrics.error_by_loop["last_point"][1], errors[:, -1].mean(), rtol=1e-4)
    zero = prompts["labels"].square().sum(dim=2).mean(dim=0) / 6
    np.testing.assert_allclose(metrics.error_by_example["zero"].error, zero, rtol=1e-6)
    assert metrics.error_by_example["least squares"].error[-1] < 1e-6


def test_an_answer_in_steps_is_measured_with_and_without_them(measured):
    task = make_task("relu_chain", n_dims=3, n_points=7, n_layers=1)
    metrics, model = measured(task)
    (prompts,) = draw_prompts(task, SIZES.n_prompts, SIZES.seed)
    xs, ys = prompts["xs"], prompts["ys"]
    for chain in range(3):
        place = 2 * chain
        with torch.no_grad():
            own = model(xs[:, : place + 1], ys[:, :place]).predictions[:, -1:]
            shown = [torch.cat((values[:, : place + n], own), dim=1) for values, n in ((xs, 1), (ys, 0))]
            told = [model(*each).predictions[:, -1] for each in (shown, (xs[:, : place + 2], ys[:, : place + 1]))]
        for name, answer in zip(("model, rolled out", "model"), told, strict=True):
            error = (answer - ys[:, place + 1]).square().sum(dim=1).mean() / 3
            assert metrics.error_by_example[name].error[chain] == pytest.approx(error.item(), rel=1e-4)
    assert metrics.settings.place_numbers == [0, 1, 2]
    assert metrics.excess_of_baselines.keys() >= {"model, rolled out", f"{task.solver.name}, rolled out"}
    assert metrics.error_by_example[f"{task.solver.name}, rolled out"].error[0] == metrics.limit.error[0]


def test_tables_of_several_shapes_are_measured_together(measured):
    task = make_task("table_prior", n_columns=4, n_points=16, n_dims=4)
    metrics, model = measured(task, sizes := replace(SIZES, n_prompts=30, n_loop_prompts=20))
    parts = draw_prompts(task, sizes.n_prompts, sizes.seed)
    assert len({part["ys"].shape[1] for part in parts}) == 7
    errors, nats = [[] for _ in range(7)], []
    for part in parts:
        with torch.no_grad():
            logits = model(part["xs"], part["ys"], n_loops=2).logits
        errors[part["ys"].shape[1] // 2 - 1] += (logits.argmax(dim=-1) != part["labels"]).double().mean(dim=1).tolist()
        nats.append(torch.nn.functional.cross_entropy(logits.movedim(-1, 1), part["labels"], reduction="none").ravel())
    assert metrics.error_by_example["model"].error == pytest.approx([np.mean(place) for place in errors])
    assert metrics.certainty["log loss"] == pytest.approx(torch.cat(nats).mean().item(), rel=1e-4)
    assert 0 <= metrics.certainty["expected calibration error"] <= 1
    assert metrics.settings.place_numbers == [2, 4, 6, 8, 10, 12, 14]
    first = [place[: (20 - number + 6) // 7] for number, place in enumerate(errors)]  # of the first 20 tables
    assert metrics.error_by_loop["mean"][1] == pytest.approx(np.mean([np.mean(place) for place in first]))
    printed = list(table_lines(metrics))
    assert printed[1].split() == ["examples", "2", "4", "8", "10", "14"]
    assert any(line.strip().startswith("log loss") for line in printed)


def test_a_mixture_is_measured_as_a_whole_and_by_component(measured):
    components = {"linear_regression": 1, "noisy_linear_regression": {"weight": 2, "noise_std": 0.5}}
    task = make_task("mixture", components=components, n_dims=3, n_points=6)
    metrics, model = measured(task)
    (prompts,) = draw_prompts(task, SIZES.n_prompts, SIZES.seed)
    with torch.no_grad():
        errors = task.score(model(prompts["xs"], prompts["ys"]).predictions.numpy(), prompts)
    assert metrics.error_by_example["model"].error == pytest.approx(errors.mean(axis=0).tolist(), rel=1e-4)
    assert list(metrics.error_by_example) == ["model"]
    assert list(metrics.components) == list(components)
    for name, part in metrics.components.items():
        alone, _ = measured(task.components[name])
        assert part == replace(alone, versions={})
        assert part.limit
        assert len(part.error_by_example) > 4
    assert metrics.components["linear_regression"].shifts
    printed = "\n".join(table_lines(metrics))
    assert all(f"normalised squared error, {name}, 20 prompts" in printed for name in ("mixture", *components))


def test_a_component_of_fewer_dimensions_is_measured_with_its_own_baselines_and_limit(measured):
    components = {"linear_regression": {"weight": 1, "n_dims": 2}, "decision_tree": {"weight": 1, "depth": 2}}
    task = make_task("mixture", components=components, n_dims=3, n_points=6)
    metrics, model = measured(task)
    part = metrics.components["linear_regression"]
    (prompts,) = draw_prompts(task.components["linear_regression"], SIZES.n_prompts, SIZES.seed)
    with torch.no_grad():
        wide = torch.nn.functional.pad(prompts["xs"], (0, 1))
        errors = task.components["linear_regression"].score(model(wide, prompts["ys"]).predictions.numpy(), prompts)
    assert part.error_by_example["model"].error == pytest.approx(errors.mean(axis=0).tolist(), rel=1e-4)
    assert part.settings.n_dims == 2
    assert max(part.limit.error[2:]) < 1e-6
    assert part.shifts["scale_x_2"]["model"].error


@pytest.mark.parametrize("order", ["causal", "set"])
def test_the_quantiles_of_functions_are_measured_at_every_place_and_by_component(order, measured):
    components = {"linear_regression": {"weight": 1, "n_dims": 2}, "noisy_linear_regression": 1}
    task = make_task("mixture", components=components, n_dims=3, n_points=6)
    metrics, model = measured(task, n_quantiles=20, example_order=order)
    tasks = (task, *task.components.values())
    for part, own in zip((metrics, *metrics.components.values()), tasks, strict=True):
        (prompts,) = draw_prompts(own, SIZES.n_prompts, SIZES.seed)
        xs, ys = torch.nn.functional.pad(prompts["xs"], (0, 3 - prompts["xs"].shape[2])), prompts["ys"]
        with torch.no_grad():
            quantiles = torch.stack([model(xs[:, : n + 1], ys[:, :n]).quantiles[:, -1] for n in range(6)], dim=1)
        low, high = (quantiles[..., i : i + 2].mean(dim=-1) for i in (0, 18))  # levels 0.025, 0.075 and 0.925, 0.975
        covered = ((low <= prompts["labels"]) & (prompts["labels"] <= high)).double().mean(dim=0)
        assert part.coverage_by_example == pytest.approx(covered.tolist())
        assert part.certainty == {"coverage of the 90% interval": pytest.approx(covered.mean().item())}
    printed = [line.split() for line in table_lines(metrics)]
    shown = [f"{share:.3g}" for share in (metrics.coverage_by_example[n] for n in (0, 1, 2, 3, 5))]
    assert ["in", "the", "90%", "interval", *shown] in printed


def test_tables_call_scores_and_places_by_their_names(measured):
    printed = list(table_lines(measured(Copies())[0]))
    assert printed[0] == "share of wrong answers, copies, 20 prompts"
    assert printed[1].split() == ["tokens", "back", "0", "1", "2"]
    assert printed[-1].strip().startswith("model, 2 tokens back")


def test_a_place_that_no_prompt_has_is_said(measured):
    with pytest.raises(ValueError, match="draw more prompts"):
        measured(Copies(share=0.0))
    task, sizes = Copies(share=0.1), replace(SIZES, n_loop_prompts=1)
    (prompts,) = draw_prompts(task, sizes.n_prompts, sizes.seed)
    assert (prompts["labels"] != -100)[:, 3:].any(dim=0).all()
    with pytest.raises(ValueError, match="1 prompts lack a place of the score: give more, `--n_loop_prompts`"):
        measured(task, sizes)
