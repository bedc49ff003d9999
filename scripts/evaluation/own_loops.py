"""Measure a model whose prompts need different numbers of loops: after every loop, and where each rule ends them."""

from typing import Any

import numpy as np

from scripts.benchmarks.stop_rules import loops_used, rules_of
from scripts.evaluation.metrics_record import NEEDED_LOOPS, Curve, StoppedErrors
from scripts.evaluation.predictions import Answers
from tasks import Task
from tasks.common import Prompts
from tasks.metrics import curve_of
from tasks.streams import RowLoops


# of the rules that a model offers, the threshold that is measured
THRESHOLDS = {"exit_confidence": 0.9, "exit_tolerance": 0.05, "exit_probability": 0.5}
TWICE = "twice the needed loops"


def own_loops_of(task: Task, prompts: Prompts, recipe: dict[str, Any]) -> np.ndarray | None:
    """The loops `(B,)` that prompts need at the rate of a recipe; `None` where the task does not know."""
    steps = task.needed_loops(prompts)
    return None if steps is None else RowLoops(float(recipe.get("loop_rate") or 1)).needed(steps).numpy()


def measure_own_loops(
    answers: Answers, by_loop: np.ndarray, needed: np.ndarray, task: Task, prompts: Prompts
) -> dict[str, Any]:
    """
    Return the parts of the record about prompts that need loops of their own.

    Args:
        answers ([`Answers`]):
            The model.
        by_loop (`np.ndarray` of shape `(B, L, ...)`):
            Its answers after every loop.
        needed (`np.ndarray` of shape `(B,)`):
            The loops that each prompt needs.
        task ([`~tasks.Task`]), prompts (`dict`):
            What it is measured on: the first B are.
    """
    n_prompts, max_loops = by_loop.shape[:2]
    some = {name: values[:n_prompts] for name, values in prompts.items()}
    loops = {NEEDED_LOOPS: needed[:n_prompts], TWICE: 2 * needed[:n_prompts]}
    for name in rules_of(answers.model):
        loops[f"{name} {THRESHOLDS[name]}"] = stopped(answers, some, max_loops, {name: THRESHOLDS[name]})
    stops = {}
    for rule, used in loops.items():
        used = used.clip(max=max_loops)
        scores = task.score(by_loop[np.arange(n_prompts), used - 1], some)
        at_place = np.where(np.isnan(scores), np.nan, used[:, None])
        stops[rule] = StoppedErrors(Curve(**curve_of(scores)), np.nanmean(at_place, axis=0).tolist())
    errors = [np.nanmean(task.score(by_loop[:, number], some), axis=0).tolist() for number in range(max_loops)]
    return {"stops": stops, "error_by_loop_and_place": errors}


def stopped(answers: Answers, prompts: Prompts, max_loops: int, rule: dict[str, float]) -> np.ndarray:
    """The loops `(B,)` after which a rule ends each prompt."""
    used = []
    for start in range(0, len(prompts["labels"]), answers.batch_size):
        batch = {name: values[start : start + answers.batch_size] for name, values in prompts.items()}
        used.append(loops_used(answers.objective, answers.model, batch, max_loops, rule))
    return np.concatenate(used)
