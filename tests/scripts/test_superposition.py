import json
import sys

import pytest

from modeling_looped_gpt2 import LoopedGPT2Config, LoopedGPT2ForInContextRegression
from scripts import superposition


@pytest.fixture
def call(tmp_path, monkeypatch):
    """Call the program with a small model of three dimensions and 7 examples."""
    config = LoopedGPT2Config(n_embd=16, n_head=2, n_dims=3, n_positions=16, n_loops=2)
    LoopedGPT2ForInContextRegression(config).save_pretrained(tmp_path)

    def run(*words):
        flags = ["--model", str(tmp_path), "--output_dir", str(tmp_path), "--n_prompts", "20", *words]
        monkeypatch.setattr(sys, "argv", ["superposition.py", *flags])
        superposition.main()
        return json.loads((tmp_path / "superposition.json").read_text())

    return run


def test_the_answers_to_mixed_examples_are_divided_written_and_printed(call, capsys):
    record = call("--tasks", "linear_regression", "decision_tree")
    assert record["settings"]["tasks"] == ["linear_regression", "decision_tree"]
    assert (record["settings"]["n_loops"], record["n_examples"]) == (2, [1, 3, 5, 7])
    lines = capsys.readouterr().out.splitlines()
    rows = [line.split() for line in lines if line.split()[:1] in (["1"], ["3"], ["5"], ["7"])]
    assert [row[1] for row in rows] == 4 * ["1.0", "0.75", "0.5", "0.25", "0.0"]
    assert [float(row[5]) for row in rows[:5]] == pytest.approx(
        [values[0] for values in record["ridge"]["first"]], abs=6e-4
    )
    assert call("--tasks", "linear_regression", "decision_tree", "--n_loops", "3")["settings"]["n_loops"] == 3


@pytest.mark.parametrize("words", [["linear_regression"], ["linear_regression", "parity"], ["x", "decision_tree"], []])
def test_tasks_are_two_classes_of_functions(words, call, capsys):
    with pytest.raises(SystemExit, match="2"):
        call("--tasks", *words)
    assert "--tasks" in capsys.readouterr().err


def test_what_cannot_be_mixed_is_refused_in_one_line(call, tmp_path):
    with pytest.raises(SystemExit, match="error: `tasks` must draw x alike"):
        call("--tasks", "linear_regression", "sparse_parity")
    assert not (tmp_path / "superposition.json").exists()
