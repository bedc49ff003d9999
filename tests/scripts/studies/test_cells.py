import json
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from scripts.studies import cells as cells_module
from scripts.studies.cells import Cell, Work
from scripts.training.run_folder import RunError


# notes that it ran, and does what its flags say
TRAINING = """
import os, pathlib, sys, time
folder, seconds, status = pathlib.Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
with (folder.parent / "trained").open("a") as file:
    file.write(folder.name + "\\n")
print("threads", os.environ["OMP_NUM_THREADS"])
print("the last line", file=sys.stderr, flush=True)
time.sleep(seconds)
sys.exit(status)
"""
NAMES = ("p/add/0", "p/add/1", "p/add/2", "p/add/3")


class FakeGrid:
    """Cells whose trainings are `TRAINING`."""

    def __init__(self, output_dir, seconds=0.0, failing=(), **recipe):
        self.output_dir, self.seconds, self.failing, self.recipe = output_dir, seconds, failing, recipe

    def run(self, name):
        folder = self.output_dir / name
        flags = [str(folder), str(self.seconds), str(int(name in self.failing))]
        return SimpleNamespace(folder=folder, flags=flags, recipe={"cell": name, **self.recipe})


def work_in(folder, jobs=2, **grid):
    """The work on four cells of a folder."""
    cells_module.PROGRAM = folder / "training.py"
    cells = [Cell(name, FakeGrid(folder, **grid)) for name in NAMES]
    return Work(cells, jobs, 3, lambda run: {"name": run.folder.name})


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(cells_module, "PROGRAM", None)  # and back
    monkeypatch.setattr(cells_module, "SECONDS_BETWEEN_LOOKS", 0.02)
    (tmp_path / "training.py").write_text(TRAINING)
    return tmp_path


def trained(folder):
    """The cells that were trained, in this order; a cell that was trained twice is there twice."""
    file = folder / "p/add/trained"
    return file.read_text().split() if file.exists() else []


def wait_until(is_so):
    deadline = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_every_cell_is_trained_measured_and_reported_once(folder, capsys):
    work_in(folder).do()
    assert sorted(trained(folder)) == ["0", "1", "2", "3"]
    cell = work_in(folder).cells[1]
    assert cell.figures() == {"name": "1"}
    assert cell.file("txt").read_text().split("\n")[:2] == ["threads 3", "the last line"]
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "0 of 4 cells (to begin with)"
    assert lines[-1].startswith("4 of 4 cells, about 0.0 h left (p/add/")
    work_in(folder).do()  # nothing is left
    assert len(trained(folder)) == 4
    assert capsys.readouterr().out == "4 of 4 cells (to begin with)\n"


def test_as_many_run_at_a_time_as_asked_for(folder):
    work = work_in(folder, jobs=3)
    for cell in work.cells[:3]:
        work.begin(cell)
    assert len(work.running) == 3
    for cell, lock, training in list(work.running.values()):
        assert training.wait() == 0
        work.end(cell, lock, 0)
    assert work.running == {}
    work.do()
    assert sorted(trained(folder)) == ["0", "1", "2", "3"]


def test_a_cell_that_fails_is_told_and_tried_again_and_the_others_are_done(folder, capsys):
    work = work_in(folder, failing=["p/add/1"])
    work.do()
    assert work.failed == ["p/add/1"]
    assert work.n_left_to_others == 0
    assert work.n_finished == 3
    assert "p/add/1 failed with status 1: the last line" in capsys.readouterr().out
    work_in(folder).do()
    assert sorted(trained(folder)) == ["0", "1", "1", "2", "3"]


def test_a_cell_of_another_process_is_left_to_it(folder):
    work = work_in(folder)
    lock = work.cells[2].claim()
    work.do()
    assert sorted(trained(folder)) == ["0", "1", "3"]
    assert work.n_left_to_others == 1
    lock.close()
    work_in(folder).do()
    assert trained(folder)[-1] == "2"


def test_two_at_once_train_no_cell_twice(folder):
    # a lock is of an open file, so two threads meet it as two processes do
    workers = [work_in(folder, seconds=0.1) for _ in range(2)]
    with ThreadPoolExecutor() as threads:
        for done in [threads.submit(worker.do) for worker in workers]:
            done.result()
    assert sorted(trained(folder)) == ["0", "1", "2", "3"]
    assert work_in(folder).n_finished == 4


def test_a_cell_is_free_once_a_killed_process_and_its_training_have_ended_and_not_before(folder):
    work = work_in(folder, seconds=60)
    cell = work.cells[0]
    work.begin(cell)
    _, lock, training = work.running[cell.name]
    lock.close()  # all that the end of this process would do
    assert cell.claim() is None  # its training goes on
    training.kill()
    training.wait()
    cell.claim().close()
    assert not cell.is_finished
    work_in(folder).do()
    assert work_in(folder).n_finished == 4


def test_what_still_runs_is_stopped_where_the_work_is_left(folder):
    work = work_in(folder, seconds=60)

    def report(last):
        raise KeyboardInterrupt

    for cell in work.cells[:2]:
        work.begin(cell)
    wait_until(lambda: len(trained(folder)) == 2)
    work.report = report
    with pytest.raises(KeyboardInterrupt):
        work.do()
    assert [training.returncode for _, _, training in work.running.values()] == [-15, -15]


def test_figures_of_another_training_are_refused(folder):
    work_in(folder, depth=6).do()
    assert Cell(NAMES[0], FakeGrid(folder, depth=6, new=None)).figures() == {"name": "0"}
    with pytest.raises(RunError, match=r"0.json is of another training \(`depth` was 6, now 7\)"):
        Cell(NAMES[0], FakeGrid(folder, depth=7)).figures()
    record = json.loads(work_in(folder).cells[0].file("json").read_text())
    assert record["recipe"] == {"cell": NAMES[0], "depth": 6}
