"""What a machine cannot do is refused before anything is written."""

import pytest

from scripts.training.launch import check_parallelism
from scripts.training.prompt_arguments import PromptOptimizationArguments
from scripts.training.run_folder import RunError
from tests.programs import run_program


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


def test_no_distributed_model_outlives_its_connections(recipe, tmp_path):
    program = tmp_path / "count_models.py"
    program.write_text(COUNT_MODELS)
    flags = ["--recipe", recipe, "--output_dir", tmp_path / "run"]
    result = run_program([str(word) for word in (program, *flags)], n_processes=2)
    assert result.returncode == 0, result.stderr
    assert [(tmp_path / f"left_{rank}").read_text() for rank in range(2)] == ["0", "0"]


@pytest.mark.parametrize("field", ["average_decay", "hint_weight"])
def test_what_needs_whole_weights_is_refused_with_sharded_ones(field, monkeypatch):
    optimization = PromptOptimizationArguments(max_steps=10, **{field: 0.5})
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
        check_parallelism(PromptOptimizationArguments(max_steps=10))


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


def test_a_batch_that_cannot_be_shared_is_refused_before_anything_is_written(train, tmp_path):
    result = train(tmp_path / "run", "--gradient_accumulation_steps", "3", "--loss_balance", "0")
    assert result.returncode == 1
    assert (
        "`batch_size` must be a multiple of the processes times `gradient_accumulation_steps`, 3, got 8"
        in result.stderr
    )
    assert not (tmp_path / "run").exists()
