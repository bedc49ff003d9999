"""The records of a model, read from its folder and checked to belong together."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from scripts.common.records import (
    ENVIRONMENT_FILE,
    LOG_FILE,
    METRICS_FILE,
    RECIPE_FILE,
    SEEDS_FILE,
    SPECIALISTS_FILE,
    STAGES_FILE,
    SUITE_FILE,
    read_json,
    read_json_lines,
    read_json_list,
    read_yaml,
)
from scripts.evaluation.evaluated_task import build_task, settings_of
from scripts.evaluation.metrics_record import Metrics
from scripts.release.files import release_files
from scripts.release.seeds import differing_fields
from scripts.release.stages import prompt_settings
from scripts.specialists.record import Comparison
from scripts.training.objectives import OBJECTIVES, Objective
from tasks import TASKS, FunctionClass, Task, task_fields


@dataclass(frozen=True)
class Record:
    """
    All records of a model.

    Args:
        config (`dict`), recipe (`dict`), environment (`dict`), log (`list[dict]`):
            Written by scripts/train.py.
        metrics ([`Metrics`]):
            Written by scripts/evaluate.py.
        stages (`list[dict]`), seeds (`list[dict]`):
            Written by scripts/stages.py about the other stages of the training, and by scripts/seeds.py about the same
            training with other seeds; empty where they were not run.
        suite (`dict`, *optional*):
            Written by scripts/table_suite.py.
        comparison ([`~scripts.specialists.record.Comparison`], *optional*):
            Written by scripts/compare_specialists.py.
    """

    config: dict[str, Any]
    recipe: dict[str, Any]
    environment: dict[str, Any]
    log: list[dict[str, Any]]
    metrics: Metrics
    stages: list[dict[str, Any]]
    seeds: list[dict[str, Any]] = field(default_factory=list)
    suite: dict[str, Any] | None = None
    comparison: Comparison | None = None

    @cached_property
    def task(self) -> Task:
        """The task; one that this project does not know is taken for a class of functions."""
        name = self.metrics.settings.task
        if name not in TASKS:
            return FunctionClass()
        settings = settings_of(self.recipe, name)
        # a run records these sizes of a task beside its other settings
        known = task_fields(name, settings).keys() & {"n_dims", "n_points"} - settings.keys()
        sizes = {size: self.recipe[size] for size in known if self.recipe.get(size) is not None}
        return build_task(name, settings | sizes)

    @property
    def description(self) -> str:
        """What was learned, in words; a task that this project does not know goes by its name."""
        task, name = self.task, self.metrics.settings.task.replace("_", " ")
        *others, last = [each.description for each in task.components.values()] or [getattr(task, "description", name)]
        return f"{', '.join(others)} and {last}" if others else last

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
    files = (STAGES_FILE, SEEDS_FILE, SUITE_FILE, SPECIALISTS_FILE)
    stages, seeds, suite, specialists = (folder / name for name in files)
    record = Record(
        config=read_json(folder / "config.json"),
        recipe=read_yaml(folder / RECIPE_FILE),
        environment=read_json(folder / ENVIRONMENT_FILE),
        log=read_json_lines(folder / LOG_FILE),
        metrics=Metrics.read(folder / METRICS_FILE),
        stages=read_json_list(stages) if stages.exists() else [],
        seeds=read_json_list(seeds) if seeds.exists() else [],
        suite=read_json(suite) if suite.exists() else None,
        comparison=Comparison.read(specialists) if specialists.exists() else None,
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
    for name, program, others in ((STAGES_FILE, "stages", record.stages), (SEEDS_FILE, "seeds", record.seeds)):
        if any(other["prompts"] != prompt_settings(settings) for other in others):
            raise ValueError(f"{name} is of other prompts than metrics.json: run scripts/{program}.py again")
    if any(differing_fields(other["recipe"], recipe) for other in record.seeds):
        raise ValueError(f"{SEEDS_FILE} is of another recipe than recipe.yaml: run scripts/seeds.py again")
    return record
