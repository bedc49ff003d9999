import json
import sys

import pytest

from modeling_looped_gpt2 import LoopedGPT2Config, LoopedGPT2ForInContextRegression
from scripts import probe
from scripts.studies.probe_experiment import TARGETS


def test_a_model_of_sets_is_refused(tmp_path, monkeypatch):
    config = LoopedGPT2Config(n_embd=16, n_head=2, n_dims=3, n_positions=8, n_loops=2, example_order="set")
    LoopedGPT2ForInContextRegression(config).save_pretrained(tmp_path)
    monkeypatch.setattr(sys, "argv", ["probe.py", "--model", str(tmp_path), "--output_dir", str(tmp_path)])
    with pytest.raises(SystemExit, match="`example_order` of the model must be causal, whose tokens are probed"):
        probe.main()


def test_probing_writes_one_error_per_block(tmp_path, monkeypatch):
    config = LoopedGPT2Config(n_embd=16, n_head=2, n_dims=3, n_positions=8, n_loops=2)
    LoopedGPT2ForInContextRegression(config).save_pretrained(tmp_path)
    flags = ["--model", str(tmp_path), "--output_dir", str(tmp_path), "--n_prompts", "20", "--n_steps", "2"]
    monkeypatch.setattr(sys, "argv", ["probe.py", *flags])
    probe.main()
    record = json.loads((tmp_path / "probe.json").read_text())
    assert record["prefixes"] == {"xty": [1, 2, 3, 4], "least_squares": [1, 2, 3]}
    assert {len(record[target][kind]) for target in TARGETS for kind in ("probe", "control")} == {3}
    # n examples of 3 dimensions determine n / 3 of the weights' variance 1
    assert record["least_squares"]["zero"] == pytest.approx(2 / 3, abs=0.1)
    svg = (tmp_path / "probe.svg").read_text()
    assert all(f"<!-- {title} -->" in svg for title in (*TARGETS.values(), "this model", "control"))
