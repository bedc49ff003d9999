"""scripts/train.py: a recipe in, a folder with a model out; stopped runs go on bit for bit."""

import fcntl
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from modeling_looped_gpt2 import LoopedGPT2ForInContextRegression
from tests.carried_code import REGRESSION_CODE


ROOT = str(Path(__file__).parents[2])


EXPECTED_FILES = REGRESSION_CODE | {
    ".lock",
    "config.json",
    "environment.json",
    "log.jsonl",
    "model.safetensors",
    "recipe.yaml",
}


def wait_until(condition, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.2)


def test_a_finished_run_leaves_a_complete_folder(finished, run_isolated):
    assert {file.name for file in finished.iterdir()} == EXPECTED_FILES
    recipe = yaml.safe_load((finished / "recipe.yaml").read_text())
    assert recipe["attn_implementation"] in ("eager", "sdpa")
    assert recipe["n_loops"] == 4
    environment = json.loads((finished / "environment.json").read_text())
    assert environment["processes"] == 1
    assert {"python", "torch", "transformers", "accelerate", "datasets", "device", "flops"} <= environment.keys()
    run_isolated(f"""
import torch
from transformers import AutoModel
model = AutoModel.from_pretrained({str(finished)!r}, trust_remote_code=True)
assert model(torch.randn(2, 5, 3), torch.randn(2, 4)).predictions.shape == (2, 5)
""")


def test_the_log_follows_the_schedules(finished, log_of):
    lines = log_of(finished)
    reports = {line["step"]: line for line in lines if "loss" in line}
    assert list(reports) == [2, 4, 6, 8, 10, 12]
    assert [line["n_dims_active"] for line in reports.values()] == [2, 2, 3, 3, 3, 3]
    assert [line["n_points"] for line in reports.values()] == [3, 3, 3, 5, 5, 5]
    assert [line["n_loops"] for line in reports.values()] == [3, 3, 4, 4, 4, 4]
    assert reports[12]["learning_rate"] == pytest.approx(1e-3 / 5)
    assert [line["step"] for line in lines if "eval_error" in line] == [6, 12]


def test_training_learns(train, tmp_path, log_of):
    easy = {
        "n_dims": 1,
        "n_dims_start": 1,
        "n_points_start": 5,
        "n_loops_start": 4,
        "max_steps": 300,
        "batch_size": 32,
        "n_eval_prompts": 1024,
    }
    flags = [word for name, value in easy.items() for word in (f"--{name}", str(value))]
    result = train(tmp_path / "run", *flags, "--save_every", "1000", "--eval_every", "100")
    assert result.returncode == 0, result.stderr
    errors = [line["eval_error_at_last_point"] for line in log_of(tmp_path / "run") if "eval_error" in line]
    assert errors[-1] < 0.6 < errors[0]  # at most 0.34 and at least 0.86 with five seeds


@pytest.mark.parametrize("accident", ["kill:6", "kill_while_saving:8", "terminate:6", "interrupt:3"])
def test_a_resumed_run_ends_with_the_bits_of_an_uninterrupted_one(
    accident, train, finished, tmp_path, log_of, assert_same_bits
):
    folder = tmp_path / "run"
    first = train(folder, interrupt=accident)
    assert not (folder / "model.safetensors").exists()
    kind = accident.split(":")[0]
    # as the shell counts them, so that `train && evaluate` does not take the run for finished
    assert first.returncode == {"terminate": 128 + 15, "interrupt": 128 + 2}.get(kind, -9)
    if not kind.startswith("kill"):
        assert "The same command goes on from here" in first.stdout
        assert "Traceback" not in first.stderr
    second = train(folder)
    assert second.returncode == 0, second.stderr
    assert "Going on from step" in second.stdout
    assert_same_bits(folder, finished)
    assert {file.name for file in folder.iterdir()} == EXPECTED_FILES
    if accident.startswith("kill"):
        assert log_of(folder) == log_of(finished)


