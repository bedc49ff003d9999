import signal
import subprocess
import sys
from pathlib import Path

import pytest


ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_during_the_imports_ends_the_program_in_one_line(number, tmp_path):
    # every import is reported on standard error; the handlers are there once one follows that of their own module
    command = [sys.executable, "-X", "importtime", "scripts/train.py", "--output_dir", str(tmp_path / "run")]
    with subprocess.Popen(
        command, cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE, text=True
    ) as process:
        for line in process.stderr:
            if line.endswith("scripts.training.interruption\n"):
                break
        process.stderr.readline()
        process.send_signal(number)
        lines = [line for line in process.stderr if not line.startswith("import time:")]
    assert process.returncode == 128 + number
    (line,) = lines
    assert line.startswith(f"train.py: stopped at once by {number.name}")
    assert not (tmp_path / "run").exists()
