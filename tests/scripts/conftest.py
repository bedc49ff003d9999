import json
import os
import shutil
import subprocess
import sys

import pytest
import safetensors.torch
import torch
import yaml

from modeling_looped_gpt2 import LoopedGPT2Config, LoopedGPT2ForInContextRegression
from scripts.checkpoints import weights_digest


ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

SMALL_RECIPE = {
    "task": "noisy_linear_regression",
    "n_dims": 3,
    "n_points": 5,
    "n_embd": 16,
    "n_head": 2,
    "n_loops": 4,
    "n_loops_start": 3,
    "n_loops_interval": 4,
    "n_loops_min": 2,
    "loop_window": 2,
    "n_dims_start": 2,
    "n_dims_interval": 4,
    "n_points_start": 3,
    "n_points_interval": 6,
    "max_steps": 12,
    "warmup_steps": 2,
    "decay_steps": 4,
    "batch_size": 8,
    "log_every": 2,
    "save_every": 4,
    "eval_every": 6,
    "n_eval_prompts": 16,
}


@pytest.fixture(scope="session")
def recipe(tmp_path_factory):
    """Path of a recipe that trains in a second."""
    path = tmp_path_factory.mktemp("recipe") / "small.yaml"
    path.write_text(yaml.safe_dump(SMALL_RECIPE))
    return path


@pytest.fixture(scope="session")
def train(recipe):
    """Run scripts/train.py in a fresh process, or in two connected ones."""

    def run(output_dir, *flags, n_processes=1, interrupt=None, **options):
        launcher = [sys.executable]
        if n_processes > 1:
            config = "scripts/accelerate_configs/two_cpu_processes.yaml"
            launcher = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", config]
        # the interrupting program takes its orders and then is scripts/train.py
        program = ["tests/scripts/interrupted_train.py", interrupt] if interrupt else ["scripts/train.py"]
        command = [*launcher, *program, "--recipe", str(recipe), "--output_dir", str(output_dir), *flags]
        environment = os.environ | {"PYTHONPATH": ROOT, "PYTHONWARNINGS": "ignore"}
        return subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, **options
        )

    return run


@pytest.fixture(scope="session")
def finished(train, tmp_path_factory):
    """Folder of a run that nothing interrupted."""
    folder = tmp_path_factory.mktemp("runs") / "uninterrupted"
    result = train(folder)
    assert result.returncode == 0, result.stderr
    return folder


@pytest.fixture(scope="session")
def finished_by_two(train, tmp_path_factory):
    """Folder of a run of two connected processes that nothing interrupted."""
    folder = tmp_path_factory.mktemp("runs") / "two_processes"
    result = train(folder, n_processes=2)
    assert result.returncode == 0, result.stderr
    assert "Training on 2 process(es)" in result.stdout
    return folder


@pytest.fixture(scope="session")
def weights():
    def read(folder) -> dict[str, torch.Tensor]:
        return safetensors.torch.load_file(folder / "model.safetensors")

    return read


@pytest.fixture(scope="session")
def untouched_evaluated(tmp_path_factory):
    """Folder of a model as training, evaluation and plotting leave it, with records made up for the test."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("evaluated")
    config = LoopedGPT2Config(n_embd=16, n_head=2, n_dims=3, n_positions=10, n_loops=2)
    model = LoopedGPT2ForInContextRegression(config)
    model.save_pretrained(folder)
    for path in folder.glob("*.py"):  # the push brings the code of today
        path.write_text("raise AssertionError")
    curve = {"error": [1.03, 0.52, 0.26, 0.13, 0.0654], "low": [0.93, 0.42, 0.16, 0.03, 0.0554]}
    curve["high"] = [error + 0.1 for error in curve["error"]]
    zero = {name: [value] * 5 for name, value in (("error", 1.01), ("low", 0.91), ("high", 1.11))}
    settings = {"model": "evaluated", "task": "linear_regression", "n_dims": 3, "n_points": 5, "n_prompts": 40}
    settings |= {"seed": 7, "n_loops": 2, "max_loops": 4, "normaliser": 3.0, "n_parameters": model.num_parameters()}
    metrics = {
        "settings": settings | {"weights_sha256": weights_digest(model)},
        "error_by_example": {"model": curve, "zero": zero},
        "error_by_loop": {"last_point": [0.81, 0.0654, 0.0604, 0.0721], "mean": [0.92, 0.401, 0.402, 0.45]},
        "seconds_of_the_model": 0.1,
        "versions": {"python": "3.11.7", "torch": "2.13.0"},
    }
    environment = {"python": "3.11.8", "torch": "2.14.0", "device": "x86_64", "threads": 2, "processes": 1}
    log = [
        {"step": 10, "loss": 0.9, "seconds_per_step": 2.5},
        {"step": 10, "eval_error": 0.8},
        {"step": 30, "loss": 0.5, "seconds_per_step": 10.0},
    ]
    (folder / "metrics.json").write_text(json.dumps(metrics))
    (folder / "environment.json").write_text(json.dumps(environment))
    (folder / "recipe.yaml").write_text(yaml.safe_dump(SMALL_RECIPE | RECIPE_OF_EVALUATED))
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log))
    (folder / "error.png").write_bytes(b"\x89PNG a picture")
    return folder


RECIPE_OF_EVALUATED = {
    "task": "linear_regression",
    "n_loops": 2,
    "n_loops_start": None,
    "n_loops_min": None,
    "input_injection": "add",
    "max_steps": 30,
    "optimizer": "muon",
    "mixed_precision": "no",
    "learning_rate": 0.001,
    "seed": 42,
}


@pytest.fixture
def evaluated(untouched_evaluated, tmp_path):
    """A copy of that folder, for this test alone."""
    return shutil.copytree(untouched_evaluated, tmp_path / "evaluated")
