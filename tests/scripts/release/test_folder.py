"""A release takes the place of nothing but an earlier one of the same weights, and works where it lies."""

import contextlib
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from modeling_looped_gpt2 import LoopedGPT2Config, LoopedGPT2ForInContextRegression
from scripts.common.model_loading import state_digest
from scripts.common.output_folder import OutputError
from scripts.release import files
from scripts.release.card import render_card
from scripts.release.folder import load_checked, stage_release, write_release


REPO = "ana/looped"
ROOT = Path(__file__).parents[3]


def listing(folder):
    """Names and contents of all that a folder holds, links by what they point to."""
    entries = {}
    for path in sorted(folder.rglob("*")):
        entries[str(path.relative_to(folder))] = (
            path.readlink() if path.is_symlink() else path.is_dir() or (path.read_bytes())
        )
    return entries


def test_links_within_the_folder_and_hard_links_are_files_like_others(evaluated, tmp_path):
    (evaluated / "metrics.json").rename(evaluated / "metrics_1.json")
    (evaluated / "metrics.json").symlink_to("metrics_1.json")
    (tmp_path / "picture.png").hardlink_to(evaluated / "error.png")
    (tmp_path / "latest").symlink_to(evaluated)
    write_release(tmp_path / "latest", REPO, tmp_path / "new")
    assert not (tmp_path / "new" / "metrics.json").is_symlink()
    assert (tmp_path / "new" / "metrics.json").read_bytes() == (evaluated / "metrics.json").read_bytes()


def test_nothing_is_published_that_no_program_writes(evaluated, tmp_path):
    (tmp_path / "outside").mkdir()
    (secret := tmp_path / "outside" / "secret").write_text("password")
    stage_release(evaluated, REPO, expected := tmp_path / "expected")
    for name in ("secret.png", "notes\nand more.svg", "notes.txt", ".env", "adapter.safetensors", "code.py"):
        (evaluated / name).write_text("password")
    (evaluated / "other.png").symlink_to(secret)
    (evaluated / "pictures").symlink_to(secret.parent)
    # of an evaluation with shifts or of a mixture, before the one that metrics.json is of
    for name in ("shifts.png", "components.png"):
        shutil.copyfile(evaluated / "error.png", evaluated / name)
    stage_release(evaluated, REPO, tmp_path / "again")
    assert listing(tmp_path / "again") == listing(expected)


def test_the_folder_loads_in_place_by_links_to_the_code(evaluated, tmp_path, run_isolated):
    target = tmp_path / "model_cards" / "linear_regression"
    write_release(evaluated, REPO, target)
    code = {path for path in target.iterdir() if path.suffix == ".py"}
    assert {path.name for path in set(target.iterdir()) - code} == {*files.SOURCES, "README.md"}
    for path in code:
        assert not path.readlink().is_absolute()
        assert path.resolve() == ROOT / "modeling_looped_gpt2" / path.name
    assert (target / "model.safetensors").read_bytes() == (evaluated / "model.safetensors").read_bytes()
    assert (target / "README.md").read_text() == render_card(evaluated, REPO)
    assert (target / "error.png").stat().st_mode == (evaluated / "error.png").stat().st_mode
    run_isolated(f"""
from transformers import AutoModel
model = AutoModel.from_pretrained({str(target)!r}, trust_remote_code=True)
assert type(model).__name__ == "LoopedGPT2ForInContextRegression"
""")
    # once more from its own result, in place, after the project was moved
    before = {path.name: path.read_bytes() for path in target.iterdir()}
    broken = target / "modeling_looped_gpt2.py"
    broken.unlink()
    broken.symlink_to("nowhere.py")
    write_release(target, REPO, target)
    assert {path.name: path.read_bytes() for path in target.iterdir()} == before


def test_the_code_that_a_run_left_stays(evaluated):
    write_release(evaluated, REPO, evaluated)
    assert not any(path.is_symlink() for path in evaluated.iterdir())  # a copy of the folder works anywhere
    code = evaluated / "modeling_looped_gpt2.py"
    assert not code.is_symlink()
    assert code.read_text() == "raise AssertionError"


@pytest.mark.filterwarnings("ignore")  # the report on missing weights
def test_weights_of_another_architecture_are_refused(evaluated):
    config = LoopedGPT2Config(n_embd=16, n_head=2, n_dims=3, n_positions=10, n_layer=2)
    LoopedGPT2ForInContextRegression(config).save_pretrained(evaluated / "deeper")
    (evaluated / "deeper" / "model.safetensors").rename(evaluated / "model.safetensors")
    with pytest.raises(ValueError, match=r"the weights in .* are not those of its config"):
        load_checked(evaluated)


# where a release may be written


def other_weights(folder):
    """Make the model another one, evaluated as well."""
    weights = load_file(folder / "model.safetensors")
    weights["read_in.bias"] += torch.ones_like(weights["read_in.bias"])
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    metrics = json.loads((folder / "metrics.json").read_text())
    metrics["settings"]["weights_sha256"] = state_digest(weights)
    (folder / "metrics.json").write_text(json.dumps(metrics))


@pytest.fixture
def published(evaluated, tmp_path):
    """An earlier release of the model, with pictures and stages that it had then."""
    folder = tmp_path / "published"
    write_release(evaluated, REPO, folder)
    shutil.copyfile(folder / "error.png", folder / "shifts.png")
    (folder / "stages.json").write_text("[]")
    (folder / "module_of_an_older_version.py").symlink_to("../nowhere.py")
    return folder


