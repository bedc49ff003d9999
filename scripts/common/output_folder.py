"""Whether a program may write into a folder: nothing that belongs to another model or program is overwritten."""

import json
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from scripts.common.records import (
    METRICS_FILE,
    RECIPE_FILE,
    SEEDS_FILE,
    SPECIALISTS_FILE,
    STAGES_FILE,
    SUITE_FILE,
    RecordError,
    read_json,
    write_atomically,
)


# files about a model: those that plot.py and report.py make from its metrics.json, and those of other programs
PICTURES = ("error", "shifts", "components", "lengths")
DRAWN_FROM_METRICS = (*(f"{name}.{suffix}" for name in PICTURES for suffix in ("png", "svg")), "report.html")
ABOUT_A_MODEL = {
    METRICS_FILE,
    STAGES_FILE,
    SEEDS_FILE,
    SUITE_FILE,
    SPECIALISTS_FILE,
    *DRAWN_FROM_METRICS,
    "probe.json",
    "probe.png",
    "probe.svg",
    "superposition.json",
}


class OutputError(ValueError):
    """A folder may not or cannot be written to; the message says why. Nothing was changed."""


def claim_own(folder: Path, record: str, settings: dict[str, Any], files: Collection[str]) -> dict[str, Any]:
    """
    Make a folder that only one program writes to, and write the settings of this call into it.

    Args:
        folder (`Path`):
            New, empty, or that of an earlier call of the same program with the same settings.
        record (`str`):
            Name of the JSON file of the program's results, which holds its settings under `"settings"`.
        settings (`dict`):
            The settings of this call.
        files (`Collection[str]`):
            Patterns (`Path.match`) for the names of the other files that the program writes; it may replace those.

    Returns:
        The content of the record: that of the earlier call, or the settings alone.

    Raises:
        [`OutputError`]: the folder holds anything else, or results of other settings, or cannot be made.
    """
    names, path = _names(folder), folder / record
    remedy = "choose a new folder. Nothing was changed."
    strangers = [name for name in names if not any(Path(name).match(pattern) for pattern in (record, *files))]
    if names and record not in names:
        strangers = strangers or names
    if strangers:
        raise OutputError(f"`output_dir` {folder} holds other files ({', '.join(strangers[:3])}): {remedy}")
    settings = json.loads(json.dumps(settings))  # as they are read from a file
    if names:
        changed = list(_changes(_settings_of(path), settings))
        if changed:
            raise OutputError(
                f"`output_dir` {folder} holds results of other settings ({', '.join(changed[:3])}): {remedy}"
            )
    make_folder(folder)
    if not names:
        write_atomically(path, json.dumps({"settings": settings}))
    return read_json(path)


def claim_beside(folder: Path, weights_sha256: str | None):
    """Make a folder for files about a model; raises as [`check_beside`], and where it cannot be made."""
    check_beside(folder, weights_sha256)
    make_folder(folder)


def check_beside(folder: Path, weights_sha256: str | None):
    """
    Check that files about a model may be written to a folder: a new one, the model's own, or one with such files.

    Args:
        folder (`Path`):
            The folder.
        weights_sha256 (`str`, *optional*):
            Digest of the model's weights, `None` where a record of an older version does not hold it.

    Raises:
        [`OutputError`]: the folder holds another model, records of one, a run that is not finished or other files.
    """
    names = _names(folder)
    remedy = "choose a new folder, or that of the model itself. Nothing was changed."
    has_weights = any(name.endswith((".safetensors", ".bin")) for name in names)
    if RECIPE_FILE in names and not has_weights:
        raise OutputError(f"`output_dir` {folder} holds a run that is not finished: {remedy}")
    if has_weights and weights_sha256 != _weights_of(folder):
        raise OutputError(f"`output_dir` {folder} holds another model: {remedy}")
    if METRICS_FILE in names and weights_sha256 != _settings_of(folder / METRICS_FILE).get("weights_sha256"):
        raise OutputError(f"`output_dir` {folder} holds the {METRICS_FILE} of another model: {remedy}")
    strangers = [name for name in names if name not in ABOUT_A_MODEL]
    if strangers and not has_weights and METRICS_FILE not in names:
        raise OutputError(f"`output_dir` {folder} holds other files ({', '.join(strangers[:3])}): {remedy}")


def make_folder(folder: Path, field: str = "output_dir"):
    """Make a folder that can be written to; raises [`OutputError`], which names the `field`, where that fails."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OutputError(f"`{field}` {folder} cannot be written to: {error}.") from None


def remove_drawings(folder: Path) -> list[str]:
    """Remove what was drawn from a metrics.json that is about to change; returns the names."""
    stale = [name for name in DRAWN_FROM_METRICS if (folder / name).exists()]
    for name in stale:
        (folder / name).unlink()
    return stale


def _weights_of(folder: Path) -> str | None:
    # these take seconds, and most folders hold no weights
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from scripts.common.model_loading import state_digest

    try:
        parts = [load_file(path) for path in sorted(folder.glob("*.safetensors"))]
    except (OSError, SafetensorError):
        return ""  # the digest of no model
    return state_digest({name: weight for part in parts for name, weight in part.items()})


def _changes(before: dict[str, Any], after: dict[str, Any], within: str = "") -> Iterator[str]:
    """Yield a line for every value in `after` that is new or different."""
    for name, value in after.items():
        old = before.get(name)
        if isinstance(value, dict) and isinstance(old, dict):
            yield from _changes(old, value, f"{within}{name}.")
        elif old != value:
            yield f"{within}{name} {old} -> {value}"


def _settings_of(path: Path) -> dict[str, Any]:
    """Return the settings in a record; those of a damaged record equal no program's."""
    try:
        settings = read_json(path)["settings"]
    except (RecordError, LookupError):
        settings = None
    return settings if isinstance(settings, dict) else {"weights_sha256": ""}


def _names(folder: Path) -> list[str]:
    """Return the names in the folder, without those of files that a killed program was writing."""
    try:
        return sorted(entry.name for entry in folder.iterdir() if not entry.name.endswith(".partial"))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise OutputError(f"`output_dir` {folder} cannot be used as a folder: {error}.") from None
