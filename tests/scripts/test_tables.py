import json
import sys

import numpy as np
import pytest
import torch

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


def test_a_rule_is_linear():
    xs, ys = tables.draw_rule(15, 20, np.random.default_rng(0))
    assert tables.LogisticRegression(C=1e6, max_iter=10_000).fit(xs, ys).score(xs, ys) == 1


def test_right_answers_are_counted_for_the_same_prompts():
    xs, ys = torch.randn(3, 12, 2) + 20 * torch.tensor([0, 1] * 6)[None, :, None], torch.tensor([[0, 1] * 6] * 3)

    class Guess(torch.nn.Module):
        device = torch.device("cpu")

        def forward(self, xs, ys):
            logits = torch.zeros(*ys.shape, 2)
            logits[:2, :, 1] = 1  # the first two prompts: class 1, which is right
            logits[2:, :, 0] = 1
            return type("Output", (), {"logits": logits})

    right = tables.right_answers(Guess(), xs, ys)
    assert right["model"].tolist() == [1, 1, 0]
    assert right["logistic regression"].tolist() == right["3-nearest neighbours"].tolist() == [1, 1, 1]


def test_every_table_is_left_out_once(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tables, "bundled_tables", lambda: dict(list(all_tables.items())[:2]))
    all_tables = {name: (np.random.randn(40, 3), np.arange(40) % 2) for name in "ab"}
    flags = {"n_steps": 2, "n_points": 10, "n_dims": 4, "n_loops": 2, "n_embd": 8, "n_prompts": 10}
    words = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
    monkeypatch.setattr(sys, "argv", ["tables.py", "--output_dir", str(tmp_path), *words])
    tables.main()
    record = json.loads((tmp_path / "tables.json").read_text())
    assert list(record["tables"]) == ["a", "b"]
    for entry in record["tables"].values():
        assert list(entry) == ["model", "logistic regression", "3-nearest neighbours"]
        assert all(0 <= value["low"] <= value["accuracy"] <= value["high"] <= 1 for value in entry.values())
    assert "logistic regression" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["tables.py", "--output_dir", str(tmp_path), "--n_points", "5"])
    with pytest.raises(SystemExit):
        tables.main()
    assert "`n_points` must be >= 10, got 5" in capsys.readouterr().err
