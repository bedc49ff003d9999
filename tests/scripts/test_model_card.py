import json
import shutil
import sys

import pytest

from scripts import evaluate, model_card, plot


REPO = "ana/looped"


def run(monkeypatch, *flags):
    monkeypatch.setattr(sys, "argv", ["model_card.py", *map(str, flags)])
    model_card.main()


def test_a_trained_run_that_was_evaluated_and_drawn_has_a_card(finished, tmp_path, monkeypatch):
    folder = shutil.copytree(finished, tmp_path / "run")
    evaluation = ("--model", folder, "--task", "noisy_linear_regression", "--n_prompts", "20", "--output_dir", folder)
    for script, flags in (
        (evaluate, evaluation),
        (plot, ("--metrics", folder / "metrics.json", "--output_dir", folder)),
    ):
        monkeypatch.setattr(sys, "argv", [script.__name__, *map(str, flags)])
        script.main()
    run(monkeypatch, "--model", folder, "--repo_id", REPO, "--output_dir", tmp_path / "card")
    metrics = json.loads((folder / "metrics.json").read_text())
    card = (tmp_path / "card" / "README.md").read_text()
    assert f"its error on fresh functions of the class is **{metrics['error_by_loop']['last_point'][3]:.3g}**" in card
    assert "It took 12 steps of 8 prompts" in card
    for picture in ("error.png", "error.svg"):
        assert (tmp_path / "card" / picture).read_bytes() == (folder / picture).read_bytes()


BAD_RECORDS = {
    "another task": ("recipe.yaml", lambda recipe: recipe.update(task="decision_tree"), "different models: `task`"),
    "other dimensions": ("metrics.json", lambda m: m["settings"].update(n_dims=4), "`n_dims` is 4 and 3"),
    "other weights": (
        "metrics.json",
        lambda metrics: metrics["settings"].update(weights_sha256="0" * 64),
        "measured on other weights",
    ),
    "weights unknown": ("metrics.json", lambda m: m["settings"].pop("weights_sha256"), "measured on other weights"),
    "unknown class": ("config.json", lambda config: config.update(architectures=["GPT2Model"]), "got GPT2Model"),
}


@pytest.mark.parametrize("name", BAD_RECORDS)
def test_records_of_another_model_are_refused_and_nothing_is_written(name, evaluated, change, tmp_path, monkeypatch):
    change(*BAD_RECORDS[name][:2])
    with pytest.raises(SystemExit, match=BAD_RECORDS[name][2]):
        run(monkeypatch, "--model", evaluated, "--repo_id", REPO, "--output_dir", tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("repo_id", ["looped", "ana/bea/looped", "ana/lo--oped", "ana/looped.git", "ana/"])
def test_a_name_that_no_repository_can_have_is_refused(repo_id, evaluated, monkeypatch, tmp_path):
    with pytest.raises(SystemExit, match=r"(?i)repo.?id"):
        run(monkeypatch, "--model", evaluated, "--repo_id", repo_id, "--output_dir", tmp_path / "new")


def no_flops(record):
    del record["flops"]


UNFIT = {
    "no operations": ("environment.json", no_flops),
    "operations in words": ("environment.json", lambda record: record.update(flops="many")),
    "operations beyond numbers": ("environment.json", lambda record: record.update(flops=10**400)),
    "no seed": ("metrics.json", lambda m: m["settings"].pop("seed")),
    "threads in words": ("environment.json", lambda record: record.update(threads="two")),
    "no task": ("recipe.yaml", lambda recipe: recipe.pop("task")),
    "an older model": ("environment.json", lambda record: record.update(initial_model="runs/first")),
    "an error beyond numbers": (
        "metrics.json",
        lambda m: m["error_by_example"]["zero"]["error"].__setitem__(0, 10**400),
    ),
}


@pytest.mark.parametrize("kind", UNFIT)
def test_records_that_make_no_card_are_refused_in_one_line(kind, evaluated, change, tmp_path, monkeypatch):
    change(*UNFIT[kind])
    with pytest.raises(SystemExit, match=str(evaluated)) as refused:
        run(monkeypatch, "--model", evaluated, "--repo_id", REPO, "--output_dir", tmp_path / "new")
    assert len(str(refused.value).splitlines()) == 1
    assert not (tmp_path / "new").exists()
