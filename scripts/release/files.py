"""The files of a release: their names, the checks of each, and how they replace those of an earlier release."""

import os
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from xml.etree import ElementTree

import yaml
from huggingface_hub import metadata_load

from scripts.common.output_folder import OutputError, claim_beside
from scripts.common.records import SEEDS_FILE, SPECIALISTS_FILE, STAGES_FILE, SUITE_FILE
from scripts.evaluation.metrics_record import Metrics


CARD_FILE = "README.md"
# the files that a release needs, and the program that writes each
SOURCES = {
    "config.json": "scripts/train.py",
    "model.safetensors": "scripts/train.py",
    "recipe.yaml": "scripts/train.py",
    "environment.json": "scripts/train.py",
    "log.jsonl": "scripts/train.py",
    "metrics.json": "scripts/evaluate.py",
    "error.png": "scripts/plot.py",
}
# the pictures of a field of the metrics, by its name
PICTURES = {
    part: {f"{name}.png", f"{name}.svg"}
    for part, name in {"shifts": "shifts", "components": "components", "stops": "lengths"}.items()
}
# other files that it may hold
OPTIONAL = {STAGES_FILE, SEEDS_FILE, SUITE_FILE, SPECIALISTS_FILE, "error.svg"}.union(*PICTURES.values())
MAX_BYTES = 2**28  # of a record or a picture: each is read into memory
PNG_START, PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"


class ReleaseError(ValueError):
    """A folder cannot be released; the message says which of its files is wrong and why."""


def release_files(folder: Path) -> list[str]:
    """
    Return the names of the files that the release of a model publishes, without the card and the code.

    Args:
        folder (`Path`):
            Folder of a trained, evaluated and drawn model. Its other files are not published.

    Raises:
        [`ReleaseError`], [`RecordError`]: a file is missing, lies elsewhere or is not what its program writes.
    """
    if not folder.is_dir():
        raise ReleaseError(f"there is no folder {folder}.")
    for name, program in SOURCES.items():
        if not os.path.lexists(folder / name):
            raise ReleaseError(f"{folder} holds no {name}: run {program} first.")
    names = [name for name in sorted({*SOURCES, *OPTIONAL}) if os.path.lexists(folder / name)]
    for name in names:
        check_file(folder / name)
    metrics = Metrics.read(folder / "metrics.json")
    stale = [name for part, pictures in PICTURES.items() if not getattr(metrics, part) for name in pictures]
    return [name for name in names if name not in stale]  # stale pictures are of an earlier evaluation


def check_file(path: Path):
    """Raise [`ReleaseError`] unless `path` is a file in its folder, not too large and, if a picture, whole."""
    try:
        target = path.resolve(strict=True)
    except (OSError, RuntimeError):  # RuntimeError: links in a circle, before Python 3.13
        raise ReleaseError(f"{path} is a link that leads nowhere: put the file in its place.") from None
    if not target.is_relative_to(path.parent.resolve()):
        raise ReleaseError(f"{path} is a link to {target}, outside of its folder: put the file in its place.")
    if not target.is_file():
        raise ReleaseError(f"{path} must be a file, got a folder or a device.")
    if path.suffix != ".safetensors" and target.stat().st_size > MAX_BYTES:
        raise ReleaseError(f"{path} must have at most {MAX_BYTES} bytes, got {target.stat().st_size}.")
    if path.suffix in (".png", ".svg") and not _is_picture(path):
        raise ReleaseError(f"{path} is not a whole picture: run scripts/plot.py again.")


def _is_picture(path: Path) -> bool:
    if path.suffix == ".png":
        content = path.read_bytes()
        return content.startswith(PNG_START) and content.endswith(PNG_END)
    try:
        return ElementTree.parse(path).getroot().tag == "{http://www.w3.org/2000/svg}svg"
    except (ElementTree.ParseError, ValueError, LookupError):  # an encoding that is unknown or does not fit
        return False


def repository_of(card: Path) -> str | None:
    """Return the repository named by a card of scripts/model_card.py; `None` for anything else or no file."""
    if not card.is_file():
        return None
    try:
        return metadata_load(card)["model-index"][0]["name"]
    except (OSError, ValueError, LookupError, TypeError, yaml.YAMLError):
        return None


def claim_release(folder: Path, release: Path, in_place: bool):
    """
    Check that a release may be written to a folder.

    Args:
        folder (`Path`):
            May be missing, empty, or an earlier release of the same weights to the same repository.
        release (`Path`):
            The folder whose content is to be written.
        in_place (`bool`):
            Whether `folder` is that of the model itself, which may hold other files; they stay.

    Raises:
        [`OutputError`]: the folder holds anything else.
    """
    if not folder.exists():
        return
    ours = {path.name for path in release.iterdir()} | OPTIONAL
    strangers = sorted(entry.name for entry in folder.iterdir() if not _is_of_release(entry, ours))
    if strangers and not in_place:
        raise OutputError(
            f"`output_dir` {folder} holds files that are not of a release ({', '.join(strangers[:3])}): choose a new "
            "folder. Nothing was changed."
        )
    new_version = "For a new version of a release remove the old folder first."
    try:
        claim_beside(folder, Metrics.read(release / "metrics.json").settings.weights_sha256)
    except OutputError as error:
        raise OutputError(f"{error} {new_version}") from None
    before, now = (repository_of(path / CARD_FILE) for path in (folder, release))
    if os.path.lexists(folder / CARD_FILE) and before != now:
        raise OutputError(
            f"`output_dir` {folder} holds the {CARD_FILE} of {before or 'something else'}, not of {now}: choose a new "
            f"folder. {new_version} Nothing was changed."
        )


def _is_of_release(entry: Path, names: Collection[str]) -> bool:
    """Whether it is one of these files, or a link to the model's code, of which another version may have more."""
    return (entry.name in names and entry.is_file()) or (entry.suffix == ".py" and entry.is_symlink())


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """
    Yield an empty folder; at the end its content replaces the content of `folder`, all of it or nothing.

    Args:
        folder (`Path`):
            Missing, or one whose content may be lost. It is made, or stays the same folder with other content.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as temporary:
        new, old = Path(temporary, "new"), Path(temporary, "old")
        new.mkdir()
        yield new
        if not folder.exists():
            new.rename(folder)
            return
        old.mkdir()
        moved = []
        try:
            for source, target in ((folder, old), (new, folder)):
                for path in list(source.iterdir()):
                    moved.append((path, path.rename(target / path.name)))
        except BaseException:
            for before, after in reversed(moved):
                after.rename(before)
            raise
