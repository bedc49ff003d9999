"""Classifiers in context: trained on random tables, tuned on all real ones but one, and tested on that one."""

import argparse

import numpy as np
import torch

from scripts.studies.study_run import StudyRun
from scripts.studies.variants import RECIPES
from tasks.metrics import bootstrap_interval
from tasks.streams import make_generator
from tasks.tables.real_tables import RealTables


LEAST_POINTS = 10  # points of the first prompts of a training


def growing(sizes: argparse.Namespace) -> dict[str, dict[str, int]]:
    """Schedules of the training on random tables: smallest for an eighth of its steps, full after five eighths."""
    first = {"n_points": LEAST_POINTS, "n_columns": 1, "n_loops": min(3, sizes.n_loops)}
    last = {"n_points": sizes.n_points, "n_columns": sizes.n_dims, "n_loops": sizes.n_loops}
    hold, growth = sizes.n_steps // 8, sizes.n_steps // 2
    return {
        name: {"start": start, "interval": max(1, growth // max(1, last[name] - start)), "hold": hold}
        for name, start in first.items()
    }


def shared_fields(sizes: argparse.Namespace) -> dict[str, int]:
    """The fields that all trainings have in common."""
    return {name: getattr(sizes, name) for name in ("n_dims", "n_points", "n_loops", "n_embd", "seed")}


def random_run(sizes: argparse.Namespace) -> StudyRun:
    """The training on random tables, which all others start from."""
    overrides = shared_fields(sizes) | {"schedules": growing(sizes)}
    overrides |= {"max_steps": sizes.n_steps, "warmup_steps": sizes.n_steps // 20, "decay_steps": sizes.n_steps // 2}
    return StudyRun.from_recipe(RECIPES / "tables_random.yaml", sizes.output_dir / "random_tables", overrides)


def tuning_run(sizes: argparse.Namespace, first: StudyRun, tables: RealTables, left_out: str) -> StudyRun:
    """The tuning on all tables but one."""
    overrides = shared_fields(sizes) | {"initial_model": str(first.folder)}
    overrides |= {"max_steps": sizes.n_tuning_steps, "decay_steps": sizes.n_tuning_steps}
    real = {"weight": 1, "source": tables.source, "left_out": left_out}
    overrides["task_settings"] = {"components": {"random_tables": 1, "real_tables": real}}
    return StudyRun.from_recipe(RECIPES / "tables_tuning.yaml", sizes.output_dir / f"without_{left_out}", overrides)


def accuracies(
    runs: dict[str, StudyRun], task: RealTables, n_prompts: int, device: torch.device
) -> dict[str, dict[str, float]]:
    """Accuracy at the last row of the same prompts, of trained models and of classical classifiers, by name."""
    prompts = task.sample(n_prompts, make_generator("tables", 0))
    answers = {name: run.answers(run.load_model(device), prompts)[:, -1:] for name, run in runs.items()}
    xs, ys = prompts["xs"].double(), prompts["ys"].double()
    for name, predictor in task.baselines.items():
        answers[name] = predictor(xs[:, :-1], ys[:, :-1], xs[:, -1]).unsqueeze(1).numpy()
    last = {name: values[:, -1:] for name, values in prompts.items()}
    return {name: accuracy_of(1 - task.score(answer, last)[:, 0]) for name, answer in answers.items()}


def accuracy_of(right: np.ndarray) -> dict[str, float]:
    """Return the mean of `right` `(n_prompts,)`, 1 for a right answer and else 0, with its 90% interval."""
    low, high = bootstrap_interval(right)
    return {"accuracy": float(right.mean()), "low": float(low), "high": float(high)}
