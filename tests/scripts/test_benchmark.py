import json
import re
import sys

import pytest

from scripts import benchmark
from scripts.benchmarks import adaptive_loops, scaling


SIZES = {
    "batch_size": 2,
    "n_dims": 3,
    "n_points": 4,
    "n_embd": 16,
    "n_loops": 3,
    "loop_window": 2,
    "n_queries": 5,
    "repeats": 2,
}
SMALL = [word for name, value in SIZES.items() for word in (f"--{name}", str(value))]


@pytest.fixture
def run(monkeypatch, tmp_path):
    def run(*flags):
        monkeypatch.setattr(sys, "argv", ["benchmark.py", "--output_dir", str(tmp_path / "out"), *SMALL, *flags])
        monkeypatch.setattr(scaling, "SCALING", {"n_loops": (1, 3), "n_points": (2, 4), "batch_size": (1, 2)})
        monkeypatch.setattr(benchmark, "SEQUENCES", (6,))
        monkeypatch.setattr(adaptive_loops, "LONG_LOOPS", 5)
        monkeypatch.setattr(adaptive_loops, "TOLERANCES", (0.1, 0.01))
        benchmark.main()
        return json.loads((tmp_path / "out" / "benchmark.json").read_text())

    return run


def test_every_row_is_measured_beside_the_naive_loop(run, make_model, tmp_path, monkeypatch, capsys):
    drawn = []
    monkeypatch.setattr(scaling.plt, "close", drawn.append)
    model = make_model(n_loops=3)
    model.save_pretrained(tmp_path / "model")
    result = run("--against", "builtins:print", "--model", str(tmp_path / "model"))
    rows = result["seconds"]
    assert {what: set(timings) for what, timings in rows.items()} == {
        "training step": {"LoopedGPT2", "naive", "against"},
        "training step, 6 tokens": {"LoopedGPT2", "naive"},
        "prediction": {"LoopedGPT2", "naive"},
        "5 queries": {"LoopedGPT2", "naive"},
        "one more example": {"LoopedGPT2", "naive"},
        "64 new tokens": {"LoopedGPT2", "naive"},
        "stream batch": {"LoopedGPT2"},
    }
    for timings in rows.values():
        assert all(0 < row["min"] <= row["median"] <= row["max"] for row in timings.values())
    # the matmuls of the last y token are all that the naive loop does more
    for what in ("training step", "prediction"):
        ours, naive = rows[what]["LoopedGPT2"]["flop"], rows[what]["naive"]["flop"]
        assert 0.5 * naive < ours < naive
    ours, naive = (rows["training step, 6 tokens"][who]["flop"] for who in ("LoopedGPT2", "naive"))
    assert 0.9 * naive < ours < 1.1 * naive
    assert rows["5 queries"]["LoopedGPT2"]["flop"] < rows["5 queries"]["naive"]["flop"] / 2
    adaptive = result["adaptive_loops"]
    assert adaptive["3 loops"]["mean_loops"] == 3
    assert adaptive["at most 3, tolerance 0.01"]["mean_loops"] <= 3
    by_loops = result["scaling"]["n_loops"]
    assert by_loops["3"]["LoopedGPT2"]["flop"] > by_loops["1"]["LoopedGPT2"]["flop"]
    panels = drawn[0].axes
    assert [panel.get_xlabel() for panel in panels] == ["n_loops", "n_points", "batch_size"]
    for panel, values in zip(panels, ([1, 3], [2, 4], [1, 2]), strict=True):
        assert {line.get_label(): line.get_xdata().tolist() for line in panel.lines} == {
            "LoopedGPT2": values,
            "naive": values,
        }
    assert "training step" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--n_loops", "0"], "`n_loops` must be >= 1, got 0"),
        (["--n_points", "2"], "`n_points` must be >= 3, got 2"),
        (["--compile", "fast"], "argument --compile: invalid choice: 'fast'"),
        (["--against", "nowhere:step"], "`against` must be module:function, got nowhere:step"),
        (["--against", "scripts.benchmark"], "`against` must be module:function"),
        (["--against", "scripts.benchmarks.adaptive_loops:LONG_LOOPS"], "`against` must be a function, got a int"),
    ],
)
def test_a_bad_flag_is_refused(flags, message, run, capsys):
    with pytest.raises(SystemExit) as exit:
        run(*flags)
    assert exit.value.code == 2
    assert re.search(message, capsys.readouterr().err)