def test_an_earlier_release_of_the_model_is_replaced_with_all_that_belongs_to_it(
    evaluated, published, tmp_path, change
):
    change("metrics.json", lambda metrics: metrics["error_by_example"]["model"]["error"].__setitem__(-1, 0.06))
    write_release(evaluated, REPO, published)
    write_release(evaluated, REPO, tmp_path / "new")
    assert listing(published) == listing(tmp_path / "new")
    assert {path.name for path in tmp_path.iterdir()} >= {"published", "new"}
    assert not list(tmp_path.glob(".*"))


def unfinish(folder):
    (folder / "model.safetensors").unlink()


REFUSED = {
    "another model": (other_weights, "holds another model"),
    "another repository": (lambda folder: write_release(folder, "bea/looped", folder), None),
    "a card by hand": (lambda folder: (folder / "README.md").write_text("# Mine"), "of something else, not of ana/lo"),
    "other files": (lambda folder: (folder / "notes.txt").write_text(""), r"not of a release \(notes.txt\)"),
    "a folder of ours": (lambda folder: (folder / "error.svg").mkdir(), r"not of a release \(error.svg\)"),
    "a run": (lambda folder: (folder / ".lock").write_text(""), r"not of a release \(.lock\)"),
    "an unfinished run": (unfinish, "not finished"),
    "damaged weights": (lambda folder: (folder / "model.safetensors").write_text(""), "holds another model"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_folder_that_holds_anything_else_is_refused_and_stays_as_it_was(kind, evaluated, published, tmp_path):
    spoil, message = REFUSED[kind]
    if kind == "another repository":
        shutil.rmtree(published)
        write_release(evaluated, "bea/looped", published)
        message = "of bea/looped, not of ana/looped: choose a new folder. For a new version .* remove the old folder"
    else:
        spoil(published)
    before = listing(tmp_path)
    with pytest.raises(ValueError, match=message) as refused:
        write_release(evaluated, REPO, published)
    assert "Nothing was changed" in str(refused.value)
    assert "\n" not in str(refused.value)
    assert listing(tmp_path) == before


def test_a_file_in_place_of_the_folder_is_refused(evaluated, tmp_path):
    (tmp_path / "file").write_text("kept")
    before = listing(tmp_path)
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises((OSError, ValueError), match="file"):
            write_release(evaluated, REPO, folder)
    assert listing(tmp_path) == before


def test_in_place_other_files_stay_and_a_card_of_others_is_refused(evaluated):
    (evaluated / ".lock").write_text("")
    (evaluated / "notes.txt").write_text("kept")
    write_release(evaluated, REPO, evaluated)
    assert (evaluated / "notes.txt").read_text() == "kept"
    before = listing(evaluated)
    with pytest.raises(OutputError, match="of ana/looped, not of bea/looped"):
        write_release(evaluated, "bea/looped", evaluated)
    assert listing(evaluated) == before
    write_release(evaluated, REPO, evaluated)
    assert listing(evaluated) == before


def test_an_empty_folder_is_taken(evaluated, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("empty")
    write_release(evaluated, REPO, tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert {path.name for path in (tmp_path / "empty").iterdir()} > {"README.md", *files.SOURCES}


def test_a_release_is_written_whole_or_not_at_all(evaluated, published, tmp_path, monkeypatch):
    before, copyfile = listing(tmp_path), shutil.copyfile

    def full_disk(source, target):
        if target.name == "recipe.yaml" and "published" in str(target):
            raise OSError(28, "No space left on device")
        copyfile(source, target)

    monkeypatch.setattr(shutil, "copyfile", full_disk)
    for folder in (published, tmp_path / "published_2"):
        with pytest.raises(OSError, match="No space left"):
            write_release(evaluated, REPO, folder)
        assert listing(tmp_path) == before


@pytest.mark.parametrize("n_moved", range(5))
def test_a_folder_that_cannot_be_replaced_comes_back(n_moved, tmp_path, monkeypatch):
    (tmp_path / "folder").mkdir()
    for name in ("a", "b"):
        (tmp_path / "folder" / name).write_text("old")
    before, rename, renamed = listing(tmp_path), Path.rename, []

    def fail_once(path, target):
        renamed.append(path)
        if len(renamed) == n_moved + 1:
            raise KeyboardInterrupt
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", fail_once)
    with contextlib.suppress(KeyboardInterrupt), files.replacing(tmp_path / "folder") as new:
        for name in ("b", "c"):
            (new / name).write_text("new")
    after = {"folder": True, "folder/b": b"new", "folder/c": b"new"}
    assert listing(tmp_path) == (before if n_moved < 4 else after)


def test_a_folder_that_is_replaced_stays_the_same_folder(tmp_path, monkeypatch):
    """So that whoever stands in it, e.g. a shell, sees what was written."""
    monkeypatch.chdir(tmp_path)
    with files.replacing(Path().resolve()) as new:
        (new / "file").write_text("new")
    assert Path("file").read_text() == "new"


def test_a_folder_that_is_replaced_can_be_read_by_those_who_may(tmp_path):
    (tmp_path / "usual").mkdir()
    with files.replacing(tmp_path / "new" / "folder"):
        pass
    assert (tmp_path / "new" / "folder").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_the_refusal_of_a_claim_is_one_of_the_output_folder(evaluated, published):
    other_weights(published)
    with pytest.raises(OutputError, match="remove the old folder first"):
        write_release(evaluated, REPO, published)
