"""The table of all tasks, and how a task is made from its name."""

from collections.abc import Mapping
from dataclasses import Field
from typing import Any

from .common import Task


TASKS: dict[str, type[Task]] = {}  # by name; `tasks/__init__.py` fills it


def task_fields(name: str, settings: Mapping[str, Any]) -> dict[str, Field]:
    """
    Return the settings that [`make_task`] takes for the task `name`, as dataclass fields by name.

    Args:
        name (`str`):
            An entry of [`TASKS`].
        settings (`Mapping[str, Any]`):
            The settings that are given: those that a mixture takes depend on its `components`.

    Raises:
        `ValueError`: there is no task of that name, or the components of a mixture cannot be read.
    """
    if name not in TASKS:
        raise ValueError(f"`task` must be one of {', '.join(TASKS)}, got {name!r}.")
    return TASKS[name].known_fields(settings)


def make_task(name: str, **settings: Any) -> Task:
    """
    Build the task `name`, an entry of [`TASKS`].

    Args:
        name (`str`):
            Its name.
        settings:
            Its settings; those that are left out are the paper's.

    Raises:
        `ValueError`: there is no task of that name, it has no such setting, or a value is out of its range.
    """
    known = task_fields(name, settings)
    for setting in settings:
        if setting not in known:
            raise ValueError(f"the settings of {name} are {', '.join(known)}, got `{setting}`.")
    return TASKS[name].from_settings(settings)
