"""A study whose trainings are cells of a grid: these are chosen, listed, done and gathered."""

import argparse
import json
import shlex
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from scripts.common.devices import prepare_device
from scripts.common.fields import unknown
from scripts.common.output_folder import claim_own
from scripts.common.records import write_atomically
from scripts.studies.cells import Cell, Work
from scripts.studies.diversity import DiversityGrid, measure_diversity, write_diversity
from scripts.studies.grid import Grid
from scripts.studies.mechanism_figures import Figures, measure_cell, write_cells
from scripts.studies.mechanisms import MechanismGrid
from scripts.studies.study_run import StudyRun
from scripts.studies.table_variants import TableGrid, measure_tables, write_tables
from scripts.training.run_folder import RunError


class GridStudy(NamedTuple):
    """
    A study.

    Args:
        grid (`type[Grid]`):
            Its cells.
        measure (`Callable`):
            From the run of a cell, trained, and a device to the figures of the cell.
        write (`Callable`):
            From the figures by cell and the folder of the study to its table and picture there, `study.*`.
    """

    grid: type[Grid]
    measure: Callable[[StudyRun, torch.device], Figures]
    write: Callable[[Mapping[str, Figures], Path], None]


STUDIES = {
    "mechanisms": GridStudy(MechanismGrid, measure_cell, write_cells),
    "tables": GridStudy(TableGrid, measure_tables, write_tables),
    "diversity": GridStudy(DiversityGrid, measure_diversity, write_diversity),
}


def study_grid(options: argparse.Namespace, more: Sequence[str]):
    """
    Do all cells that are left, or list them, and gather what is finished.

    Args:
        options (`argparse.Namespace`):
            `study`, an entry of [`STUDIES`], `output_dir`, `full`, `list`, `only` and `jobs` of the command line.
        more (`Sequence[str]`):
            Flags of train.py for every cell.

    Raises:
        [`RunError`]: cells failed, once all others are done; or the folder cannot be used.
    """
    own = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    own.add_argument("--max_steps", type=int)
    steps, fields = own.parse_known_args(more)
    if steps.max_steps is not None and steps.max_steps < 1:
        raise ValueError(f"`max_steps` must be >= 1, got {steps.max_steps}")
    if any(word.split("=")[0] == "--seed" for word in more):
        raise ValueError("`seed` is that of a cell: leave it out")
    if options.jobs is not None and options.jobs < 1:
        raise ValueError(f"`jobs` must be >= 1, got {options.jobs}")
    study = STUDIES[options.study]
    grid = study.grid(options.output_dir, options.full, steps.max_steps, fields)
    cells = [Cell(name, grid) for name in chosen(options.only, grid)]
    for cell in cells:
        _ = cell.run  # all are checked before the first is trained
    if options.list:
        for cell in cells:
            if not cell.is_finished:
                print(command(options, cell.name, more))
        return
    settings = {"study": options.study, "full": options.full, "fields": list(more)}
    claim_own(options.output_dir, "study.json", settings, ["study.*", *grid.files])
    finished(grid)  # refuses cells of another training before there is any work
    do(cells, options.jobs, study.measure, partial(gather, study, grid, settings))
    print(f"written to {options.output_dir}")


def chosen(pattern: str | None, grid: Grid) -> list[str]:
    """The names of the cells that match a pattern; raises `ValueError` where none does."""
    names = [name for name in grid.cells if pattern is None or fnmatchcase(name, pattern)]
    if not names:
        raise ValueError(f"`only` must match a cell, such as {grid.cells[0]}, {unknown('got', pattern, grid.cells)}")
    return names


def command(options: argparse.Namespace, name: str, more: Sequence[str]) -> str:
    """The line of a shell that does one cell."""
    words = ["python", "scripts/study.py", options.study, "--output_dir", str(options.output_dir), "--only", name]
    return shlex.join([*words, *(["--full"] if options.full else []), *more])


def do(
    cells: Sequence[Cell],
    jobs: int | None,
    measure: Callable[[StudyRun, torch.device], Figures],
    gather: Callable[[], None],
):
    """Do what is left of some cells and gather, also where a signal ends it; raises `RunError` where cells failed."""
    device = prepare_device()
    if device.type == "cpu":
        jobs = jobs or torch.get_num_threads()
        torch.set_num_threads(max(1, torch.get_num_threads() // jobs))
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, frame: sys.exit(128 + number))
    work = Work(cells, jobs or 1, torch.get_num_threads(), partial(measure, device=device))
    try:
        work.do()
    finally:
        gather()
    if work.n_left_to_others:
        print(f"{work.n_left_to_others} cells are other processes' work: the same command gathers them when finished")
    if work.failed:
        raise RunError(f"{len(work.failed)} cells failed: {', '.join(work.failed[:3])}; the same command tries again.")


def finished(grid: Grid) -> dict[str, Figures]:
    """The figures of all finished cells of a study; raises [`RunError`] where some are of another training."""
    cells = [Cell(name, grid) for name in grid.cells]
    return {cell.name: cell.figures() for cell in cells if cell.is_finished}


def gather(study: GridStudy, grid: Grid, settings: dict[str, Any]):
    """Write all that is finished: `study.json`, and the study's table and picture."""
    cells = finished(grid)
    write_atomically(grid.output_dir / "study.json", json.dumps({"settings": settings, "cells": cells}, indent=1))
    study.write(cells, grid.output_dir)
