"""What a release publishes is what the programs wrote into the model's own folder, and it takes no other's place."""

import contextlib
import json
import os
import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from scripts import model_card as model_card_program
from scripts.common.model_loading import state_digest
from scripts.common.output_folder import OutputError
from scripts.release import card as model_card
from scripts.release import files as release


REPO = "ana/looped"
NAMES = sorted({*release.SOURCES, *release.OPTIONAL})


@pytest.fixture
def secret(tmp_path):
    path = tmp_path / "outside" / "secret"
    path.parent.mkdir()
    path.write_text("password")
    return path


def listing(folder):
    """Names and contents of all that a folder holds, links by what they point to."""
    entries = {}
    for path in sorted(folder.rglob("*")):
        entries[str(path.relative_to(folder))] = (
            path.readlink() if path.is_symlink() else path.is_dir() or (path.read_bytes())
        )
    return entries


def replace(path, kind, secret):
    """Put something else in a file's place; returns what the refusal says."""
    if kind in ("hard link", "link inside") and path.exists():
        path.rename(path.with_name("moved"))
    path.unlink(missing_ok=True)
    if kind == "link outside":
        path.symlink_to(secret)
        return "outside of its folder"
    if kind == "relative link outside":
        path.symlink_to(os.path.relpath(secret, path.parent))
        return "outside of its folder"
    if kind == "link through a folder":
        (path.parent / "inner").symlink_to(secret.parent)
        path.symlink_to("inner/secret")
        return "outside of its folder"
    if kind == "link to a folder outside":
        path.symlink_to(secret.parent)
        return "outside of its folder"
    if kind == "dangling link":
        path.symlink_to("nothing")
        return "leads nowhere"
    if kind == "loop":
        path.symlink_to(path.name)
        return "leads nowhere"
    if kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "link to a folder inside":
        (path.parent / "pictures").mkdir()
        path.symlink_to("pictures")
    return "must be a file"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "kind",
    [
        "link outside",
        "relative link outside",
        "link through a folder",
        "link to a folder outside",
        "dangling link",
        "loop",
        "folder",
        "fifo",
        "link to a folder inside",
    ],
)
def test_what_is_no_file_of_the_folder_is_refused(name, kind, evaluated, secret):
    message = replace(evaluated / name, kind, secret)
    with pytest.raises(release.ReleaseError, match=message) as refused:
        release.release_files(evaluated)
    assert str(evaluated / name) in str(refused.value)
    with pytest.raises(release.ReleaseError, match=message):
        model_card.render_card(evaluated, REPO)


def test_links_within_the_folder_and_hard_links_are_files_like_others(evaluated, tmp_path):
    (evaluated / "metrics.json").rename(evaluated / "metrics_1.json")
    (evaluated / "metrics.json").symlink_to("metrics_1.json")
    (tmp_path / "picture.png").hardlink_to(evaluated / "error.png")
    (tmp_path / "latest").symlink_to(evaluated)
    model_card.write_release(tmp_path / "latest", REPO, tmp_path / "new")
    assert not (tmp_path / "new" / "metrics.json").is_symlink()
    assert (tmp_path / "new" / "metrics.json").read_bytes() == (evaluated / "metrics.json").read_bytes()


def test_nothing_is_published_that_no_program_writes(evaluated, secret, tmp_path):
    model_card.stage_release(evaluated, REPO, expected := tmp_path / "expected")
    for name in ("secret.png", "notes\nand more.svg", "notes.txt", ".env", "adapter.safetensors", "code.py"):
        (evaluated / name).write_text("password")
    (evaluated / "other.png").symlink_to(secret)
    (evaluated / "pictures").symlink_to(secret.parent)
    # of an evaluation with shifts, before the one that metrics.json is of
    shutil.copyfile(evaluated / "error.png", evaluated / "shifts.png")
    model_card.stage_release(evaluated, REPO, tmp_path / "again")
    assert listing(tmp_path / "again") == listing(expected)


SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><path d="M0 0"/></svg>'


def test_a_whole_picture_is_taken(evaluated):
    (evaluated / "error.svg").write_bytes(SVG)
    assert "error.svg" in release.release_files(evaluated)


