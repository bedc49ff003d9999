"""Folders as a user has them after training, evaluating and releasing a model, to be copied and damaged."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import yaml


ROOT = Path(__file__).parents[2]
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
    for name, more in (("run", []), ("earlier", ["--max_steps", "3"])):
        finish(run_program("train", ["--recipe", "recipe.yaml", "--output_dir", name, *more], folder))
    shutil.copytree(folder / "run", folder / "half")
    interrupt(folder / "half", folder)
    for program in ("evaluate", "plot", "model_card"):
        finish(run_program(program, COMMANDS[program].split(), folder))
    finish(run_program("evaluate", COMMANDS["evaluate"].replace("run", "earlier").split(), folder))
    shutil.rmtree(folder / ".modules", ignore_errors=True)


def finish(result: subprocess.CompletedProcess):
    """Raise where a program that must succeed did not."""
    assert result.returncode == 0, result.stderr


def interrupt(half: Path, folder: Path):
    """Bring a run to the state in which a kill after step 4 leaves it."""
    shutil.rmtree(half)
    code = (
        "import os, sys\n"
        "from scripts import train\nfrom scripts.training.trainer import Trainer\n"
        "step = Trainer.training_step\n"
        "def killed(self, index, batch):\n    if index == 4: os._exit(9)\n    return step(self, index, batch)\n"
        "Trainer.training_step = killed\nsys.argv = ['train.py', '--recipe', 'recipe.yaml', '--output_dir', 'half']\n"
        "train.main()\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    result = subprocess.run([sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True)
    assert result.returncode == 9, result.stderr


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
