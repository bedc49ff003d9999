import os
import subprocess
import sys
import sysconfig
from pathlib import Path


SCRIPT = Path(__file__).parents[2] / "scripts" / "predict.py"


def test_a_missing_model_is_named(tmp_path):
    command = [sys.executable, str(SCRIPT), "--model", str(tmp_path / "none")]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert result.returncode == 2
    assert "`--model` must be a finished run or a Hub repository, got" in result.stderr
    assert "Traceback" not in result.stderr


def test_it_answers_where_the_project_cannot_be_imported(make_model, tmp_path):
    make_model().save_pretrained(tmp_path / "model")
    environment = os.environ | {
        "PYTHONPATH": sysconfig.get_path("purelib"),
        "HF_MODULES_CACHE": str(tmp_path / "modules"),
    }
    command = [sys.executable, "-S", str(SCRIPT), "--model", str(tmp_path / "model")]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    assert "project importable: False" in result.stdout
    assert "n_loops=4: error " in result.stdout