@pytest.mark.parametrize("name", ["error.png", "error.svg"])
@pytest.mark.parametrize(
    "content", [b"", b"password", SVG[:-3], b"<html></html>", b"\x89PNG\r\n\x1a\n", b"\xff\xfe<", 0]
)
def test_what_is_no_picture_is_refused(name, content, evaluated):
    content = content or (evaluated / "error.png").read_bytes()[:-1]
    (evaluated / name).write_bytes(content)
    with pytest.raises(release.ReleaseError, match=f"{name} is no whole picture: run scripts/plot.py again"):
        release.release_files(evaluated)


@pytest.mark.parametrize("name", ["metrics.json", "log.jsonl", "error.png", "stages.json"])
def test_a_file_too_large_to_read_is_refused(name, evaluated):
    with (evaluated / name).open("w") as file:
        file.truncate(release.MAX_BYTES + 1)  # a hole, which takes no disk
    with pytest.raises(release.ReleaseError, match=rf"{name} must have at most {release.MAX_BYTES} bytes"):
        release.release_files(evaluated)


def test_a_missing_folder_is_said_to_be_missing(tmp_path):
    for path in (tmp_path / "nothing", tmp_path / "file"):
        (tmp_path / "file").write_text("")
        with pytest.raises(release.ReleaseError, match=f"there is no folder {path}"):
            release.release_files(path)


@pytest.mark.parametrize(
    "content", ["", "# By hand", "---\na: [\n---\n", "---\n- a\n---\n", "---\nmodel-index: 3\n---\n"]
)
def test_a_card_tells_its_repository_and_other_text_none(content, evaluated, tmp_path):
    card = tmp_path / "README.md"
    assert release.repository_of(card) is None
    card.write_text(model_card.render_card(evaluated, REPO))
    assert release.repository_of(card) == REPO
    card.write_text(content)
    assert release.repository_of(card) is None
    card.write_bytes(b"\xff\xfe\x00")
    assert release.repository_of(card) is None


# where a release may be written


def other_weights(folder):
    """Make the model another one, evaluated as well."""
    weights = load_file(folder / "model.safetensors")
    weights["read_in.bias"] += torch.ones_like(weights["read_in.bias"])
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    metrics = json.loads((folder / "metrics.json").read_text())
    metrics["settings"]["weights_sha256"] = state_digest(weights)
    (folder / "metrics.json").write_text(json.dumps(metrics))


def run(monkeypatch, *flags):
    monkeypatch.setattr(sys, "argv", ["model_card.py", *map(str, flags)])
    model_card_program.main()


@pytest.fixture
def published(evaluated, tmp_path):
    """An earlier release of the model, with pictures and stages that it had then."""
    folder = tmp_path / "published"
    model_card.write_release(evaluated, REPO, folder)
    shutil.copyfile(folder / "error.png", folder / "shifts.png")
    (folder / "stages.json").write_text("[]")
    (folder / "module_of_an_older_version.py").symlink_to("../nowhere.py")
    return folder


def test_an_earlier_release_of_the_model_is_replaced_with_all_that_belongs_to_it(
    evaluated, published, tmp_path, change
):
    change("metrics.json", lambda metrics: metrics["error_by_example"]["model"]["error"].__setitem__(-1, 0.06))
    model_card.write_release(evaluated, REPO, published)
    model_card.write_release(evaluated, REPO, tmp_path / "new")
    assert listing(published) == listing(tmp_path / "new")
    assert {path.name for path in tmp_path.iterdir()} >= {"published", "new"}
    assert not list(tmp_path.glob(".*"))


def unfinish(folder):
    (folder / "model.safetensors").unlink()


