import fcntl
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import safetensors.torch
import torch
import yaml

from modeling_looped_gpt2 import (
    LoopedGPT2Config,
    LoopedGPT2ForInContextClassification,
    LoopedGPT2ForInContextRegression,
    LoopedGPT2LMHeadModel,
)
from scripts.training.arguments import InContextOptimizationArguments
from scripts.training.launch import check_parallelism
from scripts.training.run_folder import RunError
from scripts.training.trainer import Trainer, initial_weights


ROOT = str(Path(__file__).parents[2])
EXPECTED_FILES = {
    ".lock",
    "config.json",
    "configuration_looped_gpt2.py",
    "environment.json",
    "log.jsonl",
    "model.safetensors",
    "modeling_looped_gpt2.py",
    "in_context_checks_looped_gpt2.py",
    "in_context_looped_gpt2.py",
    "masks_looped_gpt2.py",
    "modeling_looped_gpt2_regression.py",
    "cache_looped_gpt2.py",
    "arguments_looped_gpt2.py",
    "loops_looped_gpt2.py",
    "plan_looped_gpt2.py",
    "solvers_looped_gpt2.py",
    "recipe.yaml",
}


def log_without_times(folder):
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "seconds_per_step"} for line in lines]


def wait_until(condition, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.2)


def assert_same_bits(weights, folder, other):
    first, second = weights(folder), weights(other)
    assert first.keys() == second.keys()
    for name in first:
        assert torch.equal(first[name], second[name]), name


def assert_same_but_round_off(first, second):
    assert first.keys() == second.keys()
    for name, weight in first.items():
        other = second[name]
        if name.endswith("c_attn.bias"):  # no answer depends on the bias of the keys: AdamW follows its round-off
            weight, other = (torch.cat(values.chunk(3)[::2]) for values in (weight, other))
        torch.testing.assert_close(weight, other, rtol=1e-4, atol=2e-5, msg=name)


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


def test_the_log_follows_the_schedules(finished):
    lines = log_without_times(finished)
    reports = {line["step"]: line for line in lines if "loss" in line}
    assert list(reports) == [2, 4, 6, 8, 10, 12]
    assert [line["n_dims_active"] for line in reports.values()] == [2, 2, 3, 3, 3, 3]
    assert [line["n_points"] for line in reports.values()] == [3, 3, 3, 5, 5, 5]
    assert [line["n_loops"] for line in reports.values()] == [3, 3, 4, 4, 4, 4]
    assert reports[12]["learning_rate"] == pytest.approx(1e-3 / 5)
    assert [line["step"] for line in lines if "eval_error" in line] == [6, 12]


def test_training_learns(train, tmp_path):
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
    errors = [line["eval_error_at_last_point"] for line in log_without_times(tmp_path / "run") if "eval_error" in line]
    assert errors[-1] < 0.6 < errors[0]  # at most 0.34 and at least 0.86 with five seeds


def test_two_processes_give_the_result_of_one(finished, finished_by_two, weights):
    assert_same_but_round_off(weights(finished), weights(finished_by_two))
    for line, other in zip(log_without_times(finished), log_without_times(finished_by_two), strict=True):
        assert line == pytest.approx(other, rel=1e-3)


def test_gradient_accumulation_gives_the_result_of_one_part(train, tmp_path, weights):
    for n_parts in ("1", "4"):
        flags = ("--gradient_accumulation_steps", n_parts, "--loss_balance", "0")
        assert train(tmp_path / n_parts, *flags).returncode == 0
    assert_same_but_round_off(weights(tmp_path / "1"), weights(tmp_path / "4"))


@pytest.mark.parametrize("accident", ["kill:6", "kill_while_saving:8", "terminate:6", "interrupt:3"])
def test_a_resumed_run_ends_with_the_bits_of_an_uninterrupted_one(accident, train, finished, tmp_path, weights):
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
    assert_same_bits(weights, folder, finished)
    assert {file.name for file in folder.iterdir()} == EXPECTED_FILES
    if accident.startswith("kill"):
        assert log_without_times(folder) == log_without_times(finished)


