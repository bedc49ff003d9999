"""A grid of trainings that are compared: several of one problem, each with several seeds."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scripts.studies.study_run import StudyRun
from scripts.training.cost import training_flops


Fields = dict[str, Any]

SEEDS = (0, 1, 2)
PROBED_STEPS = 1000


class Grid(ABC):
    """
    The runs of a study.

    Args:
        output_dir (`Path`):
            Folder of the study; that of a run is the name of its cell.
        full (`bool`):
            Whether the size is that of `--full`.
        max_steps (`int`, *optional*):
            Steps of the base model; all else that its recipe counts in steps changes with it. Default: the recipe's.
        more (`Sequence[str]`):
            Flags of train.py for every cell; a field that a cell changes is the cell's.

    Class attributes:
        cells (`tuple[str, ...]`):
            Names of the cells, which end with `/SEED`.
        files (`tuple[str, ...]`):
            Patterns of the folders of cells.
        full_steps (`int`, *optional*):
            Steps of the base model with `full`. `None`: the recipe's.
    """

    cells: tuple[str, ...]
    files: tuple[str, ...]
    full_steps: int | None = None

    def __init__(self, output_dir: Path, full: bool, max_steps: int | None, more: Sequence[str]):
        self.output_dir, self.more = output_dir, more
        self.full, self.max_steps = full, max_steps or (self.full_steps if full else None)

    @abstractmethod
    def fields(self, name: str) -> Fields:
        """The fields of a cell but for its seed; `name` is without it."""

    def run(self, cell: str) -> StudyRun:
        """The training of a cell. Ends the program as `parse_arguments` does where a flag cannot be used."""
        name, seed = cell.rsplit("/", 1)
        return StudyRun.from_fields(self.fields(name) | {"seed": int(seed)}, self.output_dir / cell)

    def resolved(self, recipe: Fields) -> Fields:
        """All fields of the run of a recipe, with the steps and the flags of this study."""
        fields = recipe if self.max_steps is None else scaled(recipe, self.max_steps)
        return StudyRun.from_fields(fields, self.output_dir, self.more).arguments.as_dict()

    def as_costly(self, fields: Fields, base: Fields) -> Fields:
        """The fields with as many steps as take the operations of the base model."""
        ratio = self.operations(base) / self.operations(fields)
        return scaled(fields, max(1, round(base["max_steps"] * ratio)))

    def operations(self, fields: Fields) -> int:
        """Operations of a training of these fields, but of fewer steps: each draws its loops, which takes time."""
        return training_flops(StudyRun.from_fields(scaled(fields, PROBED_STEPS), self.output_dir).arguments)


def scaled(fields: Fields, max_steps: int) -> Fields:
    """The fields of a run of `max_steps`, with all else that is counted in steps in the same relation to them."""
    ratio = max_steps / int(fields["max_steps"])
    counted = {name: int(int(fields[name]) * ratio) for name in ("warmup_steps", "decay_steps")}
    schedules = {
        size: growth
        | {"interval": max(1, int(int(growth["interval"]) * ratio)), "hold": int(int(growth["hold"]) * ratio)}
        for size, growth in fields["schedules"].items()
    }
    return fields | counted | {"max_steps": max_steps, "schedules": schedules}
