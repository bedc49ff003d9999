import json
import sys

import pytest

from scripts import benchmark_lm as benchmark_lm_program


@pytest.fixture
def run(tmp_path, monkeypatch):
    def run(**changes):
        sizes = {"n_tokens": 4, "n_loops": 4, "n_embd": 64, "vocab_size": 16, "repeats": 1} | changes
        flags = [str(part) for name, value in sizes.items() for part in (f"--{name}", value)]
        monkeypatch.setattr(sys, "argv", ["benchmark_lm.py", "--output_dir", str(tmp_path), *flags])
        monkeypatch.setattr(benchmark_lm_program, "prepare_device", lambda: benchmark_lm_program.torch.device("cpu"))
        benchmark_lm_program.main()
        return json.loads((tmp_path / "benchmark_lm.json").read_text())["rows"]

    return run


def test_rows_are_what_they_say(run, capsys):
    rows = run()
    assert all(row["tokens_per_second"] > 0 for row in rows.values())
    stock, looped = rows["stock GPT-2"], rows["looped"]
    assert stock["cache_bytes"] == looped["cache_bytes"] == 4 * 2 * 4 * (16 + 4 - 1) * 64
    assert rows["looped, one slot for all"]["cache_bytes"] == looped["cache_bytes"] // 4
    assert rows["looped, no cache"]["cache_bytes"] == 0
    assert 3.5 < stock["parameters"] / looped["parameters"] < 4
    assert "looped, no cache" in capsys.readouterr().out


BAD = {"repeats": (0, "`repeats` must be >= 1, got 0"), "n_embd": (200, "multiple of its 3 heads, got 200")}


@pytest.mark.parametrize("name", BAD)
def test_bad_sizes_are_refused(run, name, tmp_path, capsys):
    value, message = BAD[name]
    with pytest.raises(SystemExit):
        run(**{name: value})
    assert message in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


def test_a_folder_of_other_files_is_refused_before_any_work(run, tmp_path):
    (tmp_path / "metrics.json").write_text("precious")
    with pytest.raises(SystemExit, match=r"holds other files \(metrics.json\): choose a new folder"):
        run()
    assert (tmp_path / "metrics.json").read_text() == "precious"
