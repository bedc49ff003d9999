import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from scripts import predict


SCRIPT = Path(predict.__file__)


@pytest.fixture
def refused(tmp_path, monkeypatch, capsys):
    """Run the program in this process; the one line that it ends with."""

    def run(*flags):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["predict.py", *map(str, flags)])
        with pytest.raises(SystemExit) as exit:
            predict.main()
        assert exit.value.code not in (0, None)
        message = capsys.readouterr().err + str(exit.value.code)
        assert "Traceback" not in message
        return message

    return run


@pytest.fixture
def model(make_model, tmp_path):
    """A folder whose code leaves a mark where it is run."""
    make_model().save_pretrained(tmp_path / "model")
    for code in (tmp_path / "model").glob("*.py"):
        code.write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n{code.read_text()}")
    return tmp_path / "model"


def test_what_can_only_be_a_folder_is_not_looked_up_on_the_hub(refused, tmp_path, monkeypatch):
    monkeypatch.setattr(predict, "load", lambda *_: pytest.fail("asked"))
    assert "there is no folder" in refused("--model", "runs/quickstrat", "--trust_remote_code")
    (tmp_path / "runs").mkdir()
    (tmp_path / "owner").write_text("a file")
    for name in (tmp_path / "none", "./none", "runs/quickstrat", "a/b/c", "none", "owner", "~/none"):
        assert f"there is no folder {Path(name)}" in refused("--model", name, "--trust_remote_code")


def test_no_code_of_a_model_runs_unasked(refused, model, tmp_path):
    assert "add --trust_remote_code" in refused("--model", model)
    assert not (tmp_path / "ran").exists()


def test_a_model_of_another_kind_is_refused_before_its_code_runs(refused, model, make_config, tmp_path):
    config = json.loads((model / "config.json").read_text())
    for kinds in (["LoopedGPT2LMHeadModel"], None, "text", ["GPT2Model", "LoopedGPT2ForInContextRegression"]):
        (model / "config.json").write_text(json.dumps(config | {"architectures": kinds}))
        assert "must name `architectures`" in refused("--model", model, "--trust_remote_code")
    for content in ("", "{", "[]", "\x00"):
        (model / "config.json").write_text(content)
        assert "cannot be loaded" in refused("--model", model, "--trust_remote_code")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("damage", ["missing", "truncated", "other"])
def test_damaged_weights_are_refused(damage, refused, model, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    path = model / "model.safetensors"
    if damage == "missing":
        path.unlink()
    elif damage == "truncated":
        path.write_bytes(path.read_bytes()[:-9])
    else:
        weights = load_file(path)
        weights.pop("read_out.weight")
        save_file(weights, path, metadata={"format": "pt"})
    assert "cannot be loaded" in refused("--model", model, "--trust_remote_code")


def test_it_answers_where_the_project_cannot_be_imported(make_model, tmp_path):
    make_model().save_pretrained(tmp_path / "model")
    environment = os.environ | {
        "PYTHONPATH": sysconfig.get_path("purelib"),
        "HF_MODULES_CACHE": str(tmp_path / "modules"),
    }
    command = [sys.executable, "-S", str(SCRIPT), "--model", str(tmp_path / "model"), "--trust_remote_code"]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    assert "project importable: False" in result.stdout
    assert "n_loops=4: error " in result.stdout
