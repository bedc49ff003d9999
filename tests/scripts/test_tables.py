import argparse
import json
import sys

import numpy as np
import pytest
import torch

from modeling_looped_gpt2 import LoopedGPT2ForInContextClassification
from scripts import tables


def test_a_prompt_shows_two_classes_of_standardised_columns():
    table = tables.bundled_tables()["wine"]
    rng = np.random.default_rng(0)
    prompts = [tables.draw_prompt(table, 30, 20, rng) for _ in range(100)]
    xs, ys = tables.stack(prompts)
    assert set(ys.unique().tolist()) == {0, 1}
    assert ys.float().mean().item() == pytest.approx(0.5, abs=0.05)
    assert not xs[..., 13:].any()  # wine has 13 columns
    assert xs[..., :13].std().item() == pytest.approx(1, abs=0.25)
    few = tables.draw_prompt(table, 30, 5, rng)[0]
    assert few.shape == (30, 5)


def test_random_tables_have_classes_that_can_mostly_be_told_apart():
    rng = np.random.default_rng(0)
    drawn = [tables.random_table(5, rng) for _ in range(50)]
    assert {len(np.unique(classes)) for _, classes in drawn} == {2, 3, 4, 5}
    assert all(rows.shape == (len(classes), 5) and set(np.bincount(classes)) == {50} for rows, classes in drawn)
    prompts = [tables.draw_prompt(table, 41, 5, rng) for table in drawn]
    scores = [tables.LogisticRegression().fit(x[:20], y[:20]).score(x[20:], y[20:]) for x, y in prompts]
    assert min(scores) < 0.75 < np.mean(scores) < 0.95 < max(scores)
    assert np.mean([abs(np.corrcoef(rows.T)[0, 1]) for rows, _ in drawn]) > 0.2


def test_the_first_training_grows_and_ends_at_full_size():
    arguments = argparse.Namespace(n_dims=20, n_points=41, n_loops=6, n_steps=400)
    sizes = tables.growing(arguments)
    assert [sizes[name].at(0) for name in ("n_dims", "n_points", "n_loops")] == [1, 10, 3]
    assert [sizes[name].at(300) for name in ("n_dims", "n_points", "n_loops")] == [20, 41, 6]
    few = tables.growing(argparse.Namespace(n_dims=1, n_points=10, n_loops=1, n_steps=1))
    assert [few[name].at(0) for name in ("n_dims", "n_points", "n_loops")] == [1, 10, 1]


def test_training_learns_to_classify():
    flags = {"n_points": 10, "n_dims": 1, "n_loops": 2, "n_embd": 32, "seed": 0}
    arguments = argparse.Namespace(**flags)
    model = tables.build_model(arguments, torch.device("cpu"))
    fixed = {name: tables.Schedule(flags[name], flags[name]) for name in ("n_dims", "n_points", "n_loops")}
    optimization = tables.OptimizationArguments(max_steps=100, learning_rate=3e-3, muon_learning_rate=0.04)
    apart = (np.repeat([[-1.0], [1.0]], 20, axis=0), np.repeat([0, 1], 20))
    tables.train(model, [apart], fixed, optimization)
    prompts = [tables.draw_prompt(apart, 10, 1, np.random.default_rng(i)) for i in range(100)]
    # 1.00 with five seeds, in either precision
    assert tables.right_answers({"model": model.eval()}, *tables.stack(prompts))["model"].mean() > 0.8


def test_right_answers_are_counted_for_the_same_prompts():
    xs, ys = torch.randn(3, 12, 2) + 20 * torch.tensor([0, 1] * 6)[None, :, None], torch.tensor([[0, 1] * 6] * 3)

    class Guess(torch.nn.Module):
        device = torch.device("cpu")

        def forward(self, xs, ys):
            logits = torch.zeros(*ys.shape, 2)
            logits[:2, :, 1] = 1  # the first two prompts: class 1, which is right
            logits[2:, :, 0] = 1
            return type("Output", (), {"logits": logits})

    right = tables.right_answers({"model": Guess()}, xs, ys)
    assert right["model"].tolist() == [1, 1, 0]
    assert right["logistic regression"].tolist() == right["3-nearest neighbours"].tolist() == [1, 1, 1]


def test_every_table_is_left_out_once(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tables, "bundled_tables", lambda: dict(list(all_tables.items())[:2]))
    all_tables = {name: (np.random.randn(40, 3), np.arange(40) % 2) for name in "ab"}
    sizes = "--n_steps 2 --n_tuning_steps 2 --n_points 10 --n_dims 4 --n_loops 2 --n_embd 8 --n_prompts 10"
    monkeypatch.setattr(sys, "argv", ["tables.py", "--output_dir", str(tmp_path), *sizes.split()])
    tables.main()
    record = json.loads((tmp_path / "tables.json").read_text())
    assert list(record["tables"]) == ["a", "b"]
    for entry in record["tables"].values():
        assert list(entry) == ["random tables", "and the others", "logistic regression", "3-nearest neighbours"]
        assert all(0 <= value["low"] <= value["accuracy"] <= value["high"] <= 1 for value in entry.values())
    assert "logistic regression" in capsys.readouterr().out
    model = LoopedGPT2ForInContextClassification.from_pretrained(tmp_path)
    assert model.config.n_dims == 4
    tables.main()  # the same call again
    assert json.loads((tmp_path / "tables.json").read_text())["settings"] == record["settings"]
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--n_steps", "3"])
    with pytest.raises(SystemExit, match="results of other settings \\(n_steps 2 -> 3\\)"):
        tables.main()
    monkeypatch.setattr(sys, "argv", ["tables.py", "--output_dir", str(tmp_path), "--n_points", "5"])
    with pytest.raises(SystemExit):
        tables.main()
    assert "`n_points` must be >= 10, got 5" in capsys.readouterr().err
