import json
import os
import re
import shlex
import signal
import sys

import pytest

from scripts import study
from scripts.studies import study_run
from scripts.studies.cells import Work


SMALL = (
    "--n_embd 16 --n_head 2 --n_dims 2 --n_points 4 --max_steps 2 --warmup_steps 0 --decay_steps 0 --n_loops 3 "
    "--batch_size 8 --eval_every 0 --n_loops_start 2"
)


def test_one_command_trains_measures_and_draws(tmp_path, monkeypatch, capfd, trainings_of_studies):
    monkeypatch.setattr(sys, "argv", ["study.py", "injection", "--output_dir", str(tmp_path), *SMALL.split()])
    study.main()
    record = json.loads((tmp_path / "study.json").read_text())
    assert list(record["variants"]) == ["add", "none"]
    for measured in record["variants"].values():
        assert len(measured["error_by_loop"]["error"]) == 15
        assert measured["error_by_loop"]["error"][2] == pytest.approx(measured["error_by_example"]["error"][-1])
        for curve in (measured["error_by_example"], measured["error_by_loop"]):
            assert all(low <= error <= high for error, low, high in zip(*curve.values(), strict=True))
    configs = [json.loads((tmp_path / f"variant_{i}/config.json").read_text()) for i in range(2)]
    assert [config["input_injection"] for config in configs] == ["add", "none"]
    legend = re.findall("<!-- (.*) -->", (tmp_path / "study.svg").read_text())
    assert {"add", "none", "in-context examples"} <= set(legend)
    assert "5 x loops" in capfd.readouterr().out
    # the same command goes on, here with both trained, and one of other settings is refused
    monkeypatch.setattr(study, "train", lambda run: None)
    study.main()
    assert json.loads((tmp_path / "study.json").read_text()) == record
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--max_steps", "3"])
    with pytest.raises(SystemExit, match=r"other settings \(recipes.add.max_steps 2 -> 3, recipes.no"):
        study.main()


def test_a_misspelt_field_is_refused_before_anything_is_trained(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["study.py", "loops", "--output_dir", str(tmp_path), "--n_loop", "3"])
    with pytest.raises(SystemExit) as exit:
        study.main()
    assert exit.value.code == 2
    assert "did you mean `n_loops`" in capsys.readouterr().err
    for flags in (["--recipe", "other.yaml"], ["--recipe=other.yaml"]):
        monkeypatch.setattr(sys, "argv", ["study.py", "loops", "--output_dir", str(tmp_path / "new"), *flags])
        with pytest.raises(SystemExit):
            study.main()
        assert "`recipe` is that of the study" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


TINY = "--n_embd 8 --n_head 2 --max_steps 2 --batch_size 4"


@pytest.fixture
def mechanisms(tmp_path, monkeypatch):
    """Call `study.py mechanisms` with further words; returns the folder of the study."""
    monkeypatch.setenv("PYTHONPATH", str(study_run.PROGRAM.parents[1]))
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def call(*words, sizes=TINY):
        command = ["study.py", "mechanisms", "--output_dir", str(tmp_path / "grid"), *words, *sizes.split()]
        monkeypatch.setattr(sys, "argv", command)
        study.main()
        return tmp_path / "grid"

    yield call
    for number, handler in handlers.items():
        signal.signal(number, handler)


def test_a_listed_command_does_one_cell_and_the_same_command_gathers(mechanisms, monkeypatch, capsys):
    folder = mechanisms("--list", "--only", "linear/add/*")
    lines = capsys.readouterr().out.splitlines()
    assert not folder.exists()
    assert lines[0] == f"python scripts/study.py mechanisms --output_dir {folder} --only linear/add/0 {TINY}"
    assert len(lines) == 3
    monkeypatch.setattr(sys, "argv", shlex.split(lines[0])[1:])
    study.main()
    assert "1 of 1 cells, about 0.0 h left (linear/add/0)" in capsys.readouterr().out
    assert list(json.loads((folder / "study.json").read_text())["cells"]) == ["linear/add/0"]
    assert "| linear functions | prompt added |" in (folder / "study.md").read_text()
    assert (folder / "study.png").exists()
    before = (folder / "linear/add/0.json").read_text()
    mechanisms("--only", "linear/add/0")  # goes on: nothing is left
    assert (folder / "linear/add/0.json").read_text() == before
    capsys.readouterr()
    mechanisms("--list", "--only", "linear/add/*")
    assert len(capsys.readouterr().out.splitlines()) == 2
    with pytest.raises(SystemExit, match="holds results of other settings"):
        mechanisms("--only", "linear/add/0", sizes=TINY.replace("4", "8"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--only", "linear/gate/0"], "`only` must match a cell.*got `linear/gate/0`, did you mean `linear/gated/0`"),
        (["--jobs", "0"], "`jobs` must be >= 1, got 0"),
        (["--max_steps", "0"], "`max_steps` must be >= 1, got 0"),
        (["--seed", "3"], "`seed` is that of a cell"),
    ],
)
def test_a_bad_flag_of_the_mechanisms_is_refused_before_any_work(words, message, mechanisms, tmp_path):
    with pytest.raises(SystemExit, match=message):
        mechanisms(*words, sizes="")
    assert list(tmp_path.iterdir()) == []


def test_a_signal_ends_the_work_and_what_is_finished_is_gathered(mechanisms, monkeypatch, tmp_path):
    def stop(cell):
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Work, "begin", lambda work, cell: stop(cell))
    with pytest.raises(SystemExit, match="143"):
        mechanisms("--only", "linear/add/0")
    assert json.loads((tmp_path / "grid/study.json").read_text())["cells"] == {}
    assert (tmp_path / "grid/study.md").exists()


def test_a_misspelt_field_of_the_mechanisms_is_refused(mechanisms, tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        mechanisms("--only", "tree/add/0", sizes="--n_embed 8")
    assert "did you mean `n_embd`" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("other", ["loops", "linear_attention"])
def test_flags_of_the_mechanisms_are_refused_elsewhere(other, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["study.py", other, "--output_dir", str(tmp_path), "--list"])
    with pytest.raises(SystemExit, match="2"):
        study.main()
    assert f"are of the studies mechanisms, tables, diversity, got {other}" in capsys.readouterr().err