REFUSED = {
    "another model": (other_weights, "holds another model"),
    "another repository": (lambda folder: model_card.write_release(folder, "bea/looped", folder), None),
    "a card by hand": (lambda folder: (folder / "README.md").write_text("# Mine"), "of something else, not of ana/lo"),
    "other files": (lambda folder: (folder / "notes.txt").write_text(""), r"files of no release \(notes.txt\)"),
    "a folder of ours": (lambda folder: (folder / "error.svg").mkdir(), r"files of no release \(error.svg\)"),
    "a run": (lambda folder: (folder / ".lock").write_text(""), r"files of no release \(.lock\)"),
    "an unfinished run": (unfinish, "not finished"),
    "damaged weights": (lambda folder: (folder / "model.safetensors").write_text(""), "holds another model"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_folder_that_holds_anything_else_is_refused_and_stays_as_it_was(
    kind, evaluated, published, tmp_path, monkeypatch
):
    spoil, message = REFUSED[kind]
    if kind == "another repository":
        shutil.rmtree(published)
        model_card.write_release(evaluated, "bea/looped", published)
        message = "of bea/looped, not of ana/looped: choose a new folder. For a new version .* remove the old folder"
    else:
        spoil(published)
    before = listing(tmp_path)
    with pytest.raises(SystemExit, match=message) as refused:
        run(monkeypatch, "--model", evaluated, "--repo_id", REPO, "--output_dir", published)
    assert "Nothing was changed" in str(refused.value)
    assert "\n" not in str(refused.value)
    assert listing(tmp_path) == before


def test_a_file_in_place_of_the_folder_is_refused(evaluated, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("kept")
    before = listing(tmp_path)
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(SystemExit, match="file"):
            run(monkeypatch, "--model", evaluated, "--repo_id", REPO, "--output_dir", folder)
    assert listing(tmp_path) == before


def test_in_place_other_files_stay_and_a_card_of_others_is_refused(evaluated, monkeypatch):
    (evaluated / ".lock").write_text("")
    (evaluated / "notes.txt").write_text("kept")
    flags = ("--model", evaluated, "--output_dir", evaluated, "--repo_id")
    run(monkeypatch, *flags, REPO)
    assert (evaluated / "notes.txt").read_text() == "kept"
    before = listing(evaluated)
    with pytest.raises(SystemExit, match="of ana/looped, not of bea/looped"):
        run(monkeypatch, *flags, "bea/looped")
    assert listing(evaluated) == before
    run(monkeypatch, *flags, REPO)
    assert listing(evaluated) == before


def test_an_empty_folder_is_taken(evaluated, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("empty")
    model_card.write_release(evaluated, REPO, tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "empty" / "README.md").exists()


def test_a_release_is_written_whole_or_not_at_all(evaluated, published, tmp_path, monkeypatch):
    before, copyfile = listing(tmp_path), shutil.copyfile

    def full_disk(source, target):
        if target.name == "recipe.yaml" and "published" in str(target):
            raise OSError(28, "No space left on device")
        copyfile(source, target)

    monkeypatch.setattr(shutil, "copyfile", full_disk)
    for folder in (published, tmp_path / "published_2"):
        with pytest.raises(SystemExit, match="No space left"):
            run(monkeypatch, "--model", evaluated, "--repo_id", REPO, "--output_dir", folder)
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
    with contextlib.suppress(KeyboardInterrupt), release.replacing(tmp_path / "folder") as new:
        for name in ("b", "c"):
            (new / name).write_text("new")
    after = {"folder": True, "folder/b": b"new", "folder/c": b"new"}
    assert listing(tmp_path) == (before if n_moved < 4 else after)


def test_a_folder_that_is_replaced_stays_the_same_folder(tmp_path, monkeypatch):
    """So that whoever stands in it, e.g. a shell, sees what was written."""
    monkeypatch.chdir(tmp_path)
    with release.replacing(Path().resolve()) as new:
        (new / "file").write_text("new")
    assert Path("file").read_text() == "new"


def test_a_folder_that_is_replaced_can_be_read_by_those_who_may(tmp_path):
    (tmp_path / "usual").mkdir()
    with release.replacing(tmp_path / "new" / "folder"):
        pass
    assert (tmp_path / "new" / "folder").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_the_refusal_of_a_claim_is_one_of_the_output_folder(evaluated, published):
    other_weights(published)
    with pytest.raises(OutputError, match="remove the old folder first"):
        model_card.write_release(evaluated, REPO, published)
