"""Records of runs and evaluations in JSON and YAML: written whole or not at all, checked when they are read."""

import errno
import functools
import json
import os
import re
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml


# files in the folder of a model, and the program that writes them
WEIGHTS_FILE = "model.safetensors"  # scripts/train.py, and the next three
RECIPE_FILE, ENVIRONMENT_FILE, LOG_FILE = "recipe.yaml", "environment.json", "log.jsonl"
METRICS_FILE, STAGES_FILE = "metrics.json", "stages.json"  # scripts/evaluate.py, scripts/stages.py
SEEDS_FILE, SUITE_FILE = "seeds.json", "suite.json"  # scripts/seeds.py, a copy of what scripts/table_suite.py writes
SPECIALISTS_FILE = "specialists.json"  # scripts/compare_specialists.py


class RecordError(ValueError):
    """A record is missing, cannot be read or is not what its program writes; the message says which and why."""


class _NamesOnce:
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = [name.value for name, _ in node.value]
        repeated = next((name for name in names if names.count(name) > 1), None)
        if repeated is not None:
            raise ValueError(f"`{repeated}` is given {names.count(repeated)} times, keep one of them")
        return super().construct_mapping(node, deep)


class _Loader(_NamesOnce, yaml.SafeLoader):
    """The safe loader; without `_NamesOnce` it would take the last of several values of a name."""


class _TextLoader(_NamesOnce, yaml.BaseLoader):
    """Leaves every value but null as the text that is written."""


_NULL = "tag:yaml.org,2002:null"
_TextLoader.add_implicit_resolver(_NULL, re.compile("^(~|null|Null|NULL|)$"), ["~", "n", "N", ""])
_TextLoader.add_constructor(_NULL, lambda loader, node: None)


def read_text(path: Path) -> str:
    """Read a text file in UTF-8; raises [`RecordError`] where there is none."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise RecordError(f"there is no file {path}.") from None
    except IsADirectoryError:
        raise RecordError(f"{path} is a folder: give the file in it.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise RecordError(f"{path} cannot be read: {error}.") from None


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; raises [`RecordError`] where the file holds something else."""
    return _parse(path, read_text(path), json.loads, "JSON")


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping; raises [`RecordError`] where the file holds something else."""
    return _parse(path, read_text(path), functools.partial(yaml.load, Loader=_Loader), "YAML")


def read_recipe(path: Path) -> dict[str, Any]:
    """As [`parse_recipe`], from a file."""
    return parse_recipe(path, read_text(path))


def parse_recipe(where: Path | str, text: str) -> dict[str, Any]:
    """
    Read a YAML mapping of fields to values, each as the text that is written: `no` and `1e-3` stay text.

    Args:
        where (`Path` or `str`):
            What an error message calls the text.
        text (`str`):
            YAML; a value may hold further mappings and lists of text.

    Raises:
        [`RecordError`]: the text is something else.
    """
    return _parse(where, text, functools.partial(yaml.load, Loader=_TextLoader), "YAML")


def read_json_lines(path: Path, may_end_early: bool = False) -> list[dict[str, Any]]:
    """
    Read a file with one JSON object per line.

    Args:
        path (`Path`):
            The file.
        may_end_early (`bool`, defaults to `False`):
            Leave out a last line without a line end: the process was killed while it wrote it.

    Raises:
        [`RecordError`]: a line is something else; the message names the first one.
    """
    lines = read_text(path).splitlines(keepends=True)
    if may_end_early and lines and not lines[-1].endswith("\n"):
        lines.pop()
    return [_parse(f"{path}, line {number},", line, json.loads, "JSON") for number, line in enumerate(lines, 1)]


def read_json_list(path: Path) -> list[dict[str, Any]]:
    """Read a JSON list of objects; raises [`RecordError`] where the file holds something else."""
    records = _parse(path, read_text(path), json.loads, "JSON", list)
    if not all(isinstance(record, dict) for record in records):
        raise RecordError(f"{path} must hold a list of mappings of names to values.")
    return records


def _parse(
    where: Path | str, text: str, parse: Callable[[str], Any], kind: str, of: type[dict] | type[list] = dict
) -> Any:
    try:
        record = parse(text)
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise RecordError(f"{where} is not valid {kind}: {' '.join(str(error).split())}.") from None
    if not isinstance(record, of):
        shape = "a list" if of is list else "a mapping of names to values"
        raise RecordError(f"{where} must hold {shape}, got {type(record).__name__}.")
    return record


def write_atomically(path: Path, text: str):
    """
    Write a text file so that a reader finds the old content or the new, never a part, whatever else writes it.

    The content has reached the disk before it takes the place of the old one.
    """
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        with partial.open("x", encoding="utf-8") as file:
            file.write(text)
        flush_to_disk(partial)
        os.replace(partial, path)
        flush_to_disk(path.parent)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def flush_to_disk(path: Path):
    """Wait until the content of a file, or the names in a folder, have reached the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # some file systems know this for files alone
        if not path.is_dir() or error.errno not in (errno.EBADF, errno.EINVAL):
            raise
    finally:
        os.close(descriptor)
