"""A model that the page shows, and the task that it was trained on."""

from dataclasses import dataclass
from typing import Any

from scripts.common.model_loading import check_name
from scripts.evaluation.evaluated_task import build_task, recipe_of, settings_of
from tasks import TASKS, Task
from tasks.mixture import Mixture


LOOPS_SHOWN = 2  # times the trained count, where a task does not say how many it needs


@dataclass(frozen=True)
class ShownModel:
    """
    What is known of a model before it is loaded.

    Args:
        name (`str`):
            Its folder or Hub repository.
        task_name (`str`):
            The task that the page asks of it, an entry of [`~tasks.TASKS`].
        recipe (`dict`):
            That of its training; empty where there is none.
    """

    name: str
    task_name: str
    recipe: dict[str, Any]

    @property
    def task_class(self) -> type[Task]:
        """The class of the task."""
        return TASKS[self.task_name]

    @property
    def settings(self) -> dict[str, Any]:
        """The `task_settings` of the recipe; none where it is of another task."""
        return settings_of(self.recipe, self.task_name)


def find_model(name: str, task_name: str | None = None) -> ShownModel:
    """
    Find a model and its task.

    Args:
        name (`str`):
            Folder or Hub repository of a model.
        task_name (`str`, *optional*, defaults to that of the model's recipe):
            The task; of a mixture the page shows the component of most weight.

    Raises:
        `ValueError`: there is no such model, or no such task; or no task is given, and no recipe names one.
    """
    check_name(name)
    recipe = recipe_of(name)
    task_name = task_name or recipe.get("task")
    if not task_name:
        raise ValueError(f"{name} holds no recipe.yaml, which names the task: give `--task`.")
    if task_name not in TASKS:
        raise ValueError(f"`task` must be one of {', '.join(TASKS)}, got {task_name!r}.")
    if issubclass(TASKS[task_name], Mixture):
        weights = build_task(task_name, settings_of(recipe, task_name)).weights
        task_name = max(weights, key=weights.__getitem__)
    return ShownModel(name, task_name, recipe)


def say_loops(count: int) -> str:
    """Say a number of loops."""
    return f"{count} loop" if count == 1 else f"{count} loops"
