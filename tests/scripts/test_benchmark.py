import json
import sys

import pytest
import torch

from scripts import benchmark


def test_the_naive_loop_computes_what_the_model_computes(make_model, prompts):
    model = make_model()
    naive = benchmark.NaiveLoop(model.config)
    naive.load_state_dict(model.state_dict(), strict=False)
    by_loop = model(
        prompts["xs"], prompts["ys"], n_loops=5, loop_window=3, output_loop_predictions=True
    ).loop_predictions
    torch.testing.assert_close(naive(prompts["xs"], prompts["ys"], 5, 3), by_loop, rtol=1e-4, atol=1e-5)


SIZES = {"batch_size": 2, "n_dims": 3, "n_points": 4, "n_embd": 16, "n_loops": 3, "loop_window": 2, "repeats": 2}
SMALL = [word for name, value in SIZES.items() for word in (f"--{name}", str(value))]


@pytest.fixture
def run(monkeypatch, tmp_path):
    def run(*flags):
        monkeypatch.setattr(sys, "argv", ["benchmark.py", "--output_dir", str(tmp_path / "out"), *SMALL, *flags])
        monkeypatch.setattr(benchmark, "SCALING", {"n_loops": (1, 3), "n_points": (2, 4), "batch_size": (1, 2)})
        benchmark.main()
        return json.loads((tmp_path / "out" / "benchmark.json").read_text())

    return run


def test_every_row_is_measured_beside_the_naive_loop(run, tmp_path, capsys):
    result = run("--against", "builtins:print")
    rows = result["seconds"]
    assert {what: set(timings) for what, timings in rows.items()} == {
        "training step": {"LoopedGPT2", "naive", "against"},
        "prediction": {"LoopedGPT2", "naive"},
        "stream batch": {"LoopedGPT2"},
    }
    for timings in rows.values():
        assert all(0 < row["min"] <= row["median"] <= row["max"] for row in timings.values())
    # the matmuls of the last y token are all that the naive loop does more
    for what in ("training step", "prediction"):
        ours, naive = rows[what]["LoopedGPT2"]["flop"], rows[what]["naive"]["flop"]
        assert 0.5 * naive < ours < naive
    by_loops = result["scaling"]["n_loops"]
    assert by_loops["3"]["LoopedGPT2"]["flop"] > by_loops["1"]["LoopedGPT2"]["flop"]
    assert (tmp_path / "out" / "scaling.png").stat().st_size > 1000
    assert "training step" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--n_loops", "0"], "`n_loops` must be >= 1, got 0"),
        (["--against", "nowhere:step"], "`against` must be module:function, got nowhere:step"),
        (["--against", "scripts.benchmark"], "`against` must be module:function"),
    ],
)
def test_a_bad_flag_is_refused(flags, message, run, capsys):
    with pytest.raises(SystemExit) as exit:
        run(*flags)
    assert exit.value.code == 2
    assert message in capsys.readouterr().err
