import json
import re
import sys

import pytest

from scripts import study
from scripts.studies import study_run


SMALL = (
    "--n_embd 16 --n_head 2 --n_dims 2 --n_points 4 --max_steps 2 --warmup_steps 0 --decay_steps 0 --n_loops 3 "
    "--batch_size 8 --eval_every 0 --n_loops_start 2"
)


def test_one_command_trains_measures_and_draws(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(sys, "argv", ["study.py", "injection", "--output_dir", str(tmp_path), *SMALL.split()])
    monkeypatch.setenv("PYTHONPATH", str(study_run.PROGRAM.parents[1]))
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
