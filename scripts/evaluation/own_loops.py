"""Measure a model whose prompts need different numbers of loops: after every loop, and where each rule ends them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from scripts.benchmarks.stop_rules import loops_used, rules_of
from scripts.evaluation.loop_scores import LoopScores
from scripts.evaluation.metrics_record import NEEDED_LOOPS, Curve, StoppedErrors
from scripts.evaluation.predictions import Answers
from tasks import Task
from tasks.common import Prompts
from tasks.metrics import curve_of
from tasks.prediction_cache import chunks
from tasks.streams import RowLoops


# of the rules that a model offers, the thresholds that are measured; a count that goes on changes states a little
THRESHOLDS = {"exit_confidence": (0.9,), "exit_tolerance": (0.05, 1e-5), "exit_probability": (0.5,)}
TWICE = "twice the needed loops"


def own_loops_of(task: Task, parts: Sequence[Prompts], recipe: dict[str, Any]) -> np.ndarray | None:
    """The loops `(N,)` that prompts need at the rate of a recipe; `None` where the task does not know."""
    steps = [task.needed_loops(prompts) for prompts in parts]
    if any(each is None for each in steps):
        return None
    return RowLoops(float(recipe.get("loop_rate") or 1)).needed(torch.cat(steps)).numpy()


def measure_own_loops(answers: Answers, by_loop: LoopScores, needed: np.ndarray) -> dict[str, Any]:
    """
    Return the parts of the record about prompts that need loops of their own.

    Args:
        answers ([`Answers`]):
            The model.
        by_loop ([`LoopScores`]):
            Its scores after every loop, of the first N prompts.
        needed (`np.ndarray` of shape `(N or more,)`):
            The loops that each prompt needs.
    """
    n_prompts, max_loops = by_loop.n_prompts, by_loop.n_loops
    loops = {NEEDED_LOOPS: needed[:n_prompts], TWICE: 2 * needed[:n_prompts]}
    for name in rules_of(answers.model):
        for threshold in THRESHOLDS[name]:
            loops[f"{name} {threshold}"] = stopped(answers, by_loop.parts, max_loops, {name: threshold})
    stops = {}
    for rule, used in loops.items():
        used = used.clip(max=max_loops)
        scores = by_loop.after(used)
        at_place = np.where(np.isnan(scores), np.nan, used[:, None])
        stops[rule] = StoppedErrors(Curve(**curve_of(scores)), np.nanmean(at_place, axis=0).tolist())
    errors = [np.nanmean(by_loop.after(n_loops), axis=0).tolist() for n_loops in range(1, max_loops + 1)]
    return {"stops": stops, "error_by_loop_and_place": errors}


def stopped(answers: Answers, parts: Sequence[Prompts], max_loops: int, rule: dict[str, float]) -> np.ndarray:
    """The loops `(N,)` after which a rule ends each prompt."""
    batches = (batch for prompts in parts for batch in chunks(prompts, answers.batch_size))
    return np.concatenate([loops_used(answers.objective, answers.model, batch, max_loops, rule) for batch in batches])
