import json
import sys

import numpy as np
import pytest

from modeling_looped_gpt2 import LoopedGPT2ForInContextClassification
from scripts import tables
from tasks.tables import real_tables


SIZES = "--n_steps 2 --n_tuning_steps 2 --n_points 10 --n_dims 4 --n_loops 2 --n_embd 8 --n_prompts 10"


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Call the program on two small tables; its trainings leave models that have learned nothing."""
    trained = []

    def leave_model(run):
        trained.append(run.folder.name)
        run.arguments.objective.model_class(run.arguments.config).save_pretrained(run.folder)

    def run(*flags):
        monkeypatch.setattr(sys, "argv", ["tables.py", "--output_dir", str(tmp_path), *SIZES.split(), *flags])
        tables.main()
        return trained

    small = {name: (np.random.randn(40, 3), np.arange(40) % 2) for name in "ab"}
    monkeypatch.setattr(
        real_tables,
        "load_tables",
        lambda source: {name: real_tables.standardise(*table) for name, table in small.items()},
    )
    monkeypatch.setattr(tables, "train", leave_model)
    return run


def test_every_table_is_left_out_once(run, tmp_path, capsys):
    assert run() == ["random_tables", "without_a", "without_b"]
    record = json.loads((tmp_path / "tables.json").read_text())
    assert list(record["tables"]) == ["a", "b"]
    for entry in record["tables"].values():
        assert list(entry) == ["random tables", "and the others", "logistic regression", "3-nearest neighbours"]
        assert all(0 <= value["low"] <= value["accuracy"] <= value["high"] <= 1 for value in entry.values())
    assert "logistic regression" in capsys.readouterr().out
    assert LoopedGPT2ForInContextClassification.from_pretrained(tmp_path).config.n_dims == 4


def test_the_same_call_goes_on_and_one_of_other_settings_is_refused(run, tmp_path):
    run()
    record = json.loads((tmp_path / "tables.json").read_text())
    run()
    assert json.loads((tmp_path / "tables.json").read_text())["settings"] == record["settings"]
    with pytest.raises(SystemExit, match="results of other settings \\(n_steps 2 -> 3\\)"):
        run("--n_steps", "3")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--n_points", "5"), "`n_points` must be >= 10, got 5"),
        (("--n_embd", "10"), "must be a multiple of"),
        (("--seed", str(10**12)), "`seed` must be <= 4294967295"),
    ],
)
def test_bad_flags_are_refused_before_any_work(run, flags, message, tmp_path, capsys):
    with pytest.raises(SystemExit) as exit:
        run(*flags)
    assert exit.value.code == 2
    assert message in capsys.readouterr().err
    assert not any(tmp_path.iterdir())
