"""The records of a model, read from its folder and checked to belong together."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from scripts.common.records import (
    ENVIRONMENT_FILE,
    LOG_FILE,
    METRICS_FILE,
    RECIPE_FILE,
    STAGES_FILE,
    read_json,
    read_json_lines,
    read_json_list,
    read_yaml,
)
from scripts.evaluation.evaluated_task import build_task, settings_of
from scripts.evaluation.metrics_record import Metrics
from scripts.release.files import release_files
from scripts.release.stages import prompt_settings
from scripts.training.objectives import OBJECTIVES, Objective
from tasks import TASKS, FunctionClass, Task


@dataclass(frozen=True)
class Record:
    """
    All records of a model.

    Args:
        config (`dict`), recipe (`dict`), environment (`dict`), log (`list[dict]`):
            Written by scripts/train.py.
        metrics ([`Metrics`]):
            Written by scripts/evaluate.py.
        stages (`list[dict]`):
            Written by scripts/stages.py about the other stages of the training, empty where it was not run.
    """

    config: dict[str, Any]
    recipe: dict[str, Any]
    environment: dict[str, Any]
    log: list[dict[str, Any]]
    metrics: Metrics
    stages: list[dict[str, Any]]

    @cached_property
    def task(self) -> Task:
        """The task; one that this project does not know is taken for a class of functions."""
        name = self.metrics.settings.task
        return build_task(name, settings_of(self.recipe, name)) if name in TASKS else FunctionClass()

    @property
    def description(self) -> str:
        """What was learned, in words; a task that this project does not know goes by its name."""
        task, name = self.task, self.metrics.settings.task.replace("_", " ")
        components = " and ".join(component.description for component in task.components.values())
        return components or getattr(task, "description", name)

    @property
    def objective(self) -> type[Objective]:
        """The objective of the training, which decides the model's class."""
        return OBJECTIVES[self.task.objective]


def read_record(folder: Path) -> Record:
    """
    Read the records of a model from its folder.

    Raises:
        `ValueError`: a file is missing or is not what its program writes, or the records are of different models.
    """
    release_files(folder)  # checked before anything is read: a device, e.g., may have no end
    stages = folder / STAGES_FILE
    record = Record(
        config=read_json(folder / "config.json"),
        recipe=read_yaml(folder / RECIPE_FILE),
        environment=read_json(folder / ENVIRONMENT_FILE),
        log=read_json_lines(folder / LOG_FILE),
        metrics=Metrics.read(folder / METRICS_FILE),
        stages=read_json_list(stages) if stages.exists() else [],
    )
    settings, config, recipe = record.metrics.settings, record.config, record.recipe
    n_dims = config["n_dims"] if settings.n_dims else None  # recorded for classes of functions only
    for name, first, second in (
        ("n_dims", settings.n_dims, n_dims),
        ("task", settings.task, recipe["task"]),
        ("n_loops", config["n_loops"], recipe["n_loops"]),
    ):
        if first != second:
            raise ValueError(f"the records are of different models: `{name}` is {first} and {second}")
    if any(stage["prompts"] != prompt_settings(settings) for stage in record.stages):
        raise ValueError(f"{STAGES_FILE} is of other prompts than metrics.json: run scripts/stages.py again")
    return record
