import json
import os
import shutil
import signal
import subprocess
import sys
import warnings
from types import SimpleNamespace

import pytest
import safetensors.torch
import torch
import transformers
import yaml

from tests.programs import ROOT, run_program


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
    "loss_balance": 0.5,
    "hint_weight": 0.5,
    "average_decay": 0.9,
    "mixed_precision": "no",
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

    def run(output_dir, *flags, n_processes=1, interrupt=None):
        # the interrupting program takes its orders and then is scripts/train.py
        program = ["tests/scripts/interrupted_train.py", interrupt] if interrupt else ["scripts/train.py"]
        flags = ["--recipe", str(recipe), "--output_dir", str(output_dir), *flags]
        return run_program([*program, *flags], n_processes)

    return run


@pytest.fixture
def trainings_of_studies(monkeypatch):
    """Let the trainings of a study begin with their imports done."""
    forked = SimpleNamespace(run=lambda command: run_program(command[1:]))
    monkeypatch.setattr("scripts.studies.study_run.subprocess", forked)


@pytest.fixture
def train_here(recipe, monkeypatch):
    """
    Run scripts/train.py in this process and put back what it sets for the whole process; returns its exit status.

    Its error message can be read by capsys. It is asked to stop with SIGTERM in step `stop_at`.
    """
    from accelerate.state import AcceleratorState

    from scripts import train
    from scripts.training import launch
    from scripts.training.trainer import Trainer

    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    take_step, n_threads = Trainer.training_step, torch.get_num_threads()
    verbosity = transformers.logging.get_verbosity()

    def run(output_dir, *flags, stop_at=None, recipe=recipe):
        def training_step(self, index, batch):
            if index + 1 == stop_at:
                os.kill(os.getpid(), signal.SIGTERM)
            return take_step(self, index, batch)

        AcceleratorState._reset_state(reset_partial_state=True)
        folder = launch.RunFolder(output_dir)
        argv = ["train.py", *(["--recipe", str(recipe)] if recipe else []), "--output_dir", str(output_dir)]
        argv += map(str, flags)
        with monkeypatch.context() as patch, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            patch.setattr(sys, "argv", argv)
            patch.setattr(Trainer, "training_step", training_step)
            patch.setattr(launch, "keep_freed_memory", lambda: None)
            patch.setattr(launch, "RunFolder", lambda path: folder)
            try:
                train.main()
            except SystemExit as exit:
                if isinstance(exit.code, str):
                    print(exit.code, file=sys.stderr)
                return exit.code if isinstance(exit.code, int) else 1
            finally:  # the lock of a run is closed by the end of its process
                if hasattr(folder, "_lock"):
                    folder._lock.close()
        return 0

    yield run
    AcceleratorState._reset_state(reset_partial_state=True)
    torch.set_num_threads(n_threads)
    transformers.logging.set_verbosity(verbosity)
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture(scope="session")
def finished(train, tmp_path_factory):
    """Folder of a run that nothing interrupted."""
    folder = tmp_path_factory.mktemp("runs") / "uninterrupted"
    result = train(folder)
    assert result.returncode == 0, result.stderr
    return folder


@pytest.fixture(scope="session")
def finished_by_two(recipe, tmp_path_factory):
    """Folder of a run of two processes that `accelerate launch` connected and nothing interrupted."""
    folder = tmp_path_factory.mktemp("runs") / "two_processes"
    launcher = [sys.executable, "-m", "accelerate.commands.launch"]
    launcher += ["--config_file", "scripts/accelerate_configs/two_cpu_processes.yaml"]
    command = [*launcher, "scripts/train.py", "--recipe", str(recipe), "--output_dir", str(folder)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    assert "Training on 2 process(es)" in result.stdout
    return folder


@pytest.fixture(scope="session")
def weights():
    def read(folder) -> dict[str, torch.Tensor]:
        return safetensors.torch.load_file(folder / "model.safetensors")

    return read


@pytest.fixture(scope="session")
def log_of():
    """The lines of a folder's log without the times."""

    def read(folder):
        lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
        times = ("seconds_per_step", "tokens_per_second")
        return [{name: value for name, value in line.items() if name not in times} for line in lines]

    return read


@pytest.fixture(scope="session")
def assert_same_bits(weights):
    def check(folder, other):
        first, second = weights(folder), weights(other)
        assert first.keys() == second.keys()
        for name in first:
            assert torch.equal(first[name], second[name]), name

    return check


@pytest.fixture(scope="session")
def assert_same_but_round_off():
    def check(first, second):
        assert first.keys() == second.keys()
        for name, weight in first.items():
            other = second[name]
            if name.endswith("c_attn.bias"):  # no answer depends on the keys' bias: AdamW follows its round-off
                weight, other = (torch.cat(values.chunk(3)[::2]) for values in (weight, other))
            torch.testing.assert_close(weight, other, rtol=1e-4, atol=2e-5, msg=name)

    return check


@pytest.fixture
def change(evaluated):
    """Change a record of a folder, the evaluated model's by default: a function of its content, changed in place."""

    def change(name, edit, folder=evaluated):
        path = folder / name
        content = json.loads(path.read_text()) if name.endswith(".json") else yaml.safe_load(path.read_text())
        edit(content)
        path.write_text(json.dumps(content) if name.endswith(".json") else yaml.safe_dump(content))

    return change


@pytest.fixture
def earlier(evaluated, tmp_path, change):
    """An earlier stage: a hundredth of the operations, ten times the error of the model."""
    folder = shutil.copytree(evaluated, tmp_path / "earlier")

    def worse(metrics):
        curve = metrics["error_by_example"]["model"]
        curve["error"] = [10 * error for error in curve["error"]]

    change("metrics.json", worse, folder)
    change("environment.json", lambda record: record.update(flops=record["flops"] / 100), folder)
    return folder