@pytest.mark.parametrize("accident", ["kill:6:1", "kill_while_saving:8:0", "terminate:5:1"])
def test_two_resumed_processes_end_with_the_same_bits(accident, train, finished_by_two, tmp_path, weights):
    folder = tmp_path / "run"
    first = train(folder, n_processes=2, interrupt=accident)
    assert not (folder / "model.safetensors").exists()
    assert first.returncode != 0
    second = train(folder, n_processes=2)
    assert second.returncode == 0, second.stderr
    assert_same_bits(weights, folder, finished_by_two)


# each process writes a file of its own: what two of them print may meet in one line
COUNT_MODELS = """
import gc, os, pathlib, torch
from torch.nn.parallel import DistributedDataParallel
from scripts import train

destroy = torch.distributed.destroy_process_group
def count_and_destroy(*arguments):
    n_left = sum(isinstance(thing, DistributedDataParallel) for thing in gc.get_objects())
    pathlib.Path(__file__).with_name(f"left_{os.environ['RANK']}").write_text(str(n_left))
    destroy(*arguments)

torch.distributed.destroy_process_group = count_and_destroy
train.main()
"""


def test_no_distributed_model_outlives_its_connections(run_program, recipe, tmp_path):
    program = tmp_path / "count_models.py"
    program.write_text(COUNT_MODELS)
    flags = ["--recipe", recipe, "--output_dir", tmp_path / "run"]
    result = run_program([str(word) for word in (program, *flags)], n_processes=2)
    assert result.returncode == 0, result.stderr
    assert [(tmp_path / f"left_{rank}").read_text() for rank in range(2)] == ["0", "0"]


def test_hints_reach_the_model_and_their_reader_stays_behind(finished, train, tmp_path, weights):
    assert all("hint_error" in line for line in log_without_times(finished) if "loss" in line)
    assert train(tmp_path / "run", "--hint_weight", "0").returncode == 0
    assert not any("hint_error" in line for line in log_without_times(tmp_path / "run"))
    with_hints, without = weights(finished), weights(tmp_path / "run")
    assert with_hints.keys() == without.keys()
    assert not torch.equal(with_hints["read_in.weight"], without["read_in.weight"])


@pytest.mark.parametrize("field", ["average_decay", "hint_weight"])
def test_what_needs_whole_weights_is_refused_with_sharded_ones(field, monkeypatch):
    optimization = InContextOptimizationArguments(max_steps=10, **{field: 0.5})
    check_parallelism(optimization)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(RunError, match=f"`{field}` needs whole weights on every process, got FSDP"):
        check_parallelism(optimization)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"ACCELERATE_USE_FSDP": "true", "FSDP_STATE_DICT_TYPE": "SHARDED_STATE_DICT"},
            "`fsdp_state_dict_type` must be FULL_STATE_DICT",
        ),
        ({"ACCELERATE_USE_DEEPSPEED": "true"}, "DEEPSPEED reads checkpoints in a way that can run code"),
    ],
)
def test_parallelism_whose_checkpoints_are_pickles_is_refused(settings, message, monkeypatch):
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(RunError, match=message):
        check_parallelism(InContextOptimizationArguments(max_steps=10))


def test_the_average_follows_the_weights(train, tmp_path):
    folder = tmp_path / "run"
    assert train(folder, "--save_every", "1", interrupt="terminate:6").returncode == 143
    checkpoints = [folder / f"checkpoints/step_00000000{step}" for step in (5, 6)]
    weights = safetensors.torch.load_file(checkpoints[1] / "model.safetensors")
    before, after = (safetensors.torch.load_file(path / "model_2.safetensors") for path in checkpoints)
    assert after["n_averaged"] == 6
    for name, value in weights.items():
        expected = 0.9 * before[f"module.{name}"] + 0.1 * value
        torch.testing.assert_close(after[f"module.{name}"], expected, msg=name)
        assert not torch.equal(after[f"module.{name}"], value), name
    assert train(folder, "--save_every", "1").returncode == 0


def test_a_run_starts_from_another_model(train, finished, tmp_path, weights):
    start = ("--initial_model", str(finished), "--learning_rate", "1e-12", "--muon_learning_rate", "1e-12")
    result = train(tmp_path / "run", *start)
    assert result.returncode == 0, result.stderr
    for name, value in weights(finished).items():
        torch.testing.assert_close(weights(tmp_path / "run")[name], value, rtol=0, atol=1e-9)
    records = [json.loads((folder / "environment.json").read_text()) for folder in (finished, tmp_path / "run")]
    assert records[1]["initial_model"]["flops"] == records[0]["flops"]


