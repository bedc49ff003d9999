import json
import re
import shutil
import sys
from functools import partial

import numpy as np
import pytest
import torch

from modeling_looped_gpt2 import (
    LoopedGPT2Config,
    LoopedGPT2ForInContextClassification,
    LoopedGPT2ForInContextRegression,
    LoopedGPT2LMHeadModel,
)
from scripts import evaluate
from scripts.common.output_folder import DRAWN_FROM_METRICS
from scripts.evaluation.metrics_record import Metrics
from scripts.training.objectives import Regression
from tasks import TASKS, make_task, prediction_cache
from tasks.baselines.classical import predict_ridge
from tasks.baselines.prefixes import predict_prefixes
from tasks.published import published
from tasks.shifts import SHIFT_BASELINES, SHIFTS
from tasks.streams import make_generator
from tasks.turns import draw_turns
from tests.scripts.toy_tasks import Copies, TwoClasses


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("model")
    config = LoopedGPT2Config(n_embd=16, n_head=2, n_dims=3, n_positions=12, n_loops=4)
    LoopedGPT2ForInContextRegression(config).save_pretrained(folder)
    return folder


@pytest.fixture
def run(monkeypatch):
    def run(*flags):
        monkeypatch.setattr(sys, "argv", ["evaluate.py", *map(str, flags)])
        evaluate.main()

    return run


def evaluate_small(run, model_folder, output_dir, *flags):
    task = ("--model", model_folder, "--task", "noisy_linear_regression")
    cache = ("--cache_dir", output_dir.with_name(f"{output_dir.name}_cache"))
    run(*task, "--n_prompts", 30, "--batch_size", 8, "--output_dir", output_dir, *cache, *flags)
    return json.loads((output_dir / "metrics.json").read_text())


def test_settings_of_the_task_can_be_given(run, model_folder, tmp_path, capsys):
    plain, noiseless, strange = (tmp_path / name for name in ("plain", "noiseless", "strange"))
    assert evaluate_small(run, model_folder, plain)["settings"]["limit"] == "ridge at the true noise"
    given = evaluate_small(run, model_folder, noiseless, "--task_settings", "{noise_std: 0}")
    assert given["settings"]["limit"] == "minimum-norm least squares"
    assert given["limit"]["error"][-1] < 1e-9 < given["error_by_example"]["model"]["error"][-1]
    for settings, message in (
        ("{depth: 2}", "got `depth`"),
        ("[2]", "`task_settings`"),
        ("{noise_std: [1]}", "another type"),
    ):
        with pytest.raises(SystemExit, match=message):
            evaluate_small(run, model_folder, strange, "--task_settings", settings)
    assert not strange.exists()


def test_a_set_is_trained_and_measured_by_number_of_examples(run, train_here, tmp_path, capsys):
    flags = ("--example_order", "set", "--hint_weight", 0)
    assert train_here(tmp_path / "run", *flags, stop_at=6) == 143
    assert train_here(tmp_path / "run", *flags) == 0
    metrics = evaluate_small(run, tmp_path / "run", tmp_path / "out")
    model = LoopedGPT2ForInContextRegression.from_pretrained(tmp_path / "run").eval()
    prompts = make_task("noisy_linear_regression", n_dims=3).sample(30, make_generator("evaluation", 1), n_points=5)
    xs, ys, labels = (prompts[name] for name in ("xs", "ys", "labels"))
    with torch.no_grad():
        answers = torch.cat([model(xs[:, : n + 1], ys[:, :n]).predictions for n in range(5)], dim=1)
    errors = (answers - labels).square().mean(dim=0) / 3
    np.testing.assert_allclose(metrics["error_by_example"]["model"]["error"], errors, rtol=1e-4)
    assert metrics["error_by_loop"]["last_point"][3] == pytest.approx(errors[-1].item(), rel=1e-4)


