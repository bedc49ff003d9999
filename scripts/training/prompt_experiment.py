"""Training on the prompts of a task."""

from collections.abc import Callable
from typing import Any

import numpy as np
from torch.utils.data import IterableDataset
from transformers import PreTrainedModel

from scripts.training.cost import training_flops
from scripts.training.experiment import Experiment
from scripts.training.initial_model import initial_weights
from scripts.training.memory import check_memory
from scripts.training.objectives import Objective
from scripts.training.objectives.hints import HintReader, Hints
from scripts.training.objectives.own_loops import OwnLoops
from scripts.training.prompt_arguments import Arguments
from scripts.training.recorded_cost import recorded_cost
from scripts.training.run_folder import RunError, RunFolder
from tasks import Task
from tasks.streams import make_generator


class PromptExperiment(Experiment):
    """A task learned from an endless stream of its prompts and judged by its score on held-out ones of full size."""

    arguments: Arguments

    def __init__(self, arguments: Arguments, folder: RunFolder):
        super().__init__(arguments, folder)
        self.stream = arguments.stream
        self.task = self.stream.task

    @staticmethod
    def prepare(arguments: Arguments, folder: RunFolder) -> Callable[[], None]:
        """Check that prompts can be drawn and that there is a model to start from; no more is written."""
        task, run, initial_model = arguments.stream.task, arguments.run, arguments.model.initial_model
        n_prompts = max(arguments.optimization.batch_size, run.n_eval_prompts if run.eval_every else 0)
        # a number of four bytes for every dimension of an x, or half a token
        n_numbers = (task.n_tokens(**task.sizes) + 1) // 2 * task.model_fields.get("n_dims", 1)
        sizes = "".join(f" and `{name}`" for name in task.sizes)
        check_memory(f"drawing this `batch_size` or `n_eval_prompts` of this{sizes[4:]}", 4 * n_prompts * n_numbers)
        try:
            task.sample(n_prompts, make_generator("trial", 0))
        except (RuntimeError, MemoryError) as error:  # of torch, for a setting of the task that is too large
            cause = " ".join(str(error).split())[:200]
            what = f"{n_prompts} prompts of {task.name} with these settings"
            raise RunError(f"{what} cannot be drawn: {cause}") from None
        if initial_model is not None and not folder.has_steps:
            initial_weights(initial_model, arguments.config, arguments.objective.model_class)
        return lambda: None

    def batches(self, start: int, rank: int, world_size: int) -> IterableDataset:
        """Those of the stream."""
        return self.stream.iterable(start, rank, world_size)

    def build_model(self) -> PreTrainedModel:
        """The head of the objective, freshly initialised, or of `initial_model` unless a checkpoint follows."""
        config, model_class = self.arguments.config, self.arguments.objective.model_class
        model, initial_model = model_class(config), self.arguments.model.initial_model
        if initial_model is not None and self.folder.latest() is None:
            model.load_state_dict(initial_weights(initial_model, config, model_class))
        return model

    def build_objective(self) -> Objective:
        """That of the task, with the gate of the model and the hints of the task where they are asked for."""
        objective = self.gated(self.arguments.objective)
        if self.stream.row_loops is not None:
            return OwnLoops(objective, self.arguments.loops.doubt_weight)
        if not self.stream.with_hints:
            return objective
        reader = HintReader(self.arguments.config.n_embd, self.task.n_hints)
        return Hints(objective, self.arguments.optimization.hint_weight, reader)

    def report(self, index: int, means: dict[str, float], seconds: float) -> dict[str, float]:
        """The sizes of the prompts, and the error at the last point in units of the task."""
        logged = {**self.stream.sizes_at(index), "seconds_per_step": seconds}
        if "error_at_last_point" in means:
            logged["error_at_last_point"] = means["error_at_last_point"] / self.task.normaliser
        return logged

    def evaluate(self, model: PreTrainedModel, objective: Objective) -> dict[str, float]:
        """
        The mean score over all places of held-out prompts, and at the last place; of a mixture also the mean of each
        component.
        """
        errors = self._held_out_errors(self.task, model, objective)
        metrics = {"eval_error": sum(errors) / len(errors), "eval_error_at_last_point": errors[-1]}
        for name, component in self.task.components.items():
            errors = self._held_out_errors(component, model, objective)
            metrics[f"eval_error_{name}"] = sum(errors) / len(errors)
        return metrics

    def _held_out_errors(self, task: Task, model: PreTrainedModel, objective: Objective) -> list[float]:
        """The mean score at every place that any prompt has."""
        run, optimization = self.arguments.run, self.arguments.optimization
        prompts = task.sample(run.n_eval_prompts, make_generator("validation", optimization.seed))
        scores = []
        for start in range(0, run.n_eval_prompts, optimization.batch_size):
            batch = {name: values[start : start + optimization.batch_size] for name, values in prompts.items()}
            scores.append(task.score(objective.answers(model, batch).cpu().numpy(), batch))
        scores = np.concatenate(scores)
        there = ~np.isnan(scores)
        return np.nanmean(scores[:, there.any(axis=0)], axis=0).tolist()

    def cost(self) -> dict[str, Any]:
        """The operations of the run, and those of the model that it starts from."""
        initial_model = self.arguments.model.initial_model
        initial = recorded_cost(initial_model) if initial_model is not None else None
        return {"flops": training_flops(self.arguments)} | ({"initial_model": initial} if initial else {})
