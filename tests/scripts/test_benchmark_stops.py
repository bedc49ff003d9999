import json
import sys

import pytest

from scripts import benchmark_stops


@pytest.fixture
def run(monkeypatch, tmp_path, make_model):
    make_model(n_loops=3).save_pretrained(tmp_path / "model")

    def run(*flags):
        words = ["--model", str(tmp_path / "model"), "--output_dir", str(tmp_path / "out"), *map(str, flags)]
        monkeypatch.setattr(sys, "argv", ["benchmark_stops.py", *words])
        benchmark_stops.main()
        return json.loads((tmp_path / "out" / "benchmark_stops.json").read_text())

    return run


LINEAR = ("--task", "linear_regression", "--n_prompts", 12)


def test_rows_are_printed_and_written(run, capsys):
    result = run(*LINEAR, "--max_loops", 5)
    assert all(1 <= row["mean_loops"] <= 5 for row in result["rows"].values())
    assert result["settings"]["n_prompts"] == 12
    assert run(*LINEAR, "--max_loops", 5) == result
    printed = capsys.readouterr().out
    assert "beats random" in printed
    assert all(name in printed for name in result["rows"])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ((*LINEAR, "--max_loops", 0), "`max_loops` must be >= 1, got 0"),
        (("--task", "linear_regression", "--n_prompts", 0), "`n_prompts` must be >= 1, got 0"),
        (("--task", "pointer_chains"), "must hold a LoopedGPT2LMHeadModel"),
    ],
)
def test_what_cannot_be_measured_is_refused(run, tmp_path, capsys, flags, message):
    with pytest.raises(SystemExit) as exit:
        run(*flags)
    assert message in capsys.readouterr().err + str(exit.value)
    assert not (tmp_path / "out").exists()


def test_a_folder_of_other_files_is_refused_before_any_work(run, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "metrics.json").write_text("precious")
    with pytest.raises(SystemExit, match=r"holds other files \(metrics.json\)"):
        run(*LINEAR)


def test_loops_that_depend_on_their_number_are_refused(run, tmp_path, make_model):
    make_model(n_loops=3, loop_encoding="share").save_pretrained(tmp_path / "model")
    with pytest.raises(SystemExit, match=r"depend on how many there are.*loop_encoding='share'"):
        run(*LINEAR)
    assert not (tmp_path / "out").exists()