def test_a_model_of_vectors_is_not_measured_on_numbers(run, tmp_path):
    config = LoopedGPT2Config(n_embd=16, n_head=2, n_dims=3, n_positions=12, n_loops=4, n_outputs=2)
    LoopedGPT2ForInContextRegression(config).save_pretrained(tmp_path / "vectors")
    with pytest.raises(SystemExit, match="`n_outputs` of the model must be 1 for noisy_linear_regression, got 2"):
        evaluate_small(run, tmp_path / "vectors", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_metrics_hold_what_the_model_and_the_baselines_do(run, model_folder, tmp_path, capsys):
    metrics = evaluate_small(run, model_folder, tmp_path / "new")
    assert metrics["settings"].items() >= {"n_points": 6, "n_loops": 4, "max_loops": 20, "normaliser": 3.0}.items()
    assert list(metrics["error_by_example"]) == ["model", *make_task("noisy_linear_regression").baselines]
    prompts = make_task("noisy_linear_regression", n_dims=3).sample(30, make_generator("evaluation", 1), n_points=6)
    model = LoopedGPT2ForInContextRegression.from_pretrained(model_folder).eval()
    with torch.no_grad():
        errors = {
            n: ((model(prompts["xs"], prompts["ys"], n_loops=n).predictions - prompts["labels"]) ** 2 / 3).double()
            for n in (1, 4, 20)
        }
    curve = metrics["error_by_example"]["model"]
    np.testing.assert_allclose(curve["error"], errors[4].mean(dim=0), rtol=1e-4)
    assert all(
        low < error < high for low, error, high in zip(*(curve[k] for k in ("low", "error", "high")), strict=True)
    )
    by_loop = metrics["error_by_loop"]
    assert len(by_loop["last_point"]) == len(by_loop["mean"]) == 20
    for n, error in errors.items():
        assert by_loop["last_point"][n - 1] == pytest.approx(error[:, -1].mean().item(), rel=1e-4)
        assert by_loop["mean"][n - 1] == pytest.approx(error.mean().item(), rel=1e-4)
    zero = metrics["error_by_example"]["zero"]["error"]
    np.testing.assert_allclose(zero, (prompts["labels"] ** 2 / 3).double().mean(dim=0), rtol=1e-6)
    limit = predict_prefixes(partial(predict_ridge, alpha=0.01), prompts["xs"], prompts["ys"])
    limit_errors = (limit - prompts["labels"]).square() / 3
    np.testing.assert_allclose(metrics["limit"]["error"], limit_errors.mean(dim=0), rtol=1e-6)
    excess = errors[4] - limit_errors
    np.testing.assert_allclose(metrics["excess_over_limit"]["error"], excess.mean(dim=0), rtol=1e-4, atol=1e-6)
    assert metrics["mean_excess"]["error"] == pytest.approx(excess.mean().item(), rel=1e-4)
    assert metrics["mean_excess"]["low"] < excess.mean() < metrics["mean_excess"]["high"]
    assert metrics["shifts"] == metrics["published"] == {}
    rows = dict(re.findall(r"^ *(\S.*?) {2,}(.*)$", capsys.readouterr().out, re.MULTILINE))
    for name, curve in metrics["error_by_example"].items():
        assert rows[name].split() == [f"{curve['error'][n]:.3g}" for n in map(int, rows["examples"].split())]
    assert rows["model, 5 examples"].split() == [
        f"{by_loop['last_point'][n - 1]:.3g}" for n in map(int, rows["loops"].split())
    ]


def test_shifts_are_measured_on_linear_functions(run, model_folder, tmp_path, capsys):
    flags = ("--task", "linear_regression", "--n_shift_prompts", 6, "--n_loop_prompts", 5, "--max_loops", 4)
    metrics = evaluate_small(run, model_folder, tmp_path / "out", *flags)
    assert list(metrics["shifts"]) == list(SHIFTS)
    for curves in metrics["shifts"].values():
        assert list(curves) == ["model", "limit", *SHIFT_BASELINES]
        assert len({len(values) for curve in curves.values() for values in curve.values()}) == 1
    assert metrics["settings"]["n_loop_prompts"] == 5
    task = make_task("linear_regression", n_dims=3, n_points=6)
    model = LoopedGPT2ForInContextRegression.from_pretrained(model_folder).eval()
    prompts = SHIFTS["scale_x_2"].sample(task, 6, make_generator("shift", 1), 6)
    with torch.no_grad():
        errors = (model(prompts["xs"], prompts["ys"]).predictions - prompts["labels"]).square() / 3
    shifted = metrics["shifts"]["scale_x_2"]
    np.testing.assert_allclose(shifted["model"]["error"], errors.mean(dim=0), rtol=1e-4)
    np.testing.assert_allclose(shifted["zero"]["error"], (prompts["labels"] ** 2 / 3).mean(dim=0), rtol=1e-6)
    last = [f"{shifted[name]['error'][-1]:.3g}" for name in ("model", "limit", "zero")]
    assert re.search(r"scale_x_2 +" + " +".join(map(re.escape, last)), capsys.readouterr().out)
    prompts = task.sample(30, make_generator("evaluation", 1))
    with torch.no_grad():
        predictions = model(prompts["xs"][:5], prompts["ys"][:5]).predictions
    error = (predictions[:, -1] - prompts["labels"][:5, -1]).square().mean() / 3
    assert metrics["error_by_loop"]["last_point"][-1] == pytest.approx(error.item(), rel=1e-4)


def test_answers_are_averaged_over_turns_also_on_shifts(run, model_folder, tmp_path, capsys):
    flags = ("--task", "linear_regression", "--n_shift_prompts", 6, "--n_turns", 3)
    metrics = evaluate_small(run, model_folder, tmp_path / "out", *flags)
    assert metrics["settings"]["n_turns"] == 3
    assert "30 prompts, mean answers of 3 turns" in capsys.readouterr().out
    task = make_task("linear_regression", n_dims=3, n_points=6)
    model = LoopedGPT2ForInContextRegression.from_pretrained(model_folder).eval()
    turns = draw_turns(task, 3, make_generator("turns", 1))
    plain = task.sample(30, make_generator("evaluation", 1))
    shifted = SHIFTS["scale_x_2"].sample(task, 6, make_generator("shift", 1), 6)
    for prompts, curve in ((plain, metrics["error_by_example"]), (shifted, metrics["shifts"]["scale_x_2"])):
        with torch.no_grad():
            answers = torch.stack([model(prompts["xs"] @ turn, prompts["ys"]).predictions for turn in turns])
        errors = (answers.mean(dim=0) - prompts["labels"]).square() / 3
        np.testing.assert_allclose(curve["model"]["error"], errors.mean(dim=0), rtol=1e-4)


def test_short_prompts_are_shown_beside_the_papers(run, tmp_path):
    config = LoopedGPT2Config(n_embd=16, n_head=2, n_dims=20, n_positions=12, n_loops=2)
    LoopedGPT2ForInContextRegression(config).save_pretrained(tmp_path / "model")
    flags = ("--task", "linear_regression", "--n_shift_prompts", 2, "--n_points", 4)
    metrics = evaluate_small(run, tmp_path / "model", tmp_path / "out", *flags)
    assert {len(curve["error"]) for curve in metrics["published"].values()} == {4}
    assert metrics["published_shifts"] == published()["shifts"]["curves"]
    assert Metrics.read(tmp_path / "out" / "metrics.json") == Metrics.from_dict(metrics)


def test_an_interrupted_evaluation_goes_on(run, model_folder, tmp_path, monkeypatch):
    flags = ("--cache_dir", tmp_path / "cache")
    expected = evaluate_small(run, model_folder, tmp_path / "whole")["error_by_example"]
    computed, predict = [], prediction_cache.predict_prefixes

    def stop_at_ridge(predictor, *prompts):
        if predictor is predict_ridge and len(computed) == 4:
            raise KeyboardInterrupt
        computed.append(predictor)
        return predict(predictor, *prompts)

    monkeypatch.setattr(prediction_cache, "predict_prefixes", stop_at_ridge)
    with pytest.raises(KeyboardInterrupt):
        evaluate_small(run, model_folder, tmp_path / "out", *flags)
    assert not (tmp_path / "out" / "metrics.json").exists()
    computed.append(None)
    monkeypatch.setattr(Regression, "answers", lambda *_: pytest.fail("the model answers again"))
    resumed = evaluate_small(run, model_folder, tmp_path / "out", *flags)["error_by_example"]
    for name, curve in expected.items():
        for part, values in curve.items():
            assert resumed[name][part] == pytest.approx(values, rel=1e-4), name
    assert [getattr(predictor, "func", predictor) for predictor in computed[5:]] == [predict_ridge] * 2


CHANGES = {
    "weights": lambda model: model.read_out.weight.data.mul_(2),
    "settings": lambda model: setattr(model.config, "input_injection", "multiply"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_the_predictions_of_another_model_are_never_taken(change, run, model_folder, tmp_path):
    cache = ("--cache_dir", tmp_path / "cache")
    first = evaluate_small(run, model_folder, tmp_path / "first", *cache)
    model = LoopedGPT2ForInContextRegression.from_pretrained(model_folder)
    CHANGES[change](model)
    model.save_pretrained(tmp_path / "changed")
    second = evaluate_small(run, tmp_path / "changed", tmp_path / "second", *cache)
    assert first["error_by_example"]["model"] != second["error_by_example"]["model"]
    assert first["error_by_example"]["zero"] == second["error_by_example"]["zero"]


def test_two_evaluations_give_the_same_numbers(run, model_folder, tmp_path):
    first, second = (evaluate_small(run, model_folder, tmp_path / name, "--seed", 3) for name in "ab")
    assert first == second
    assert (
        evaluate_small(run, model_folder, tmp_path / "c", "--seed", 4)["error_by_example"] != first["error_by_example"]
    )


BAD_FLAGS = {
    "unknown task": (["--task", "linear"], 2, "invalid choice: 'linear'"),
    "no prompts": (["--n_prompts", "0"], 2, "`n_prompts` must be >= 1, got 0"),
    "negative shifts": (["--n_shift_prompts", "-1"], 2, "`n_shift_prompts` must be >= 0, got -1"),
    "no turns": (["--n_turns", "0"], 2, "`n_turns` must be >= 1, got 0"),
    "turns of a class that has none": (
        ["--task", "fourier_regression", "--n_turns", "2"],
        "`n_turns` must be 1 for fourier_regression, of which no turns of x are known, got 2",
        None,
    ),
    "negative seed": (["--seed", "-1"], 2, "`seed` must be >= 0, got -1"),
    "too many points": (["--n_points", "7"], "`n_positions` = 12", None),
    "too few loops": (["--max_loops", "3"], "`max_loops` must be >= the loops of the model, 4, got 3", None),
    "too many prompts": (["--n_prompts", "1" + 15 * "0"], "prompts (`n_prompts`) cannot be drawn", None),
    "too many for this model": (
        ["--n_points", "70"],
        "`n_points` must be <= 6 for a model of `n_positions` = 12",
        None,
    ),
    "a revision of a folder": (["--revision", "v1"], "`revision` is of a repository of the Hub", None),
    "no model": (["--model", "/nowhere"], "there is no folder /nowhere", None),
    "a misspelt folder": (["--model", "tests/script"], "there is no folder tests/script;", None),
    "a misspelt folder deep down": (["--model", "runs/linear/chekpoint"], "there is no folder runs/linear/ch", None),
}


@pytest.mark.parametrize("name", BAD_FLAGS)
def test_a_bad_flag_is_refused_and_nothing_is_written(name, run, model_folder, tmp_path, capsys):
    flags, code, message = BAD_FLAGS[name]
    with pytest.raises(SystemExit) as exit:
        evaluate_small(run, model_folder, tmp_path / "out", *flags)
    if message is None:
        assert code in str(exit.value)
    else:
        assert exit.value.code == code
        assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_model_of_another_function_class_is_measured_and_said_to_be_one(run, model_folder, tmp_path, capsys):
    folder = shutil.copytree(model_folder, tmp_path / "trained")
    (folder / "recipe.yaml").write_text("task: decision_tree\nn_points: 4\n")
    metrics = evaluate_small(run, folder, tmp_path / "out")
    note = "was trained on decision_tree and is measured on noisy_linear_regression"
    assert note in capsys.readouterr().err
    assert metrics["settings"].items() >= {"task_trained": "decision_tree", "n_points_trained": 4}.items()
    (folder / "recipe.yaml").write_text("task: noisy_linear_regression\n")
    evaluate_small(run, folder, tmp_path / "out")
    assert "was trained on" not in capsys.readouterr().err


@pytest.mark.parametrize("trusted", [(), ("--trust_remote_code",)], ids=["own code", "its code"])
@pytest.mark.parametrize(
    ("task", "model_class"), [(TwoClasses, LoopedGPT2ForInContextClassification), (Copies, LoopedGPT2LMHeadModel)]
)
def test_the_head_that_a_task_is_learned_with_is_evaluated(task, model_class, trusted, run, tmp_path, monkeypatch):
    monkeypatch.setitem(TASKS, task.name, task)
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    config = LoopedGPT2Config(n_embd=16, n_head=2, n_dims=3, n_positions=10, n_loops=2, vocab_size=5)
    folder = tmp_path / task.name  # transformers takes folders of one name for the same code
    model_class(config).save_pretrained(folder)
    metrics = evaluate_small(run, folder, folder, "--task", task.name, *trusted)
    assert metrics["settings"]["score"] == task.score_name
    assert all(0 <= error <= 1 for error in metrics["error_by_example"]["model"]["error"])


@pytest.mark.parametrize("name", ["two_classes", "copies"])
def test_a_model_that_cannot_take_the_prompts_of_a_task_is_refused(name, run, model_folder, tmp_path, monkeypatch):
    for task in (TwoClasses, Copies):
        monkeypatch.setitem(TASKS, task.name, task)
    with pytest.raises(SystemExit, match="must hold a LoopedGPT2"):
        evaluate_small(run, model_folder, tmp_path / "out", "--task", name)
    for task, model_class in ((TwoClasses, LoopedGPT2ForInContextClassification), (Copies, LoopedGPT2LMHeadModel)):
        config = LoopedGPT2Config(n_embd=16, n_head=2, n_dims=3, n_positions=5, n_loops=2, vocab_size=5)
        model_class(config).save_pretrained(tmp_path / task.name)
    with pytest.raises(SystemExit, match=f"`n_positions` of the model must be >= .* for {name} of .*, got 5"):
        evaluate_small(run, tmp_path / name, tmp_path / "out", "--task", name)
    with pytest.raises(SystemExit, match=f"`n_points` is not a size of {name}: leave it out"):
        evaluate_small(run, tmp_path / name, tmp_path / "out", "--task", name, "--n_points", 3)
    assert not (tmp_path / "out").exists()


def test_the_task_has_the_settings_of_the_training(run, model_folder, tmp_path):
    folder = shutil.copytree(model_folder, tmp_path / "trained")
    recipe = "task: mixture\ntask_settings:\n  components: {linear_regression: 2, noisy_linear_regression: 1}\n"
    (folder / "recipe.yaml").write_text(recipe)
    metrics = evaluate_small(run, folder, tmp_path / "out", "--task", "mixture", "--n_shift_prompts", 0)
    assert list(metrics["components"]) == ["linear_regression", "noisy_linear_regression"]
    alone = evaluate_small(run, folder, tmp_path / "alone", "--n_shift_prompts", 0)
    alone.pop("versions")
    assert metrics["components"]["noisy_linear_regression"] == alone
    for settings in ("{components: {linear_regression: much}}", "{components: 3}", "{depth: 2}", "{1: 2}"):
        (folder / "recipe.yaml").write_text(f"task: mixture\ntask_settings: {settings}\n")
        with pytest.raises(SystemExit, match="error: ") as refused:
            evaluate_small(run, folder, tmp_path / "new", "--task", "mixture")
        assert "\n" not in str(refused.value)


def test_a_folder_of_predictions_that_cannot_be_one_is_refused(run, model_folder, tmp_path):
    (tmp_path / "file").write_text("a file")
    with pytest.raises(SystemExit, match=r"`cache_dir` .*file cannot be written to"):
        evaluate_small(run, model_folder, tmp_path / "out", "--cache_dir", tmp_path / "file")
    assert not (tmp_path / "out").exists()


def test_code_of_others_runs_where_it_is_trusted_and_is_evaluated_as_such(run, model_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    fork = shutil.copytree(model_folder, tmp_path / "fork")
    code = fork / "modeling_looped_gpt2_regression.py"
    code.write_text(code.read_text() + f"\n\nopen({str(tmp_path / 'ran')!r}, 'w').close()\n")
    cache = ("--cache_dir", tmp_path / "cache")
    own = evaluate_small(run, fork, tmp_path / "own", *cache)
    assert not (tmp_path / "ran").exists()
    n_kept = len(list((tmp_path / "cache").iterdir()))
    forked = evaluate_small(run, fork, tmp_path / "forked", *cache, "--trust_remote_code")
    assert (tmp_path / "ran").exists()
    assert own["error_by_example"] == forked["error_by_example"]
    assert len(list((tmp_path / "cache").iterdir())) > n_kept  # its predictions are its own


def test_all_errors_of_the_model_are_of_the_same_prompts(run, model_folder, tmp_path):
    metrics = evaluate_small(run, model_folder, tmp_path / "all")
    by_example, by_loop = metrics["error_by_example"]["model"]["error"], metrics["error_by_loop"]
    assert metrics["settings"]["n_loop_prompts"] == metrics["settings"]["n_prompts"] == 30
    assert by_loop["last_point"][3] == pytest.approx(by_example[-1], rel=1e-6)
    assert by_loop["mean"][3] == pytest.approx(np.mean(by_example), rel=1e-6)
    assert by_loop["last_fifth"][3] == pytest.approx(np.mean(by_example[4:]), rel=1e-6)
    some = evaluate_small(run, model_folder, tmp_path / "some", "--n_loop_prompts", 7)
    assert some["settings"]["n_loop_prompts"] == 7
    np.testing.assert_allclose(some["error_by_example"]["model"]["error"], by_example, rtol=1e-4)


@pytest.mark.parametrize("flags", [("--n_points", 1), ("--n_prompts", 1), ("--n_loops", 1, "--max_loops", 1)])
def test_the_smallest_sizes_are_measured(flags, run, model_folder, tmp_path):
    metrics = evaluate_small(run, model_folder, tmp_path / "out", *flags)
    assert Metrics.read(tmp_path / "out" / "metrics.json") == Metrics.from_dict(metrics)


def test_a_model_that_diverges_is_said_to(run, model_folder, tmp_path, monkeypatch):
    def diverge(objective, model, prompts, n_loops, every_loop):
        by_loop = torch.zeros(len(prompts["xs"]), n_loops, prompts["xs"].shape[1])
        by_loop[3, 12:] = torch.inf
        return by_loop

    monkeypatch.setattr(Regression, "answers", diverge)
    with pytest.raises(SystemExit, match="answers after 13 loops are not finite: give fewer, `--max_loops 12`"):
        evaluate_small(run, model_folder, tmp_path / "out")


def test_pictures_of_other_numbers_go_with_them(run, model_folder, tmp_path, capsys):
    folder = shutil.copytree(model_folder, tmp_path / "model")
    evaluate_small(run, folder, folder)
    for name in (*DRAWN_FROM_METRICS, "probe.png", "notes.txt"):
        (folder / name).write_text("drawn")
    evaluate_small(run, folder, folder)
    assert all((folder / name).exists() for name in DRAWN_FROM_METRICS)  # the numbers are the same
    evaluate_small(run, folder, folder, "--seed", 2)
    assert not any((folder / name).exists() for name in DRAWN_FROM_METRICS)
    assert "removed error.png, error.svg" in capsys.readouterr().out
    assert (folder / "probe.png").exists()  # of the weights, which are the same
    assert (folder / "notes.txt").exists()