@pytest.fixture
def other_models(finished, tmp_path):
    """Folders that no in-context run can start from, by what is wrong with them."""
    classes = {"classifier": LoopedGPT2ForInContextClassification, "language model": LoopedGPT2LMHeadModel}
    folders = {name: tmp_path / name for name in (*classes, "truncated", "no config", "other heads", "no weights")}
    for name, model_class in classes.items():
        sizes = {"n_embd": 16, "n_head": 2, "n_positions": 10, "n_dims": 3, "n_loops": 4, "vocab_size": 8}
        model_class(LoopedGPT2Config(**sizes)).save_pretrained(folders[name])
    for name in ("truncated", "no config", "other heads", "no weights"):
        shutil.copytree(finished, folders[name])
    os.truncate(folders["truncated"] / "model.safetensors", 500)
    (folders["no config"] / "config.json").unlink()
    (folders["no weights"] / "model.safetensors").unlink()
    config = json.loads((folders["other heads"] / "config.json").read_text())
    (folders["other heads"] / "config.json").write_text(json.dumps(config | {"n_head": 4}))
    return folders | {"missing": tmp_path / "missing"}


def test_what_a_run_cannot_start_from_is_refused_before_anything_is_written(
    other_models, train_here, tmp_path, capsys
):
    for name, folder in other_models.items():
        assert train_here(tmp_path / "run", "--initial_model", folder) == 1, name
        error = capsys.readouterr().err
        assert len(error.splitlines()) == 1, error
        assert "train.py: error: `initial_model`" in error
        assert str(folder) in error
        assert not (tmp_path / "run").exists()
    assert train_here(tmp_path / "run", "--max_steps", 1, "--warmup_steps", 0, "--decay_steps", 0) == 0


HUGE = {
    **{name: (value, f"`{name}`") for name, value in (("n_layer", 10**15), ("n_embd", 10**6), ("batch_size", 10**15))},
    **{name: (value, f"`{name}`") for name, value in (("n_positions", 10**15), ("n_loops", 10**15))},
    **{name: (value, f"`{name}`") for name, value in (("n_eval_prompts", 10**15), ("n_dims", 10**15))},
    "n_points": (10**15, "`n_positions`"),
}


@pytest.mark.parametrize("name", HUGE)
def test_what_no_machine_can_hold_is_refused_before_anything_is_written(name, train_here, tmp_path, capsys):
    value, message = HUGE[name]
    window = ["--loop_window", value] if name == "n_loops" else []
    assert train_here(tmp_path / "run", f"--{name}", value, *window) == 1
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1, error
    assert message in error
    assert "GiB of memory" in error
    assert not (tmp_path / "run").exists()


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


def test_a_run_that_goes_on_needs_no_initial_model_any_more(train_here, finished, tmp_path):
    start = shutil.copytree(finished, tmp_path / "start")
    flags = ("--initial_model", start)
    assert train_here(tmp_path / "run", *flags, stop_at=6) == 143
    shutil.rmtree(start)
    assert train_here(tmp_path / "run", *flags) == 0
    assert "initial_model" in json.loads((tmp_path / "run" / "environment.json").read_text())


def test_positions_that_the_initial_model_lacks_repeat_its_last_x_and_y(finished, weights):
    own = weights(finished)["transformer.wpe.weight"]
    for n_positions in (len(own), len(own) + 1, len(own) + 4):
        config = LoopedGPT2Config.from_pretrained(finished, n_positions=n_positions)
        positions = initial_weights(str(finished), config)["transformer.wpe.weight"]
        assert len(positions) == n_positions
        assert torch.equal(positions[: len(own) - 1], own[:-1])
    assert all(torch.equal(positions[at], positions[at - 2]) for at in range(len(own) - 1, len(positions)))
    assert not torch.equal(positions[-1], positions[-2])


