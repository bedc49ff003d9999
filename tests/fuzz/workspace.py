"""Folders as a user has them after training, evaluating and releasing a model, to be copied and damaged."""

import json
import os
import subprocess
import sys
from pathlib import Path

import yaml

from tests import programs
from tests.programs import ROOT


RECIPE = {
    **{"task": "linear_regression", "n_dims": 3, "n_points": 5, "n_embd": 16, "n_head": 2, "n_loops": 2},
    **{
        "max_steps": 6,
        "batch_size": 4,
        "average_decay": 0.9,
        "save_every": 2,
        "eval_every": 0,
        "mixed_precision": "no",
    },
}
# what each program is called with, on the folders of the workspace
COMMANDS = {
    "evaluate": "--model run --task linear_regression --output_dir run --n_prompts 6 --max_loops 3 --seed 3 "
    "--n_shift_prompts 0 --cache_dir cache --batch_size 4",
    "plot": "--metrics run/metrics.json --output_dir run",
    "report": "--metrics run/metrics.json --output_dir run",
    "model_card": "--model run --repo_id ana/looped --output_dir release",
    "push_to_hub": "--model release --repo_id ana/looped --dry_run pushed",
    "stages": "--model run --others earlier",
    "probe": "--model run --output_dir probed --n_prompts 8 --n_steps 2 --n_prefixes 1",
    "superposition": "--model run --tasks linear_regression relu_2nn_regression --output_dir mixed --n_prompts 8",
    "predict": "--model run --trust_remote_code",
    "train": "--recipe recipe.yaml --output_dir half",
}
# files that each program may make or replace
WRITTEN = {
    "evaluate": ["run/*", "cache/*"],
    "plot": ["run/*.png", "run/*.svg"],
    "report": ["run/report.html"],
    "model_card": ["release/*"],
    "push_to_hub": ["pushed/*"],
    "stages": ["run/stages.json"],
    "probe": ["probed/*"],
    "superposition": ["mixed/*"],
    "predict": [],
    "train": ["half/*"],
}


def run_program(program: str, flags: list[str], folder: Path) -> subprocess.CompletedProcess:
    """One program in a process of its own, in `folder`."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_MODULES_CACHE": str(folder / ".modules")}
    environment |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(ROOT / "scripts" / f"{program}.py"), *flags]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)


def build_workspace(folder: Path):
    """Make `run` (finished, evaluated, drawn), `earlier` (the same of fewer steps), `half` (unfinished), `release`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))

    def finish(program: str, flags: str):
        result = programs.run_program([f"{ROOT}/scripts/{program}.py", *flags.split()], folder=folder)
        assert result.returncode == 0, result.stderr

    for name, more in (("run", ""), ("earlier", "--max_steps 3")):
        finish("train", f"--recipe recipe.yaml --output_dir {name} {more}")
    interrupted = [f"{ROOT}/tests/scripts/interrupted_train.py", "kill:5", *COMMANDS["train"].split()]
    assert programs.run_program(interrupted, folder=folder).returncode == -9
    for program in ("evaluate", "plot", "model_card"):
        finish(program, COMMANDS[program])
    finish("evaluate", COMMANDS["evaluate"].replace("run", "earlier"))


def contents(folder: Path) -> dict[str, bytes | str]:
    """Every file of a folder, and where every link points."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if name.startswith((".modules", "cache")) or "__pycache__" in name or name.endswith(".lock"):
            continue
        if path.is_symlink():
            found[name] = f"-> {os.readlink(path)}"
        elif path.is_file():
            found[name] = path.read_bytes()
    return found


def errors_of(folder: Path) -> dict:
    """What an evaluation measured, without its settings and versions."""
    metrics = json.loads((folder / "metrics.json").read_text())
    return {name: value for name, value in metrics.items() if name not in ("settings", "versions")}
