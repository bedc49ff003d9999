"""What a release publishes is what the programs wrote into the model's own folder."""

import os

import pytest

from scripts.release import files
from scripts.release.card import render_card


REPO = "ana/looped"
NAMES = sorted({*files.SOURCES, *files.OPTIONAL})


@pytest.fixture
def secret(tmp_path):
    path = tmp_path / "outside" / "secret"
    path.parent.mkdir()
    path.write_text("password")
    return path


def replace(path, kind, secret):
    """Put something else in a file's place; returns what the refusal says."""
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
    with pytest.raises(files.ReleaseError, match=message) as refused:
        files.release_files(evaluated)
    assert str(evaluated / name) in str(refused.value)
    with pytest.raises(files.ReleaseError, match=message):
        render_card(evaluated, REPO)


SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><path d="M0 0"/></svg>'


def test_a_whole_picture_is_taken(evaluated):
    (evaluated / "error.svg").write_bytes(SVG)
    assert "error.svg" in files.release_files(evaluated)


@pytest.mark.parametrize("name", ["error.png", "error.svg"])
@pytest.mark.parametrize(
    "content", [b"", b"password", SVG[:-3], b"<html></html>", b"\x89PNG\r\n\x1a\n", b"\xff\xfe<", 0]
)
def test_what_is_no_picture_is_refused(name, content, evaluated):
    content = content or (evaluated / "error.png").read_bytes()[:-1]
    (evaluated / name).write_bytes(content)
    with pytest.raises(files.ReleaseError, match=f"{name} is not a whole picture: run scripts/plot.py again"):
        files.release_files(evaluated)


@pytest.mark.parametrize("name", ["metrics.json", "log.jsonl", "error.png", "stages.json"])
def test_a_file_too_large_to_read_is_refused(name, evaluated):
    with (evaluated / name).open("w") as file:
        file.truncate(files.MAX_BYTES + 1)  # a hole, which takes no disk
    with pytest.raises(files.ReleaseError, match=rf"{name} must have at most {files.MAX_BYTES} bytes"):
        files.release_files(evaluated)


def test_a_missing_folder_is_said_to_be_missing(tmp_path):
    for path in (tmp_path / "nothing", tmp_path / "file"):
        (tmp_path / "file").write_text("")
        with pytest.raises(files.ReleaseError, match=f"there is no folder {path}"):
            files.release_files(path)


@pytest.mark.parametrize(
    "content", ["", "# By hand", "---\na: [\n---\n", "---\n- a\n---\n", "---\nmodel-index: 3\n---\n"]
)
def test_a_card_tells_its_repository_and_other_text_none(content, evaluated, tmp_path):
    card = tmp_path / "README.md"
    assert files.repository_of(card) is None
    card.write_text(render_card(evaluated, REPO))
    assert files.repository_of(card) == REPO
    card.write_text(content)
    assert files.repository_of(card) is None
    card.write_bytes(b"\xff\xfe\x00")
    assert files.repository_of(card) is None