@pytest.mark.parametrize("balance", [0.5, 1.0])
def test_balanced_errors_count_by_their_own_size(balance):
    trainer = SimpleNamespace(
        accelerator=SimpleNamespace(reduce=lambda tensor, reduction: tensor),
        arguments=SimpleNamespace(optimization=SimpleNamespace(loss_balance=balance)),
    )
    predictions, labels = torch.randn(7, 3, 5, requires_grad=True), torch.randn(7, 5)
    errors = (predictions - labels.unsqueeze(1)).square().mean(dim=0)
    (gradient,) = torch.autograd.grad(Trainer.balanced(trainer, errors), predictions)
    total = 0.0
    for loop in range(3):
        for point in range(5):
            error = sum((predictions[i, loop, point] - labels[i, point]) ** 2 for i in range(7)) / 7
            total = total + (error.log() if balance == 1 else error ** (1 - balance) / (1 - balance)) / 15
    (expected,) = torch.autograd.grad(total, predictions)
    torch.testing.assert_close(gradient, expected)


def test_a_loss_that_is_not_finite_stops_the_run(train, tmp_path):
    result = train(tmp_path / "run", interrupt="not_finite:7")
    assert result.returncode == 1
    assert "was not finite in the steps up to 8" in result.stderr
    assert "step_000000004" in result.stderr
    assert "Traceback" not in result.stderr
    folder = tmp_path / "run"
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["step_000000004"]


def test_a_full_disk_leaves_the_last_checkpoint(train, finished, tmp_path, weights):
    folder = tmp_path / "run"
    assert train(folder, interrupt="kill:6").returncode == -9

    def limit_file_size():
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (8000, 8000))

    full = train(folder, preexec_fn=limit_file_size)
    assert full.returncode == 1
    assert "could not save the checkpoint of step 8" in full.stderr
    assert "Traceback" not in full.stderr
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["step_000000004"]
    assert train(folder).returncode == 0
    assert_same_bits(weights, folder, finished)


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


def test_a_compiled_run_follows_the_eager_one(train, finished, tmp_path, weights):
    result = train(tmp_path / "run", "--compile", "reduce-overhead", "--max_steps", "4", "--decay_steps", "0")
    assert result.returncode == 0, result.stderr
    assert weights(tmp_path / "run").keys() == weights(finished).keys()
    compiled = [line for line in log_without_times(tmp_path / "run") if "loss" in line]
    for line, eager in zip(compiled, log_without_times(finished), strict=False):
        assert line == pytest.approx(eager, rel=1e-3)


@pytest.mark.parametrize("n_processes", [1, 2])
def test_a_run_in_bfloat16_follows_the_one_in_float32(n_processes, train, finished, tmp_path):
    flags = ("--mixed_precision", "bf16", "--max_steps", "4", "--decay_steps", "0")
    result = train(tmp_path / "run", *flags, n_processes=n_processes)
    assert result.returncode == 0, result.stderr
    assert "mixed precision bf16" in result.stdout
    rounded = [line for line in log_without_times(tmp_path / "run") if "loss" in line]
    for line, exact in zip(rounded, log_without_times(finished), strict=False):
        assert line == pytest.approx(exact, rel=0.05)
        assert line["loss"] != exact["loss"]


def test_a_tracker_receives_the_metrics(train, tmp_path):
    result = train(tmp_path / "run", "--log_with", "tensorboard", "--max_steps", "4", "--decay_steps", "0")
    assert result.returncode == 0, result.stderr
    assert list((tmp_path / "run").rglob("events.out.tfevents*"))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--log_with", "notebook"], "`log_with` must be an installed tracker"),
        (["--attn_implementation", "foo"], "`attn_implementation`: "),
    ],
)
def test_what_this_machine_lacks_is_refused_before_anything_is_written(flags, message, train, tmp_path):
    result = train(tmp_path / "run", *flags)
    assert result.returncode == 1
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "run").exists()


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


def test_a_batch_that_cannot_be_shared_is_refused_before_anything_is_written(train, tmp_path):
    result = train(tmp_path / "run", "--gradient_accumulation_steps", "3", "--loss_balance", "0")
    assert result.returncode == 1
    assert (
        "`batch_size` must be a multiple of the processes times `gradient_accumulation_steps`, 3, got 8"
        in result.stderr
    )
    assert not (tmp_path / "run").exists()


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
