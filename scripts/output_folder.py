"""Whether a program may write into a folder: nothing that belongs to another model or program is overwritten."""

from collections.abc import Collection
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file

from scripts.model_loading import state_digest
from scripts.records import METRICS_FILE, RECIPE_FILE, WEIGHTS_FILE, RecordError, read_json


class OutputError(ValueError):
    """A folder cannot be written to; the message says why. Nothing was changed."""


def claim_own(folder: Path, files: Collection[str]):
    """
    Make a folder that only one program writes to.

    Args:
        folder (`Path`):
            New, empty, or of an earlier call of the same program.
        files (`Collection[str]`):
            Patterns of the names that the program writes, as `Path.match` reads them; they may be replaced.

    Raises:
        [`OutputError`]: the folder holds anything else, or cannot be made.
    """
    strangers = [name for name in _names(folder) if not any(Path(name).match(pattern) for pattern in files)]
    if strangers:
        raise OutputError(
            f"`output_dir` {folder} holds other files ({', '.join(strangers[:3])}): choose a new folder. "
            "Nothing was changed."
        )
    _make(folder)


def claim_beside(folder: Path, weights_sha256: str | None):
    """
    Make a folder for records of a model: a new one, the model's own, or one of earlier records of it.

    Args:
        folder (`Path`):
            The folder.
        weights_sha256 (`str`, *optional*):
            Digest of the model's weights, `None` where a record of an older version does not tell.

    Raises:
        [`OutputError`]: the folder holds another model, records of one, or a run that is not finished, or cannot be
            made.
    """
    names = _names(folder)
    remedy = "choose a new folder, or that of the model itself. Nothing was changed."
    if RECIPE_FILE in names and WEIGHTS_FILE not in names:
        raise OutputError(f"`output_dir` {folder} holds a run that is not finished: {remedy}")
    if any(name.endswith((".safetensors", ".bin")) for name in names) and weights_sha256 != _weights_of(folder):
        raise OutputError(f"`output_dir` {folder} holds another model: {remedy}")
    if METRICS_FILE in names and weights_sha256 != _measured_in(folder):
        raise OutputError(f"`output_dir` {folder} holds the {METRICS_FILE} of another model: {remedy}")
    _make(folder)


def _weights_of(folder: Path) -> str | None:
    try:
        return state_digest(load_file(folder / WEIGHTS_FILE))
    except (OSError, SafetensorError):
        return ""  # of no model


def _measured_in(folder: Path) -> str | None:
    try:
        return read_json(folder / METRICS_FILE)["settings"].get("weights_sha256")
    except (RecordError, LookupError, AttributeError, TypeError):
        return ""


def _names(folder: Path) -> list[str]:
    try:
        return sorted(entry.name for entry in folder.iterdir())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise OutputError(f"`output_dir` {folder} cannot be used as a folder: {error}.") from None


def _make(folder: Path):
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"`output_dir` {folder} cannot be made: {error}.") from None
