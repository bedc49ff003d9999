"""Cells of a grid: trained some at a time, each by one of all processes that work in a folder, and measured."""

import fcntl
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

from scripts.common.records import read_json, write_atomically
from scripts.studies.grid import Grid
from scripts.studies.study_run import PROGRAM, StudyRun
from scripts.training.run_folder import RunError


SECONDS_BETWEEN_LOOKS = 0.2


class Cell(NamedTuple):
    """
    A cell and its files: `NAME/` is the run, `NAME.txt` what its training printed, `NAME.json` its figures.

    Args:
        name (`str`):
            Also the path of its files in the folder of the study.
        grid ([`Grid`]):
            The study.
    """

    name: str
    grid: Grid

    @property
    def run(self) -> StudyRun:
        """Its training."""
        return self.grid.run(self.name)

    def file(self, suffix: str) -> Path:
        """The file of the cell with this suffix."""
        return self.grid.output_dir / f"{self.name}.{suffix}"

    @property
    def is_finished(self) -> bool:
        """Whether the cell has its figures."""
        return self.file("json").exists()

    def figures(self) -> dict[str, Any]:
        """
        Its figures.

        Raises:
            [`RunError`]: they are of another training.
        """
        record, recipe = read_json(self.file("json")), json.loads(json.dumps(self.run.recipe))
        # a field that the record lacks is newer, and its default is as it was before
        changed = [name for name, value in record["recipe"].items() if recipe.get(name) != value]
        if changed:
            raise RunError(
                f"{self.file('json')} is of another training (`{changed[0]}` was {record['recipe'][changed[0]]}, now "
                f"{recipe.get(changed[0])}): choose another folder. Nothing was changed."
            )
        return record["figures"]

    def claim(self) -> IO | None:
        """Return the open lock of the cell, or `None` where another process works on it."""
        path = self.file("lock")
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.open("w")
        try:  # the kernel releases it when the last process that has it open ends, however it ends
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            return None
        return lock


class Work:
    """
    The training and measuring of cells.

    Args:
        cells (`Sequence[Cell]`):
            Those to do, in this order.
        jobs (`int`):
            Trainings at a time.
        n_threads (`int`):
            Threads of each.
        measure (`Callable`):
            From the run of a cell, trained, to its figures.
    """

    def __init__(
        self, cells: Sequence[Cell], jobs: int, n_threads: int, measure: Callable[[StudyRun], dict[str, Any]]
    ):
        self.cells, self.jobs, self.n_threads, self.measure = cells, jobs, n_threads, measure
        self.running: dict[str, tuple[Cell, IO, subprocess.Popen]] = {}
        self.failed: list[str] = []
        self.started, self.n_at_first = time.monotonic(), self.n_finished

    @property
    def n_finished(self) -> int:
        """Cells that are finished, whoever did them."""
        return sum(cell.is_finished for cell in self.cells)

    @property
    def n_left_to_others(self) -> int:
        """Cells that have neither failed here nor are finished."""
        return len(self.cells) - self.n_finished - len(self.failed)

    def do(self):
        """Do all that no other process does; trainings that still run are stopped and saved where this is left."""
        waiting = [cell for cell in self.cells if not cell.is_finished]
        try:
            self.report("to begin with")
            while waiting or self.running:
                while waiting and len(self.running) < self.jobs:
                    self.begin(waiting.pop(0))
                time.sleep(SECONDS_BETWEEN_LOOKS)
                for cell, lock, training in list(self.running.values()):
                    if training.poll() is not None:
                        self.end(cell, lock, training.returncode)
        finally:
            for _, _, training in self.running.values():
                training.terminate()
            for _, lock, training in self.running.values():
                training.wait()
                lock.close()

    def begin(self, cell: Cell):
        """Start the training of a cell, unless another process works on it or has done it."""
        lock = cell.claim()
        if lock is None:
            return
        if cell.is_finished:
            lock.close()
            return
        command = [sys.executable, str(PROGRAM), *cell.run.flags]
        environment = {**os.environ, "OMP_NUM_THREADS": str(self.n_threads)}
        with cell.file("txt").open("w") as output:
            # it has the lock open too: should this process be killed, the cell is its own until it ends
            training = subprocess.Popen(
                command, env=environment, stdout=output, stderr=subprocess.STDOUT, pass_fds=[lock.fileno()]
            )
        self.running[cell.name] = cell, lock, training

    def end(self, cell: Cell, lock: IO, status: int):
        """Measure a cell whose training has ended, and give it free."""
        if status:
            self.failed.append(cell.name)
            lines = cell.file("txt").read_text(errors="replace").strip().splitlines() or [""]
            print(f"{cell.name} failed with status {status}: {lines[-1]}", flush=True)
        else:
            record = {"recipe": cell.run.recipe, "figures": self.measure(cell.run)}
            write_atomically(cell.file("json"), json.dumps(record, indent=1))
            self.report(cell.name)
        del self.running[cell.name]
        lock.close()

    def report(self, last: str):
        """Print how far the work is, and how long what is left takes at the pace so far."""
        n_finished, left = self.n_finished, ""
        if n_finished > self.n_at_first:
            seconds = (time.monotonic() - self.started) / (n_finished - self.n_at_first)
            left = f", about {seconds * (len(self.cells) - n_finished) / 3600:.1f} h left"
        print(f"{n_finished} of {len(self.cells)} cells{left} ({last})", flush=True)
