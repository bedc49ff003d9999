"""The steps of a run: whatever the machine, they are the same."""

import pytest
import safetensors.torch
import torch


def test_two_processes_give_the_result_of_one(finished, finished_by_two, weights, log_of, assert_same_but_round_off):
    assert_same_but_round_off(weights(finished), weights(finished_by_two))
    for line, other in zip(log_of(finished), log_of(finished_by_two), strict=True):
        assert line == pytest.approx(other, rel=1e-3)


def test_gradient_accumulation_gives_the_result_of_one_part(train, tmp_path, weights, assert_same_but_round_off):
    for n_parts in ("1", "4"):
        flags = ("--gradient_accumulation_steps", n_parts, "--loss_balance", "0")
        assert train(tmp_path / n_parts, *flags).returncode == 0
    assert_same_but_round_off(weights(tmp_path / "1"), weights(tmp_path / "4"))


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


def test_hints_reach_the_model_and_their_reader_stays_behind(finished, train, tmp_path, weights, log_of):
    assert all("hint_error" in line for line in log_of(finished) if "loss" in line)
    assert train(tmp_path / "run", "--hint_weight", "0").returncode == 0
    assert not any("hint_error" in line for line in log_of(tmp_path / "run"))
    with_hints, without = weights(finished), weights(tmp_path / "run")
    assert with_hints.keys() == without.keys()
    assert not torch.equal(with_hints["read_in.weight"], without["read_in.weight"])


def test_a_loss_that_is_not_finite_stops_the_run(train, tmp_path):
    result = train(tmp_path / "run", interrupt="not_finite:7")
    assert result.returncode == 1
    assert "was not finite in the steps up to 8" in result.stderr
    assert "step_000000004" in result.stderr
    assert "Traceback" not in result.stderr
    folder = tmp_path / "run"
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["step_000000004"]


def test_a_compiled_run_follows_the_eager_one(train, finished, tmp_path, weights, log_of):
    result = train(tmp_path / "run", "--compile", "reduce-overhead", "--max_steps", "4", "--decay_steps", "0")
    assert result.returncode == 0, result.stderr
    assert weights(tmp_path / "run").keys() == weights(finished).keys()
    compiled = [line for line in log_of(tmp_path / "run") if "loss" in line]
    for line, eager in zip(compiled, log_of(finished), strict=False):
        assert line == pytest.approx(eager, rel=1e-3)


@pytest.mark.parametrize("n_processes", [1, 2])
def test_a_run_in_bfloat16_follows_the_one_in_float32(n_processes, train, finished, tmp_path, log_of):
    flags = ("--mixed_precision", "bf16", "--max_steps", "4", "--decay_steps", "0")
    result = train(tmp_path / "run", *flags, n_processes=n_processes)
    assert result.returncode == 0, result.stderr
    assert "mixed precision bf16" in result.stdout
    rounded = [line for line in log_of(tmp_path / "run") if "loss" in line]
    for line, exact in zip(rounded, log_of(finished), strict=False):
        assert line == pytest.approx(exact, rel=0.05)
        assert line["loss"] != exact["loss"]


def test_a_tracker_receives_the_metrics(train, tmp_path):
    result = train(tmp_path / "run", "--log_with", "tensorboard", "--max_steps", "4", "--decay_steps", "0")
    assert result.returncode == 0, result.stderr
    assert list((tmp_path / "run").rglob("events.out.tfevents*"))
