import json
import os
import shutil

import pytest
import yaml

from scripts.training.prompt_arguments import Arguments
from scripts.training.run_folder import RunError, RunFolder


RECIPE = {"task": "linear_regression", "n_loops": 4, "max_steps": 10, "output_dir": "a"}
MACHINE = {"mixed_precision": "bf16"}


def claim(path, **changes):
    """Claim a folder and let go of it again, as a process that ends does."""
    folder = RunFolder(path)
    try:
        return folder.claim(Arguments.from_dict(RECIPE | changes), MACHINE)
    finally:
        if hasattr(folder, "_lock"):
            folder._lock.close()


def take_a_step(path):
    RunFolder(path).log({"step": 1})


def test_a_new_folder_records_the_resolved_recipe(tmp_path):
    held = claim(tmp_path / "new" / "run")
    assert held == Arguments.from_dict(RECIPE).as_dict() | MACHINE
    assert yaml.safe_load((tmp_path / "new" / "run" / "recipe.yaml").read_text()) == held


def test_a_run_goes_on_with_its_recorded_precision_and_new_intervals(tmp_path):
    first = claim(tmp_path)
    take_a_step(tmp_path)
    folder, changes = RunFolder(tmp_path), {"save_every": 3, "output_dir": str(tmp_path)}
    held = folder.claim(Arguments.from_dict(RECIPE | changes), {"mixed_precision": "no"})
    assert held == first | changes
    folder._lock.close()


def test_a_folder_of_another_run_is_refused_by_field(tmp_path):
    claim(tmp_path)
    take_a_step(tmp_path)
    before = (tmp_path / "recipe.yaml").read_text()
    with pytest.raises(RunError, match=r"holds another run \(n_loops 4 -> 5\)"):
        claim(tmp_path, n_loops=5)
    assert (tmp_path / "recipe.yaml").read_text() == before


def test_a_refused_folder_holds_nothing_new(tmp_path):
    """A released model has a recipe and a log, and no lock."""
    claim(tmp_path)
    take_a_step(tmp_path)
    (tmp_path / ".lock").unlink()
    before = {path: path.read_bytes() for path in tmp_path.rglob("*")}
    with pytest.raises(RunError, match=r"\(learning_rate .*; max_steps .*; n_embd .* and 1 more\)"):
        claim(tmp_path, n_loops=5, n_embd=32, max_steps=11, learning_rate=0.5)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*")} == before


def test_a_folder_without_a_step_is_free_for_another_run(tmp_path):
    claim(tmp_path)
    RunFolder(tmp_path).record_environment({"torch": "2"}, dict)
    assert claim(tmp_path, n_loops=5)["n_loops"] == 5
    assert yaml.safe_load((tmp_path / "recipe.yaml").read_text())["n_loops"] == 5


@pytest.mark.parametrize("lost", ["log.jsonl", "checkpoints"])
def test_a_step_that_anything_tells_of_is_kept(lost, tmp_path):
    claim(tmp_path)
    take_a_step(tmp_path)
    (tmp_path / "checkpoints" / "step_000000001").mkdir(parents=True)
    path = tmp_path / lost
    path.unlink() if path.is_file() else shutil.rmtree(path)
    with pytest.raises(RunError, match="holds another run"):
        claim(tmp_path, n_loops=5)


def test_a_run_of_an_older_version_goes_on_with_the_defaults_of_newer_fields(tmp_path):
    held = claim(tmp_path)
    take_a_step(tmp_path)
    newer = {"hint_weight", "n_distinct_prompts", "task_settings", "schedules", "n_prelude", "n_coda", "n_loops_hold"}
    newer |= {"solver", "solver_steps", "exit_gate", "exit_prior_weight", "exit_prior_rate", "block_loops"}
    newer |= {"position_embedding", "attention_window", "residual_loops", "loop_encoding", "loop_encoding_parts"}
    newer |= {"adapter_rank", "n_adapters", "adapter_beyond", "n_loops_min", "n_distinct_functions", "sinusoidal_base"}
    assert newer <= held.keys()
    recorded = {name: value for name, value in held.items() if name not in newer}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recorded))
    assert claim(tmp_path) == held
    with pytest.raises(RunError, match=r"hint_weight 0.0 -> 0.5"):
        claim(tmp_path, hint_weight=0.5, task="decision_tree", n_dims=4, n_dims_start=4)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda recipe: recipe | {"loop_shape": 1}, "unknown field `loop_shape`"),
        (lambda recipe: recipe | {"n_loops": "four"}, "`n_loops` must be of type int"),
        (lambda recipe: recipe | {"mixed_precision": "fp7"}, "`mixed_precision` must be one of"),
        (lambda recipe: recipe | {"n_loops": [4]}, "must give `n_loops` one value, got a list"),
        (lambda recipe: {}, "must be given, by a recipe or as a flag"),
        (lambda recipe: b"", "recipe.yaml must hold a mapping"),
        (lambda recipe: b"\xff\xfe\x00", "recipe.yaml cannot be read"),
        (lambda recipe: b"a: [", "recipe.yaml is not valid YAML"),
    ],
)
def test_a_recorded_recipe_that_cannot_be_used_is_refused_in_one_line(edit, message, tmp_path):
    held = claim(tmp_path)
    take_a_step(tmp_path)
    content = edit(held)
    content = content if isinstance(content, bytes) else yaml.safe_dump(content).encode()
    (tmp_path / "recipe.yaml").write_bytes(content)
    with pytest.raises(RunError, match=message) as refused:
        claim(tmp_path)
    assert "\n" not in str(refused.value)
    assert (tmp_path / "recipe.yaml").read_bytes() == content


