import base64
import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
import torch
import transformers
import yaml
from huggingface_hub import constants

from modeling_looped_gpt2 import LoopedGPT2Config, LoopedGPT2ForInContextRegression
from scripts.common.model_loading import weights_digest
from tasks import make_task
from tests.loopback_hub import LoopbackHub


ROOT = Path(__file__).parents[1]


def pytest_configure(config):
    """Give every worker of pytest-xdist, and the processes it starts, one core: threads that wait for one spin."""
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker and hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[int(worker.removeprefix("gw")) % len(cores)]})
        torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def progress_bars():
    """A program that hides transformers' progress bars hides them from no later test."""
    shown = transformers.logging.is_progress_bar_enabled()
    yield
    if shown:
        transformers.logging.enable_progress_bar()


@pytest.fixture
def make_config():
    """Weights are loud enough for each loop and example to move an answer by far more than rounding does."""

    def make(**changes) -> LoopedGPT2Config:
        sizes = {"n_embd": 32, "n_head": 4, "n_dims": 3, "n_positions": 14, "n_loops": 4}
        settings = sizes | {"initializer_range": 0.1}
        return LoopedGPT2Config(**(settings | changes))

    return make


@pytest.fixture
def make_model(make_config):
    def make(**changes) -> LoopedGPT2ForInContextRegression:
        torch.manual_seed(0)
        return LoopedGPT2ForInContextRegression(make_config(**changes)).eval()

    return make


@pytest.fixture
def prompts():
    """Four prompts of five points in three dimensions, with labels that differ from the ys."""
    return make_task("noisy_linear_regression", n_dims=3).sample(4, torch.Generator().manual_seed(0), n_points=5)


@pytest.fixture
def run_isolated(tmp_path):
    """Run code in a fresh process that finds the installed libraries but not this project."""

    def run(code: str, **changes: str) -> str:
        # -S: site-packages comes from PYTHONPATH alone, without the .pth file of an editable install
        environment = os.environ | {
            "PYTHONPATH": sysconfig.get_path("purelib"),
            "HF_MODULES_CACHE": str(tmp_path / "modules"),
            "HF_HUB_OFFLINE": "1",
            **changes,
        }
        guard = "import importlib.util as u\nassert u.find_spec('modeling_looped_gpt2') is None\n"
        folder = tmp_path / "elsewhere"
        folder.mkdir(exist_ok=True)
        command = [sys.executable, "-S", "-c", guard + code]
        result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)
        assert result.returncode == 0, result.stderr
        return result.stdout

    return run


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A Hub on loopback with the users ana and bea, to which everything in this process talks; the cache is empty."""
    with LoopbackHub(users={"hf_ana": "ana", "hf_bea": "bea"}) as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        # large files go over the Hub's own LFS endpoints, which this server has, and not over Xet's
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no_token"))
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield server


RECIPE = {
    "task": "linear_regression",
    "n_dims": 3,
    "n_points": 5,
    "n_loops": 2,
    "n_loops_start": None,
    "loop_window": 2,
    "input_injection": "add",
    "max_steps": 30,
    "batch_size": 8,
    "optimizer": "muon",
    "learning_rate": 0.001,
    "warmup_steps": 2,
    "decay_steps": 4,
    "seed": 42,
    "mixed_precision": "no",
}


# a white pixel
PICTURE = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGP4DwABAQEAsTj2FAAAAABJRU5ErkJggg=="
)


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
    zero = {"error": [1.01, 1.02, 0.98, 0.97, 0.99], "low": [0.91, 0.92, 0.88, 0.87, 0.89]}
    zero["high"] = [error + 0.1 for error in zero["error"]]
    settings = {
        "model": "evaluated",
        "task": "linear_regression",
        "n_dims": 3,
        "n_points": 5,
        "n_prompts": 40,
        "n_loop_prompts": 20,
    }
    settings |= {"seed": 7, "n_loops": 2, "max_loops": 4, "normaliser": 3.0, "n_parameters": model.num_parameters()}
    metrics = {
        "settings": settings | {"weights_sha256": weights_digest(model)},
        "error_by_example": {"model": curve, "zero": zero},
        "error_by_loop": {"last_point": [0.81, 0.0654, 0.0604, 0.0721], "mean": [0.92, 0.401, 0.402, 0.45]},
        "versions": {"python": "3.11.7", "torch": "2.13.0"},
    }
    environment = {"python": "3.11.8", "torch": "2.14.0", "device": "x86_64", "threads": 2, "processes": 1}
    environment["flops"] = 1.35e14
    log = [
        {"step": 10, "loss": 0.9, "seconds_per_step": 2.5},
        {"step": 10, "eval_error": 0.8},
        {"step": 30, "loss": 0.5, "seconds_per_step": 10.0},
    ]
    (folder / "metrics.json").write_text(json.dumps(metrics))
    (folder / "environment.json").write_text(json.dumps(environment))
    (folder / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log))
    (folder / "error.png").write_bytes(PICTURE)
    return folder


@pytest.fixture
def evaluated(untouched_evaluated, tmp_path):
    """A copy of that folder, for this test alone."""
    return shutil.copytree(untouched_evaluated, tmp_path / "evaluated")
