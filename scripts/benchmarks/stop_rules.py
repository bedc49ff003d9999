"""What the stop rules of a trained model are worth beside a random exit of the same loops."""

import inspect
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from scripts.benchmarks.timing import Rows
from scripts.training.objectives import Objective
from tasks import Task
from tasks.common import Prompts
from tasks.metrics import bootstrap_interval


THRESHOLDS = {
    "exit_tolerance": (0.3, 0.2, 0.1, 0.05, 0.02, 0.01),
    "exit_confidence": (0.5, 0.7, 0.9, 0.95, 0.99),
    "exit_probability": (0.3, 0.5, 0.7, 0.9, 0.95),
}


def rules_of(model: PreTrainedModel) -> dict[str, tuple[float, ...]]:
    """The thresholds of every rule that a model can end its loops by, by the argument of `forward`."""
    known = inspect.signature(model.forward).parameters
    has = {name: name in known for name in THRESHOLDS} | {"exit_probability": model.config.exit_gate}
    has["exit_confidence"] &= not model.config.n_coda
    return {name: thresholds for name, thresholds in THRESHOLDS.items() if has[name]}


def benchmark_stop_rules(
    model: PreTrainedModel, objective: Objective, task: Task, prompts: Prompts, max_loops: int, batch_size: int
) -> Rows:
    """
    Measure every rule at every threshold by the last answer of each prompt, as [`beside_random_exit`] does.

    Args:
        model ([`~transformers.PreTrainedModel`]):
            In evaluation mode.
        objective ([`Objective`]), task ([`~tasks.Task`]), prompts (`dict`):
            How its answers are read, what they are answers to, and B prompts.
        max_loops (`int`):
            Most loops of a prompt.
        batch_size (`int`):
            Prompts that run at once.

    Returns:
        Rows by the rule and its threshold.
    """
    calls = {f"{name} {value}": {name: value} for name, values in rules_of(model).items() for value in values}
    errors, used = [], {call: [] for call in calls}
    for start in range(0, len(prompts["labels"]), batch_size):
        batch = {name: values[start : start + batch_size] for name, values in prompts.items()}
        errors.append(last_errors(objective, task, model, batch, max_loops))
        for call, argument in calls.items():
            used[call].append(loops_used(objective, model, batch, max_loops, argument))
    errors = np.concatenate(errors)
    return {call: beside_random_exit(errors, np.concatenate(loops)) for call, loops in used.items()}


def last_errors(
    objective: Objective, task: Task, model: PreTrainedModel, prompts: Prompts, max_loops: int
) -> np.ndarray:
    """The error `(B, L)` of each prompt's last answer after every loop: whether it is wrong, or its squared error."""
    answers = objective.answers(model, prompts, max_loops, every_loop=True)[:, :, -1].cpu()  # (B, L), or (B, L, K)
    labels = prompts["labels"][:, None, -1]
    if not answers.is_floating_point():
        return (answers != labels).double().numpy()
    errors = (answers.double() - labels).square()
    return errors.reshape(*errors.shape[:2], -1).sum(dim=-1).numpy() / task.normaliser


@torch.no_grad()
def loops_used(
    objective: Objective, model: PreTrainedModel, prompts: Prompts, max_loops: int, rule: dict[str, float]
) -> np.ndarray:
    """The loops `(B,)` that a rule lets each prompt run."""
    columns = {name: values.to(model.device) for name, values in objective.inputs(prompts).items()}
    if "ys" in columns:  # the last point is asked, by a model of sets too
        columns["ys"] = columns["ys"][:, :-1]
    return model(**columns, n_loops=max_loops, **rule).n_loops_used.cpu().numpy()


def beside_random_exit(errors: np.ndarray, used: np.ndarray) -> dict[str, Any]:
    """
    Compare loops that a rule has chosen with the same loops given to the prompts at random.

    A prompt's answer after its loops does not depend on the others, so errors are looked up, and those of the random
    exit are the mean over all assignments: exact, without a draw.

    Args:
        errors (`np.ndarray` of shape `(B, L)`):
            The error of each prompt after each loop.
        used (`np.ndarray` of shape `(B,)`):
            The loops that each prompt ran, in 1 ... L.

    Returns:
        `mean_loops`, and the mean errors of the rule, `error`, of the random exit, `random_error`, and of all prompts
        after the mean of the loops, `fixed_error`, linear between two numbers of loops. `gain` is by how much the
        random exit is worse than the rule, between `gain_low` and `gain_high` with 90% by bootstrap over prompts;
        the rule `beats_random` where that interval is above 0.
    """
    n_prompts, n_loops = errors.shape
    own = errors[np.arange(n_prompts), used - 1]
    random = errors @ (np.bincount(used - 1, minlength=n_loops) / n_prompts)
    low, high = (float(end) for end in bootstrap_interval(random - own))
    mean_loops = float(used.mean())
    return {
        "mean_loops": mean_loops,
        "error": float(own.mean()),
        "random_error": float(random.mean()),
        "fixed_error": float(np.interp(mean_loops, np.arange(1, n_loops + 1), errors.mean(axis=0))),
        "gain": float((random - own).mean()),
        "gain_low": low,
        "gain_high": high,
        "beats_random": low > 0,
    }
