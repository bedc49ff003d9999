import argparse

import numpy as np
import pytest
import torch

from modeling_looped_gpt2 import LoopedGPT2ForInContextClassification
from scripts.common.model_loading import load_model, weights_digest
from scripts.studies import leave_one_out
from scripts.studies.leave_one_out import accuracies, accuracy_of, growing, random_run, tuning_run
from tasks.tables.real_tables import RealTables


SIZES = {"n_steps": 500, "n_tuning_steps": 30, "n_points": 41, "n_dims": 20, "n_loops": 6, "n_embd": 128, "seed": 1}
NAMES = ("tables_random", "tables_tuning")  # recipes, in the order of their trainings


def sizes_of(tmp_path, **changes):
    return argparse.Namespace(output_dir=tmp_path, **SIZES | changes)


def sizes_at(run, step):
    return {**run.arguments.stream.sizes_at(step), "n_loops": run.arguments.n_loops_schedule.at(step)}


def test_the_first_training_grows_and_ends_at_full_size(tmp_path):
    run = random_run(sizes_of(tmp_path))
    assert run.folder == tmp_path / "random_tables"
    assert sizes_at(run, 0) == sizes_at(run, 62) == {"n_points": 10, "n_columns": 1, "n_loops": 3}
    assert sizes_at(run, 350) == {"n_points": 41, "n_columns": 20, "n_loops": 6}
    few = random_run(sizes_of(tmp_path, n_points=10, n_dims=1, n_loops=1, n_steps=1))
    assert sizes_at(few, 0) == {"n_points": 10, "n_columns": 1, "n_loops": 1}


def test_the_recipe_is_what_the_command_trains_by_itself(tmp_path):
    run = random_run(sizes_of(tmp_path))
    recipe = leave_one_out.StudyRun.from_recipe(leave_one_out.RECIPES / "tables_random.yaml", tmp_path, {"seed": 1})
    assert run.recipe == recipe.recipe


def test_a_tuning_starts_from_the_first_training_and_never_sees_the_table_left_out(tmp_path):
    sizes = sizes_of(tmp_path)
    run = tuning_run(sizes, random_run(sizes), RealTables(), "wine")
    assert run.folder == tmp_path / "without_wine"
    assert run.arguments.model.initial_model == str(tmp_path / "random_tables")
    real = run.task.components["real_tables"]
    assert list(real.tables) == ["iris", "breast_cancer", "digits", "diabetes"]
    assert run.task.weights == {"random_tables": 1, "real_tables": 1}
    assert sizes_at(run, 0) == {"n_points": 41, "n_columns": 20, "n_loops": 6}
    config = run.arguments.config
    assert (config.num_labels, config.n_dims, config.n_positions) == (2, 20, 82)


def test_the_recipes_train_one_after_the_other(tmp_path, train_here):
    sizes = ("--max_steps=2", "--warmup_steps=0", "--decay_steps=0", "--batch_size=4", "--n_eval_prompts=4")
    for name, flags in zip(NAMES, ((), (f"--initial_model={tmp_path / NAMES[0]}",)), strict=True):
        recipe = f"--recipe={leave_one_out.RECIPES / name}.yaml"
        assert train_here(tmp_path / name, recipe, *sizes, *flags) == 0
    random, tuned = (load_model(tmp_path / name, LoopedGPT2ForInContextClassification) for name in NAMES)
    assert weights_digest(random) != weights_digest(tuned)


def test_accuracies_are_of_the_last_row_and_of_the_same_prompts(tmp_path):
    asked = []

    class Run:
        """Answers class 1 at the last row, whatever it is asked."""

        def load_model(self, device):
            return None

        def answers(self, model, prompts):
            asked.append(prompts)
            return np.pad(np.ones((len(prompts["xs"]), 1), int), ((0, 0), (prompts["xs"].shape[1] - 1, 0)))

    task = RealTables(only="iris", n_points=12)
    rows = accuracies({"first": Run(), "second": Run()}, task, 40, torch.device("cpu"))
    assert list(rows) == ["first", "second", "logistic regression", "3-nearest neighbours"]
    first, second = asked
    assert torch.equal(first["xs"], second["xs"])
    assert rows["first"]["accuracy"] == pytest.approx(first["labels"][:, -1].float().mean().item())
    assert rows["logistic regression"]["accuracy"] > 0.8
    assert all(0 <= row["low"] <= row["accuracy"] <= row["high"] <= 1 for row in rows.values())
    assert accuracy_of(np.ones(5)) == {"accuracy": 1, "low": 1, "high": 1}
    assert growing(argparse.Namespace(**SIZES))["n_loops"] == {"start": 3, "interval": 83, "hold": 62}
