"""
Programs of the repository in processes of their own that begin with their imports done.

Every program imports for seconds what the others import too. So one process imports it for all, and each program is a
fork of that process: in all else, its signals, its memory and its end, it is the program that a shell starts.
"""

import contextlib
import faulthandler
import multiprocessing
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from multiprocessing.connection import wait
from pathlib import Path


ROOT = Path(__file__).parents[1]
FORKED = "forked"  # the name under which this file is run in the new process
PROGRAMS = ("train", "train_lm", "evaluate", "plot", "model_card")
# elsewhere no process can be forked that has imported so much: each imports for itself
context = multiprocessing.get_context("forkserver" if sys.platform == "linux" else "spawn")
context.set_forkserver_preload([f"scripts.{name}" for name in PROGRAMS])


def run_program(
    program: Sequence[str], n_processes: int = 1, folder: Path = ROOT, timeout: float = 300
) -> subprocess.CompletedProcess:
    """
    Run a program with its flags in `folder`, in several connected processes if asked, without a launcher.

    Where one fails, the others are ended, and its status is that of all. One that hangs fails with all stacks.
    """
    with tempfile.TemporaryDirectory() as outputs:
        paths = [[Path(outputs, f"{name}_{rank}") for name in ("out", "err")] for rank in range(n_processes)]
        ranks = [{}] if n_processes == 1 else _connections(n_processes)
        orders = [(list(program), folder, os.environ | rank, each) for rank, each in zip(ranks, paths, strict=True)]
        # this file by its path: its name may be that of an installed package there
        starts = [(__file__, {"order": order}, FORKED) for order in orders]
        processes = [context.Process(target=runpy.run_path, args=start) for start in starts]
        with contextlib.chdir(ROOT):  # the first one starts the process that imports
            for process in processes:
                process.start()
        status = _end_of(processes, timeout)
        stdout, stderr = ("".join(path.read_text() for path in each) for each in zip(*paths, strict=True))
        if status is None:
            raise TimeoutError(f"no end after {timeout} s: {stderr}")
    return subprocess.CompletedProcess(list(program), status, stdout, stderr)


def _connections(n_processes: int) -> list[dict[str, str]]:
    """What tells each of several processes of the others, as `torchrun` does."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    common = {"WORLD_SIZE": n_processes, "LOCAL_WORLD_SIZE": n_processes, "MASTER_ADDR": "127.0.0.1"}
    common |= {"MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "none"}
    ranks = [common | {"RANK": rank, "LOCAL_RANK": rank} for rank in range(n_processes)]
    return [{name: str(value) for name, value in each.items()} for each in ranks]


def _end_of(processes: list[multiprocessing.Process], timeout: float) -> int | None:
    """The first status other than 0, else 0; `None` where there is no end in time."""
    running, status, deadline = list(processes), 0, time.monotonic() + timeout
    while running:
        if not wait([process.sentinel for process in running], max(0, deadline - time.monotonic())):
            for process in running:
                os.kill(process.pid, signal.SIGABRT)  # the fault handler prints where it stands
                process.join()
            return None
        for process in [process for process in running if not process.is_alive()]:
            running.remove(process)
            status = status or process.exitcode
        if status:
            for process in running:
                process.terminate()
    return status


def _run(program: list[str], folder: Path, environment: dict[str, str], outputs: list[Path]):
    """Be a program."""
    for descriptor, path in enumerate(outputs, start=1):
        with path.open("wb") as file:
            os.dup2(file.fileno(), descriptor)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    faulthandler.enable()
    warnings.simplefilter("ignore")
    sys.argv = program
    runpy.run_path(program[0], run_name="__main__")


if __name__ == FORKED:
    _run(*order)  # noqa: F821, given by the process that asks
