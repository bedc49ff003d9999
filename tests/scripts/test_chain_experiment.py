import json
import sys

import pytest
import torch

from modeling_looped_gpt2 import LoopedGPT2LMHeadModel
from scripts import chain_experiment


@pytest.fixture
def run(tmp_path, monkeypatch):
    def run(*flags):
        settings = ["--max_steps", "200", "--batch_size", "2", "--n_prompts", "30", "--blocks", "1", "--max_hops", "2"]
        monkeypatch.setattr(sys, "argv", ["chain_experiment.py", "--output_dir", str(tmp_path), *settings, *flags])
        monkeypatch.setattr(chain_experiment, "keep_freed_memory", lambda: None)
        chain_experiment.main()
        return tmp_path

    return run


def test_it_leaves_metrics_a_picture_and_the_model(run):
    folder = run()
    metrics = json.loads((folder / "metrics.json").read_text())
    assert len(metrics["looped"]["accuracy"]) == 2 * 4  # twice the longest chain asked for, itself twice the trained
    assert sum(metrics["queries_by_hops"]) == 30 * chain_experiment.N_NODES
    assert [row["n_hops"] for row in metrics["log"]["looped"]] == [1] * 4  # nothing mastered so soon
    assert (folder / "chains.png").stat().st_size > 10_000
    model = LoopedGPT2LMHeadModel.from_pretrained(folder)
    prompts = chain_experiment.sample_chains(30, chain_experiment.N_NODES, 4, torch.Generator().manual_seed(1))
    assert chain_experiment.accuracy_by_hops(model, prompts, 3) == pytest.approx(metrics["looped"]["accuracy"]["3"])


def test_few_queries_leave_no_empty_curve(run):
    """One prompt hardly has queries of every distance: those that it has are drawn, the mean is over them."""
    folder = run("--n_prompts", "1", "--max_hops", "3")
    metrics = json.loads((folder / "metrics.json").read_text(), parse_constant=pytest.fail)  # no NaN
    assert metrics["settings"]["n_prompts"] == 1
    assert (folder / "chains.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--max_hops", "12"), "`max_hops` must be in 1 ... 11, got 12"),
        (("--max_steps", "50"), "`max_steps` must be >= 200, for the warm-up and the decay, got 50"),
        (("--batch_size", "0"), "`batch_size` must be >= 1"),
        (("--seed", "9" * 20), "`seed` must be < 2**63"),
    ],
)
def test_bad_flags_are_refused(run, flags, message, capsys):
    with pytest.raises(SystemExit):
        run(*flags)
    assert message in capsys.readouterr().err
