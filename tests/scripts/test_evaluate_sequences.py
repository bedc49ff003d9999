import json
import sys

import numpy as np
import pytest
import torch

from modeling_looped_gpt2 import LoopedGPT2Config, LoopedGPT2LMHeadModel
from scripts import evaluate
from scripts.evaluation.metrics_record import Metrics
from tasks import make_task
from tasks.streams import make_generator


@pytest.fixture(scope="module")
def parity_folder(tmp_path_factory):
    torch.manual_seed(0)
    config = LoopedGPT2Config(
        n_embd=16, n_head=2, n_positions=3, n_loops=2, vocab_size=3, attention_window=2, initializer_range=0.5
    )
    folder = tmp_path_factory.mktemp("parity")
    LoopedGPT2LMHeadModel(config).save_pretrained(folder)
    recipe = "task: parity\ntask_settings: {positions: alternate, max_length: 4}\nloop_rate: 1.5\n"
    (folder / "recipe.yaml").write_text(recipe)
    return folder


@pytest.fixture
def evaluate_parity(parity_folder, tmp_path, monkeypatch):
    """Evaluate the model with further flags in tmp_path / "out"; returns the record."""

    def call(*flags):
        words = ["--model", parity_folder, "--task", "parity", "--n_prompts", 30, "--batch_size", 8]
        words += ["--output_dir", tmp_path / "out", "--cache_dir", tmp_path / "cache", *flags]
        monkeypatch.setattr(sys, "argv", ["evaluate.py", *map(str, words)])
        evaluate.main()
        return json.loads((tmp_path / "out" / "metrics.json").read_text())

    return call


def test_prompts_that_need_loops_of_their_own_are_measured_by_rule_loop_and_length(
    evaluate_parity, tmp_path, parity_folder, capsys
):
    metrics = evaluate_parity("--task_settings", "{max_length: 7, min_length: 3}", "--n_prompts", 80)
    settings = metrics["settings"]
    assert settings.items() >= {"n_points": 5, "first_place": 3, "n_loops": 11, "max_loops": 22}.items()
    task = make_task("parity", max_length=7, min_length=3, positions="alternate")
    prompts = task.sample(80, make_generator("evaluation", 1))
    model = LoopedGPT2LMHeadModel.from_pretrained(parity_folder).eval()
    lengths = task.lengths(task.questions(prompts))
    columns = {name: values for name, values in prompts.items() if name != "labels"}
    calls = {
        "needed loops": {"n_loops": (1.5 * lengths).ceil().long()},
        "twice the needed loops": {"n_loops": 2 * (1.5 * lengths).ceil().long()},
        "exit_confidence 0.9": {"n_loops": 22, "exit_confidence": 0.9},
        "exit_tolerance 0.05": {"n_loops": 22, "exit_tolerance": 0.05},
        "exit_tolerance 1e-05": {"n_loops": 22, "exit_tolerance": 1e-5},
    }
    assert metrics["stops"].keys() == calls.keys()
    for rule, arguments in calls.items():
        outputs = model(**columns, **arguments)
        scores = task.score(outputs.logits.argmax(dim=-1).numpy(), prompts)
        assert metrics["stops"][rule]["errors"]["error"] == pytest.approx(np.nanmean(scores, axis=0))
        loops = [outputs.n_loops_used[lengths == length].float().mean().item() for length in range(3, 8)]
        assert metrics["stops"][rule]["mean_loops"] == pytest.approx(loops)
    for n_loops, row in enumerate(metrics["error_by_loop_and_place"], start=1):
        scores = task.score(model(**columns, n_loops=n_loops).logits.argmax(dim=-1).numpy(), prompts)
        assert row == pytest.approx(np.nanmean(scores, axis=0))
    assert n_loops == 22
    assert metrics["error_by_loop"]["last_point"] == [row[-1] for row in metrics["error_by_loop_and_place"]]
    assert Metrics.read(tmp_path / "out" / "metrics.json").stops["needed loops"].mean_loops[0] == 5
    printed = capsys.readouterr().out
    assert "exit_confidence 0.9" in printed
    assert "model, 7 bits" in printed


def test_loops_that_are_too_few_are_noted(evaluate_parity, capsys):
    settings = evaluate_parity("--n_loops", 3)["settings"]
    assert (settings["n_loops"], settings["max_loops"]) == (3, 12)
    assert "note: the longest prompt needs 6 loops and `n_loops` is 3, so answers" in capsys.readouterr().err
    evaluate_parity("--n_loops", 6)
    assert "note" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "error"),
    [
        (("--task_settings", "{max_length: 0}"), "`max_length` must be an integer >= 1, got 0"),
        (("--max_loops", 3), "`max_loops` must be >= 6, the loops that the longest prompt needs, got 3"),
        (
            ("--task_settings", "{positions: order}"),
            "`n_positions` of the model must be >= 5 for parity of `max_length` 4, got 3",
        ),
    ],
)
def test_lengths_and_loops_that_do_not_fit_are_refused_in_one_sentence(flags, error, evaluate_parity, tmp_path):
    with pytest.raises(SystemExit, match=error) as refused:
        evaluate_parity(*flags)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "out").exists()