LEFTOVERS = (
    *("recipe.yaml.0a1b2c3d.partial", "environment.json.0a1b2c3d.partial", "recipe.yaml.partial"),
    *("model.partial/config.json", "tokenizer.partial/vocab.json", "checkpoints/step_000000002.partial/optimizer.bin"),
)


def test_what_a_killed_process_left_half_written_is_gone_after_the_next_start(tmp_path):
    claim(tmp_path)
    take_a_step(tmp_path)
    kept = {"notes.partial", "step_2.partial", "checkpoints/step_000000001/optimizer.bin"}
    for name in (*LEFTOVERS, *kept):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    claim(tmp_path)
    files = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert files == kept | {".lock", "recipe.yaml", "log.jsonl"}


def test_a_run_that_was_killed_between_its_first_two_files_starts(tmp_path):
    for name in (".lock", "recipe.yaml.0a1b2c3d.partial"):
        (tmp_path / name).write_text("")
    assert claim(tmp_path)["n_loops"] == 4


def test_the_checkpoints_of_a_finished_run_go_with_the_next_start(tmp_path):
    claim(tmp_path)
    (tmp_path / "model.safetensors").write_text("")
    (tmp_path / "checkpoints" / "step_000000001").mkdir(parents=True)
    with pytest.raises(RunError, match="holds another run"):
        claim(tmp_path, n_loops=5)
    assert (tmp_path / "checkpoints").exists()
    claim(tmp_path)
    assert not (tmp_path / "checkpoints").exists()


def test_a_folder_of_other_files_is_refused_and_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(RunError, match=r"holds files that are not of a run \(thesis.tex\)"):
        claim(tmp_path)
    assert (tmp_path / "thesis.tex").read_text() == "precious"
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_recipe_that_its_user_wrote_is_left_alone(tmp_path):
    (tmp_path / "recipe.yaml").write_text("# what I learnt\nn_loops: 4\n")
    with pytest.raises(RunError, match=r"holds files that are not of a run \(recipe.yaml\)"):
        claim(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["recipe.yaml"]
    assert (tmp_path / "recipe.yaml").read_text().startswith("# what I learnt")


def test_a_run_that_was_copied_without_its_lock_goes_on(tmp_path):
    held = claim(tmp_path)
    take_a_step(tmp_path)
    (tmp_path / ".lock").unlink()
    assert claim(tmp_path) == held


def test_a_folder_in_use_is_refused(tmp_path):
    first = RunFolder(tmp_path)
    first.claim(Arguments.from_dict(RECIPE), MACHINE)
    with pytest.raises(RunError, match="another process trains in"):
        claim(tmp_path)
    first._lock.close()


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "run").write_text("a file")
    with pytest.raises(RunError, match="cannot be used as a folder"):
        claim(tmp_path / "run")


def test_the_log_is_cut_back_to_the_checkpoint(tmp_path):
    folder = RunFolder(tmp_path)
    for step in (1, 2, 3):
        folder.log({"step": step})
    with (tmp_path / "log.jsonl").open("a") as log:
        log.write('{"step": 2, "lo')  # killed in the middle of a line
    folder.truncate_log(2)
    assert [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()] == [
        {"step": 1},
        {"step": 2},
    ]


@pytest.mark.parametrize("content", [b'{"step": 1}\n{}\n', b"5\n", b'{"step": "a"}\n', b"\xff\xfe\n", b"{\n{}\n"])
def test_a_damaged_log_is_refused_in_one_line(content, tmp_path):
    (tmp_path / "log.jsonl").write_bytes(content)
    with pytest.raises(RunError, match=r"log\.jsonl cannot be used .*: restore it, or remove it") as refused:
        RunFolder(tmp_path).truncate_log(1)
    assert "\n" not in str(refused.value)
    assert (tmp_path / "log.jsonl").read_bytes() == content


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"[]", b'{"earlier": 3}'])
def test_a_damaged_environment_is_refused_in_one_line(content, tmp_path):
    folder = RunFolder(tmp_path)
    (folder.checkpoints / "step_000000001").mkdir(parents=True)
    (tmp_path / "environment.json").write_bytes(content)
    with pytest.raises(RunError, match=r"environment\.json is damaged .*: restore or remove it") as refused:
        folder.record_environment({"torch": "2"}, dict)
    assert "\n" not in str(refused.value)
    assert (tmp_path / "environment.json").read_bytes() == content


def test_a_partial_checkpoint_is_never_the_latest(tmp_path):
    folder = RunFolder(tmp_path)
    assert folder.latest() is None
    for name in ("step_000000004", "step_000000100.partial", "step_000000020"):
        os.makedirs(folder.checkpoints / name)
    assert folder.latest().name == "step_000000020"


def test_a_run_that_goes_on_elsewhere_keeps_the_environments_it_ran_in(tmp_path):
    folder, cost = RunFolder(tmp_path), {"flops": 7.0}
    gpu, cpu = {"device": "NVIDIA H200", "threads": 2}, {"device": "x86_64", "threads": 1}
    folder.record_environment(cpu, lambda: cost)
    folder.record_environment(gpu, lambda: cost)  # no step was taken before
    assert json.loads((tmp_path / "environment.json").read_text()) == gpu | cost
    (folder.checkpoints / "step_000000001").mkdir(parents=True)
    for environment, earlier in ((gpu, None), (cpu, [gpu]), (cpu, [gpu]), (gpu, [gpu, cpu])):
        folder.record_environment(environment, lambda: {"flops": 0.0})  # what was recorded first stays
        assert json.loads((tmp_path / "environment.json").read_text()) == environment | cost | (
            {"earlier": earlier} if earlier else {}
        )
