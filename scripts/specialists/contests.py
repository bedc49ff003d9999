"""The contests of a model of many classes with those of one class each: on what prompts, after how many examples."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from modeling_looped_gpt2 import LoopedGPT2Config
from scripts.evaluation.evaluated_task import task_for
from tasks import FunctionClass
from tasks.baselines.classical import predict_chosen_ridge
from tasks.baselines.prefixes import Predictor
from tasks.common import Prompts
from tasks.shifts import SHIFT_BASELINES


@dataclass(frozen=True)
class Contest:
    """
    One figure on which models are compared.

    Args:
        figure (`str`):
            What it is called.
        task_name (`str`), settings (`dict`, defaults to none):
            The class of functions, an entry of [`tasks.TASKS`], and its settings.
        places (`Sequence[int]`):
            Numbers of examples that the figure is a mean over, ascending.
        specialist (`str`):
            The task that the model was trained on that it is compared with.
        target (`float`, *optional*):
            What a model of many classes should reach.
        shift (`str`, *optional*):
            The entry of the task's `shifts` that changes the prompts.
        is_ratio (`bool`, defaults to `False`):
            Whether errors are divided by that of the limit.
        more_solvers (`Mapping[str, Predictor]`, defaults to none):
            Classical predictors beside those of the task, or of a shift.
    """

    figure: str
    task_name: str
    places: Sequence[int]
    specialist: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    target: float | None = None
    shift: str | None = None
    is_ratio: bool = False
    more_solvers: Mapping[str, Predictor] = field(default_factory=dict)

    @property
    def examples(self) -> str:
        """The numbers of examples in words."""
        first, last = self.places[0], self.places[-1]
        return str(first) if first == last else f"{first} to {last}"

    def task(self, config: LoopedGPT2Config) -> FunctionClass:
        """The task in the sizes of the contest; raises `ValueError` where a model of `config` cannot read them."""
        return task_for(self.task_name, dict(self.settings), config, self.places[-1] + 1)

    def sample(self, task: FunctionClass, n_prompts: int, generator: torch.Generator) -> Prompts:
        """Draw prompts of the task, changed by the shift if there is one; all shifts here ask at the xs themselves."""
        if self.shift is None:
            return task.sample(n_prompts, generator)
        prompts = task.shifts[self.shift].sample(task, n_prompts, generator, task.n_points)
        return {name: prompts[name] for name in ("xs", "ys", "labels")}

    def limit(self, task: FunctionClass) -> Predictor:
        """The best possible predictor."""
        return task.limit.predictor if self.shift is None else task.shifts[self.shift].limit

    def solvers(self, task: FunctionClass) -> dict[str, Predictor]:
        """The classical predictors by name."""
        return {**(task.baselines if self.shift is None else SHIFT_BASELINES), **self.more_solvers}

    def published(self, task: FunctionClass) -> dict[str, float]:
        """The errors of the papers' transformers, those that they give."""
        curves = task.published
        if self.shift is not None:
            changed = task.published_shifts.get(self.shift)
            curves = {"standard transformer": changed} if changed else {}
        found = {}
        for name, curve in curves.items():
            errors = [curve["error"][place] for place in self.places if place < len(curve["error"])]
            if name.endswith("transformer") and len(errors) == len(self.places) and None not in errors:
                found[name] = sum(errors) / len(errors)
        return found


def _noisy(noise_std: float, examples: int) -> Contest:
    name = "noisy_linear_regression"
    figure = f"noise of {noise_std:g}, over the ridge that knows it"
    common = {"settings": {"noise_std": noise_std}, "target": 1.25, "is_ratio": True}
    chosen = {"ridge, penalty chosen": predict_chosen_ridge}
    return Contest(figure, name, [examples], "linear_regression", more_solvers=chosen, **common)


def _shifted(shift: str) -> Contest:
    name = "linear_regression"
    return Contest(f"linear, {shift.replace('_', ' ')}", name, [40], name, shift=shift)


SHIFTS = ("skewed", "noisy", *(f"scale_{of}_{by}" for of in "xy" for by in ("1/3", "1/2", "2", "3")))
LATE = range(80, 101)
CONTESTS = (
    Contest("linear", "linear_regression", [20], "linear_regression", target=0.03),
    Contest("linear", "linear_regression", [40], "linear_regression", target=0.001),
    *(_noisy(noise_std, examples) for noise_std in (0.1, 0.3, 1.0) for examples in (20, 40)),
    Contest("sparse linear", "sparse_linear_regression", [10], "sparse_linear_regression"),
    Contest("sparse linear", "sparse_linear_regression", [20], "sparse_linear_regression", target=0.01),
    Contest("ReLU networks", "relu_2nn_regression", LATE, "relu_2nn_regression", target=0.2),
    Contest("decision trees", "decision_tree", LATE, "decision_tree", target=0.1),
    *map(_shifted, SHIFTS),
)
