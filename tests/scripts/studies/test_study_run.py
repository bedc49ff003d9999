import json

import numpy as np
import pytest
import torch

from scripts.studies import study_run
from scripts.studies.study_run import StudyRun
from scripts.studies.variants import SMALL
from scripts.training.run_folder import RunError


SIZES = {"n_embd": 8, "n_head": 2, "n_dims": 2, "n_points": 4, "n_loops": 3, "n_loops_start": None}


def test_flags_win_over_overrides_and_these_over_the_recipe(tmp_path):
    run = StudyRun.from_recipe(
        SMALL, tmp_path / "run", SIZES | {"loop_window": 2}, ["--loop_window", "1", "--n_embd=16"]
    )
    fields = run.arguments.as_dict()
    assert run.folder == tmp_path / "run"
    assert (fields["loop_window"], fields["n_embd"], fields["n_loops"]) == (1, 16, 3)
    assert fields["n_loops_start"] is None  # of the recipe 3: `None` goes back to the default
    assert "output_dir" not in run.recipe
    assert run.recipe["n_embd"] == 16
    assert (run.task.name, run.task.n_points) == ("linear_regression", 4)


def test_mappings_reach_the_run(tmp_path):
    overrides = {"task": "noisy_linear_regression", "task_settings": {"noise_std": 0.25}}
    overrides["schedules"] = {"n_points": {"start": 2, "interval": 3}}
    run = StudyRun.from_recipe(SMALL, tmp_path, SIZES | overrides)
    assert run.task.noise_std == 0.25
    assert [run.arguments.stream.sizes_at(step)["n_points"] for step in (0, 3, 30)] == [2, 3, 4]


def test_answers_do_not_depend_on_the_batches(tmp_path, monkeypatch):
    run = StudyRun.from_recipe(SMALL, tmp_path, SIZES)
    run.arguments.objective.model_class(run.arguments.config).save_pretrained(tmp_path)
    model = run.load_model(torch.device("cpu"))
    prompts = run.task.sample(7, torch.Generator().manual_seed(0))
    whole = run.answers(model, prompts)
    assert whole.shape == (7, 4)
    monkeypatch.setattr(study_run, "BATCH_SIZE", 3)
    np.testing.assert_allclose(run.answers(model, prompts), whole, rtol=1e-4, atol=1e-6)
    by_loop = run.answers(model, prompts, 5, every_loop=True)
    assert by_loop.shape == (7, 5, 4)
    np.testing.assert_allclose(by_loop[:, 2], whole, rtol=1e-4, atol=1e-6)


def test_a_training_that_fails_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(study_run, "PROGRAM", tmp_path / "program.py")
    run = StudyRun.from_recipe(SMALL, tmp_path / "run", SIZES)
    (tmp_path / "program.py").write_text(
        "import json, pathlib, sys; pathlib.Path(sys.argv[2]).write_text(json.dumps(sys.argv))"
    )
    study_run.train(run)
    assert json.loads((tmp_path / "run").read_text())[1:] == list(run.flags)
    (tmp_path / "program.py").write_text("import sys; sys.exit(3)")
    with pytest.raises(RunError, match="ended with status 3"):
        study_run.train(run)
