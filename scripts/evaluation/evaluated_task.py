"""What is evaluated: the recipe of a model's training, and a task in sizes that fit the model."""

from pathlib import Path
from typing import Any

from transformers.utils import cached_file

from modeling_looped_gpt2 import LoopedGPT2Config
from modeling_looped_gpt2.example_orders_looped_gpt2 import order_of
from scripts.common.records import RECIPE_FILE, RecordError, read_yaml
from tasks import Task, make_task, task_fields


def recipe_of(name: str, revision: str | None = None) -> dict[str, Any]:
    """
    Return the recipe of a model's training, which lies beside the weights; empty where there is none.

    Raises:
        [`RecordError`]: the recipe is damaged.
    """
    try:
        path = Path(cached_file(name, RECIPE_FILE, revision=revision))
    except OSError:
        return {}
    recipe = read_yaml(path)
    task, n_points, settings = (recipe.get(field) for field in ("task", "n_points", "task_settings"))
    if not isinstance(task, str | None):
        raise RecordError(f"`task` in {path} must be a name, got {task!r}.")
    if n_points is not None and (type(n_points) is not int or n_points < 1):
        raise RecordError(f"`n_points` in {path} must be an integer >= 1, got {n_points!r}.")
    if not isinstance(settings, dict | None):
        raise RecordError(f"`task_settings` in {path} must be a mapping of names to values, got {settings!r}.")
    return recipe


def settings_of(recipe: dict[str, Any], task: str) -> dict[str, Any]:
    """Return the `task_settings` of a recipe if it is of this task; none if it is of another."""
    return (recipe.get("task_settings") or {}) if recipe.get("task") == task else {}


def build_task(name: str, settings: dict[str, Any]) -> Task:
    """As [`tasks.make_task`], with the settings of a recipe; raises `ValueError` where they are not the task's."""
    try:
        return make_task(name, **settings)
    except TypeError as error:  # e.g. text instead of a number, deep in a mapping
        raise ValueError(f"`task_settings` hold a value of another type than {name} takes: {error}.") from None


def task_for(name: str, settings: dict[str, Any], config: LoopedGPT2Config, n_points: int | None = None) -> Task:
    """
    Return the task of that name, in sizes that fit the model.

    Args:
        name (`str`), settings (`dict`):
            As [`tasks.make_task`] takes them.
        config ([`LoopedGPT2Config`]):
            The model's configuration.
        n_points (`int`, *optional*, defaults to as many as the model has positions):
            Points of a prompt.

    Raises:
        `ValueError`: the model cannot read such prompts, or a setting is not the task's.
    """
    known, sizes, order = task_fields(name, settings), {}, order_of(config)
    if "n_points" in known:
        most = order.max_examples(config.n_positions) + 1
        if n_points is not None and n_points > order.max_examples(config.max_tokens) + 1:
            raise ValueError(
                f"`n_points` must be <= {most} for a model of `n_positions` = {config.n_positions}, got {n_points}."
            )
        sizes["n_points"] = n_points or most
    elif n_points is not None:
        raise ValueError(f"`n_points` is not a size of {name}: leave it out.")
    if "n_dims" in known:
        sizes["n_dims"] = config.n_dims
    task = build_task(name, settings | sizes)
    for field, needed in task.model_fields.items():
        has = getattr(config, field, needed)  # code beside the weights may be of an older version
        needs = order.n_tokens(task.n_positions(**task.sizes))
        fits = config.max_tokens >= needs if field == "n_positions" else has == needed
        if not fits and field == "n_positions":
            of_sizes = ", ".join(f"`{size}` {value}" for size, value in task.sizes.items())
            raise ValueError(f"`{field}` of the model must be >= {needs} for {name} of {of_sizes}, got {has}.")
        if not fits:
            raise ValueError(f"`{field}` of the model must be {needed} for {name}, got {has}.")
    return task
