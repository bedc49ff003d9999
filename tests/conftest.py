import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants

from modeling_looped_gpt2 import LoopedGPT2Config, LoopedGPT2ForInContextRegression
from tasks import make_task
from tests.loopback_hub import LoopbackHub


ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture
def make_config():
    def make(**changes) -> LoopedGPT2Config:
        settings = {"n_embd": 32, "n_head": 4, "n_dims": 3, "n_positions": 14, "n_loops": 4}
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
    return make_task("noisy_linear_regression", 3).sample(4, 5, torch.Generator().manual_seed(0))


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
        result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
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
