"""The whole way of a model of many classes with quantiles: trained, measured, drawn, compared, described and used."""

import sys

import numpy as np
import pytest
import torch
import yaml

from modeling_looped_gpt2 import LoopedGPT2ForInContextRegression
from modeling_looped_gpt2.estimator_looped_gpt2 import InContextRegressor
from modeling_looped_gpt2.pipeline_looped_gpt2 import InContextRegressionPipeline
from scripts import compare_specialists, evaluate, model_card, plot
from scripts.release.card import render_card
from scripts.release.headline import specialist_tables
from scripts.specialists import friedman
from scripts.specialists.contests import Contest


REPO = "ana/many-classes"
NAME = "linear_regression"
RECIPE = {
    "task": "mixture",
    "task_settings": {
        "components": {
            NAME: 2,
            "unscaled_linear_regression": {"weight": 1, "min_noise_std": 0.01},
            "fourier_regression": {"weight": 1, "n_dims": 1, "n_frequencies": 2},
        }
    },
    **{"n_dims": 4, "n_points": 8, "n_quantiles": 20, "n_embd": 16, "n_head": 2, "n_loops": 2},
    **{"max_steps": 2, "warmup_steps": 1, "decay_steps": 1, "batch_size": 8, "mixed_precision": "no"},
}


@pytest.fixture
def run(monkeypatch):
    def run(program, *flags):
        monkeypatch.setattr(sys, "argv", [program.__name__, *map(str, flags)])
        program.main()

    return run


def test_it_is_trained_measured_drawn_compared_described_and_used(run, train_here, tmp_path, monkeypatch, capsys):
    folder, cache, recipe = tmp_path / "run", ("--cache_dir", tmp_path / "cache"), tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(RECIPE))
    assert train_here(folder, recipe=recipe) == 0
    few = ("--n_prompts", 6, "--max_loops", 2, "--n_shift_prompts", 2)
    run(evaluate, "--model", folder, "--task", "mixture", "--output_dir", folder, *few, *cache)
    run(plot, "--metrics", folder / "metrics.json", "--output_dir", folder)
    assert (folder / "components.png").exists()
    alone = render_card(folder, REPO)
    assert "## Beside models of one kind each" not in alone

    monkeypatch.setattr(compare_specialists, "CONTESTS", [Contest("linear", NAME, [3], "mixture", target=0.5)])
    monkeypatch.setattr(friedman, "N_QUERIES", 5)
    few = ("--n_prompts", 6, "--n_draws", 2)
    capsys.readouterr()
    run(compare_specialists, "--model", folder, "--specialists", folder, "--output_dir", folder, *few, *cache)
    table, coverage = specialist_tables(tmp_path)
    shown = [line.split(" | ")[0].removeprefix("| ") for line in coverage.splitlines()[2:]]
    assert shown == ["fourier regression", "linear regression", "unscaled linear regression"]
    assert table in capsys.readouterr().out

    run(model_card, "--model", folder, "--repo_id", REPO, "--output_dir", tmp_path / "release")
    card = (tmp_path / "release" / "README.md").read_text()
    assert "any of 3 kinds, which do not say of which they are (Fourier series, linear functions and linear" in card
    assert "| linear regression, in the 90% interval | " in card
    assert table in card
    with pytest.raises(SystemExit, match="`specialists` must be of different tasks, got mixture, mixture"):
        run(
            compare_specialists,
            "--model",
            folder,
            "--specialists",
            folder,
            folder,
            "--output_dir",
            folder,
            *few,
            *cache,
        )
    use_the_estimator(tmp_path / "release")
    use_the_pipeline(tmp_path / "release")


def use_the_estimator(folder):
    """X of fewer columns than the model reads, of more, and of more examples than a prompt takes."""
    generator = np.random.default_rng(0)
    for n_columns, n_examples, dealt in ((2, 7, (1, 7)), (9, 7, (1, 7)), (4, 30, (5, 6))):
        xs = generator.normal(size=(n_examples + 3, n_columns))
        ys = 100 + 10 * xs[:, 0]
        estimator = InContextRegressor(str(folder), random_state=0).fit(xs[:-3], ys[:-3])
        assert (estimator.n_contexts_, estimator.n_examples_) == dealt
        values, deviations = estimator.predict(xs[-3:], return_std=True)
        np.testing.assert_allclose(values, estimator.predict(xs[-3:]), rtol=1e-4)
        assert (deviations > 0).all()
        low, high = estimator.predict_quantiles(xs[-3:], (0.05, 0.95)).T
        assert (low < values).all()
        assert (values < high).all()


def use_the_pipeline(folder):
    model = LoopedGPT2ForInContextRegression.from_pretrained(folder).eval()
    pipeline = InContextRegressionPipeline(model)
    examples = [[[0.5, -1.0], 2.0]] * 7
    (prediction,) = pipeline({"examples": examples, "queries": [[1.0, 1.0]]})["predictions"]
    xs = torch.tensor([[0.5, -1.0, 0.0, 0.0]] * 7 + [[1.0, 1.0, 0.0, 0.0]])
    with torch.no_grad():
        expected = model(xs[None], torch.full((1, 7), 2.0)).predictions[0, -1]
    assert prediction == pytest.approx(expected.item(), rel=1e-4, abs=1e-6)
    with pytest.raises(ValueError, match="`examples` must be at most 7 for this model, got 8"):
        pipeline({"examples": [*examples, *examples[:1]], "queries": [[1.0, 1.0]]})


def test_a_comparison_with_bad_flags_is_refused_before_any_work(run, tmp_path, capsys):
    common = ("--model", tmp_path / "nowhere", "--output_dir", tmp_path / "out")
    with pytest.raises(SystemExit, match="there is no folder"):
        run(compare_specialists, *common)
    for flag in ("n_prompts", "n_draws", "batch_size"):
        with pytest.raises(SystemExit):
            run(compare_specialists, *common, f"--{flag}", 0)
        assert f"`{flag}` must be >= " in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
