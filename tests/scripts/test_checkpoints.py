import json
import os

import pytest
import torch
import yaml

from scripts.checkpoints import RunError, RunFolder, weights_digest


RECIPE = {
    "task": "linear_regression",
    "n_loops": 4,
    "mixed_precision": "auto",
    "output_dir": "a",
    "log_every": 10,
    "eval_every": 10,
    "n_eval_prompts": 10,
    "save_every": 10,
    "log_with": None,
}
MACHINE = {"mixed_precision": "bf16"}


def claim(path, **changes):
    """Claim a folder and let go of it again, as a process that ends does."""
    folder = RunFolder(path)
    try:
        return folder.claim(RECIPE | changes, MACHINE)
    finally:
        if hasattr(folder, "_lock"):
            folder._lock.close()


def test_a_new_folder_records_the_resolved_recipe(tmp_path):
    held = claim(tmp_path / "new" / "run")
    assert held == RECIPE | MACHINE
    assert yaml.safe_load((tmp_path / "new" / "run" / "recipe.yaml").read_text()) == held


def test_a_run_goes_on_with_its_recorded_precision_and_new_intervals(tmp_path):
    claim(tmp_path)
    folder = RunFolder(tmp_path)
    held = folder.claim(RECIPE | {"save_every": 3, "output_dir": str(tmp_path)}, {"mixed_precision": "no"})
    assert held == RECIPE | {"mixed_precision": "bf16", "save_every": 3, "output_dir": str(tmp_path)}
    folder._lock.close()


def test_a_folder_of_another_run_is_refused_by_field(tmp_path):
    claim(tmp_path)
    before = (tmp_path / "recipe.yaml").read_text()
    with pytest.raises(RunError, match=r"holds another run \(n_loops 4 -> 5\)"):
        claim(tmp_path, n_loops=5)
    assert (tmp_path / "recipe.yaml").read_text() == before


def test_a_folder_of_other_files_is_refused_and_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(RunError, match=r"holds files that are not of a run \(thesis.tex\)"):
        claim(tmp_path)
    assert (tmp_path / "thesis.tex").read_text() == "precious"
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_folder_in_use_is_refused(tmp_path):
    first = RunFolder(tmp_path)
    first.claim(RECIPE, MACHINE)
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


def test_a_partial_checkpoint_is_never_the_latest(tmp_path):
    folder = RunFolder(tmp_path)
    assert folder.latest() is None
    for name in ("step_000000004", "step_000000100.partial", "step_000000020"):
        os.makedirs(folder.checkpoints / name)
    assert folder.latest().name == "step_000000020"


def test_the_digest_of_weights_tells_models_apart_and_files_not(make_model, tmp_path):
    model = make_model()
    digest = weights_digest(model)
    model.save_pretrained(tmp_path)
    assert weights_digest(type(model).from_pretrained(tmp_path)) == digest
    with torch.no_grad():
        model.read_out.bias += 1e-6
    assert weights_digest(model) != digest


def test_a_run_that_goes_on_elsewhere_keeps_the_environments_it_ran_in(tmp_path):
    folder, cost = RunFolder(tmp_path), {"flops": 7.0}
    gpu, cpu = {"device": "NVIDIA H200", "threads": 2}, {"device": "x86_64", "threads": 1}
    folder.record_environment(cpu, cost)
    folder.record_environment(gpu, cost)  # no step was taken before
    assert json.loads((tmp_path / "environment.json").read_text()) == gpu | cost
    (folder.checkpoints / "step_000000001").mkdir(parents=True)
    for environment, earlier in ((gpu, None), (cpu, [gpu]), (cpu, [gpu]), (gpu, [gpu, cpu])):
        folder.record_environment(environment, cost)
        assert json.loads((tmp_path / "environment.json").read_text()) == environment | cost | (
            {"earlier": earlier} if earlier else {}
        )