def test_two_resumed_processes_end_with_the_same_bits(train, finished_by_two, tmp_path, assert_same_bits):
    folder = tmp_path / "run"
    for accident in ("kill_while_saving:8:0", "terminate:5:1"):
        assert train(folder, n_processes=2, interrupt=accident).returncode != 0
        assert not (folder / "model.safetensors").exists()
    second = train(folder, n_processes=2)
    assert second.returncode == 0, second.stderr
    assert_same_bits(folder, finished_by_two)


def test_a_run_that_was_killed_before_its_first_step_leaves_the_folder_to_any_other(train, train_here, tmp_path):
    assert train(tmp_path / "run", interrupt="kill:0").returncode == -9
    assert (tmp_path / "run" / "recipe.yaml").exists()
    assert train_here(tmp_path / "run", "--n_embd", 32) == 0
    assert LoopedGPT2ForInContextRegression.from_pretrained(tmp_path / "run").config.n_embd == 32


def test_a_second_interrupt_ends_the_run_at_once(train, tmp_path):
    result = train(tmp_path / "run", interrupt="interrupt_twice:6")
    assert result.returncode == 130
    assert "stopped at once by SIGINT; the same command goes on from the last checkpoint" in result.stderr
    assert "Traceback" not in result.stderr
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["step_000000004"]


def test_a_full_disk_leaves_the_last_checkpoint(train, finished, tmp_path, assert_same_bits):
    folder = tmp_path / "run"
    assert train(folder, interrupt="kill:6").returncode == -9
    full = train(folder, interrupt="full_disk:0")
    assert full.returncode == 1
    assert "could not save the checkpoint of step 8" in full.stderr
    assert "Traceback" not in full.stderr
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["step_000000004"]
    assert train(folder).returncode == 0
    assert_same_bits(folder, finished)


def test_a_damaged_checkpoint_is_refused(train, tmp_path):
    folder = tmp_path / "run"
    assert train(folder, interrupt="kill:10").returncode == -9
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == ["step_000000004", "step_000000008"]
    optimizer = folder / "checkpoints" / "step_000000008" / "optimizer.bin"
    content = bytearray(optimizer.read_bytes())
    content[len(content) // 2] ^= 1
    optimizer.write_bytes(content)
    before = (folder / "log.jsonl").read_text()
    result = train(folder)
    assert result.returncode == 1
    assert "step_000000008 is damaged or of another version (optimizer.bin): remove" in result.stderr
    assert (folder / "log.jsonl").read_text() == before


def test_an_exported_model_equals_the_trained_one(finished):
    model = LoopedGPT2ForInContextRegression.from_pretrained(finished)
    assert model.config.n_loops == 4
    assert all(parameter.isfinite().all() for parameter in model.parameters())


def test_a_finished_run_is_left_alone(train, finished):
    before = {file.name: file.read_bytes() for file in finished.iterdir()}
    again = train(finished)
    assert again.returncode == 0
    assert "is finished" in again.stdout
    other = train(finished, "--n_embd", "32")
    assert other.returncode == 1
    assert "holds another run (n_embd 16 -> 32)" in other.stderr
    assert {file.name: file.read_bytes() for file in finished.iterdir()} == before


def test_ending_the_launcher_saves_and_stops_the_run(recipe, tmp_path):
    folder = tmp_path / "run"
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "scripts/train.py", "--recipe", str(recipe)]
    flags = ["--output_dir", str(folder), "--max_steps", "1000000", "--save_every", "1000000"]
    with subprocess.Popen([*launcher, *flags], cwd=ROOT, env=os.environ | {"PYTHONPATH": ROOT}) as process:
        wait_until(lambda: (folder / "log.jsonl").exists())
        process.terminate()
    wait_until(lambda: list((folder / "checkpoints").glob("*/manifest.json")))

    def is_released():
        with (folder / ".lock").open() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return False
            return True

    wait_until(is_released)
    (checkpoint,) = (folder / "checkpoints").iterdir()
    assert json.loads((checkpoint / "manifest.json").read_text())["step"] >= 2
