"""The answers of a model and of classical predictors; all of them are kept on disk."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
import transformers
from tqdm import tqdm
from transformers import PreTrainedModel

from scripts.common.model_loading import weights_digest
from scripts.training.objectives import Objective
from scripts.training.objectives.in_context import widen
from tasks import Task
from tasks.baselines.prefixes import name_predictions, predict_last
from tasks.common import Prompts
from tasks.prediction_cache import PredictionCache, code_digest, n_chunks


@dataclass(frozen=True)
class Answers:
    """
    The answers of a model to prompts; only those that are not in the cache are computed.

    Args:
        model ([`~transformers.PreTrainedModel`]):
            The model.
        objective ([`~scripts.training.objectives.Objective`]):
            How answers are read from the model.
        cache ([`~tasks.prediction_cache.PredictionCache`]):
            Where they are kept, under a fingerprint of the prompts and of the model.
        batch_size (`int`):
            Prompts per batch.
        turns (`torch.Tensor` of shape `(n_turns, D, D)`, *optional*):
            Turns of xs, of [`~tasks.turns.draw_turns`]: every answer is a mean over those to the turned prompts.
    """

    model: PreTrainedModel
    objective: Objective
    cache: PredictionCache
    batch_size: int
    turns: torch.Tensor | None = None

    @cached_property
    def weights_sha256(self) -> str:
        """Digest of the model's weights."""
        return weights_digest(self.model)

    @cached_property
    def description(self) -> list[Any]:
        """Everything that the answers depend on besides prompts and loops, in a form that `json` can write."""
        settings = self.model.config.to_dict() | {"attention": self.model.config._attn_implementation}
        code = [code_digest(type(self.model)), transformers.__version__]
        return [self.weights_sha256, settings, code, str(self.model.device)]

    def to_parts(self, parts: Sequence[Prompts], n_loops: int, every_loop: bool = False) -> list[np.ndarray]:
        """
        Answers to each part of some prompts, as [`Task.score`] takes them, `(n_prompts, ...)`; after every loop
        `(n_prompts, n_loops, ...)`.
        """
        if getattr(self.model.config, "n_quantiles", 0) and not every_loop:
            # what it is certain of is asked too: the cache answers then
            return [quantiles.mean(axis=-1) for quantiles in self.fields("quantiles", parts, n_loops)]

        def answer(batch: Prompts) -> torch.Tensor:
            return self.objective.answers(self.model, batch, n_loops, every_loop)

        return self._recall(answer, f"every loop: {every_loop}", parts, n_loops)

    def fields(self, name: str, parts: Sequence[Prompts], n_loops: int) -> list[np.ndarray]:
        """The field `name` of what `forward` returns for each part of in-context prompts, `(B, P, ...)`, float32."""

        def answer(batch: Prompts) -> torch.Tensor:
            return self.objective.told(self.model, batch, n_loops, name)

        return self._recall(answer, name, parts, n_loops)

    def at_queries(self, prompts: Prompts, n_loops: int) -> np.ndarray:
        """Predictions `(n_prompts, n_points)`: number i is at query i of `prompts`, after the points before i."""

        @torch.inference_mode()
        def answer(batch: Prompts) -> torch.Tensor:
            xs, ys, queries = (batch[name].to(self.model.device) for name in ("xs", "ys", "queries"))
            return self.model.predict_at_queries(widen(xs, self.model), ys, widen(queries, self.model), n_loops)

        return self._recall(answer, "at queries", [prompts], n_loops)[0]

    def rolled_out(self, task: Task, parts: Sequence[Prompts], n_loops: int) -> list[np.ndarray]:
        """Answers as [`Task.roll_out`] asks for them to each part of some prompts, of a task that `has_steps`."""

        @torch.inference_mode()
        def last(xs: torch.Tensor, ys: torch.Tensor) -> torch.Tensor:
            xs, ys = (values.to(self.model.device) for values in (widen(xs, self.model), ys))
            return self.model(xs, ys, n_loops=n_loops).predictions[:, -1].float().cpu()

        def answer(batch: Prompts) -> torch.Tensor:
            return task.roll_out(last, batch["xs"], batch["ys"])

        return self._recall(answer, f"rolled out: {task}", parts, n_loops)

    def _recall(
        self, answer: Callable[[Prompts], torch.Tensor], kind: str, parts: Sequence[Prompts], n_loops: int
    ) -> list[np.ndarray]:
        about = [kind, *self.description, n_loops]
        if self.turns is not None:
            about.append(["turns", self.turns.tolist()])
        columns = (*self.objective.answer_columns, *self.objective.optional_columns, "queries")
        total = sum(n_chunks(len(prompts["labels"]), self.batch_size) for prompts in parts)
        with tqdm(total=total, desc=f"model, {n_loops} loops") as bar:
            return [
                self.cache.recall(
                    lambda batch: self._over_turns(answer, batch).cpu().numpy(),
                    about,
                    {name: prompts[name] for name in columns if name in prompts},
                    bar.update,
                    self.batch_size,
                )
                for prompts in parts
            ]

    def _over_turns(self, answer: Callable[[Prompts], torch.Tensor], batch: Prompts) -> torch.Tensor:
        """The mean of the answers to a batch over its turns."""
        if self.turns is None:
            return answer(batch)
        total = 0
        for turn in self.turns:
            total = total + answer(batch | {name: batch[name] @ turn for name in ("xs", "queries") if name in batch})
        return total / len(self.turns)


def score_classically(
    parts: Sequence[Prompts], task: Task, cache: PredictionCache
) -> tuple[dict[str, np.ndarray], np.ndarray | None]:
    """Return the scores of the task's baselines, by name, and those of its limit, `None` where it has none."""
    scores = {}
    for prompts in parts:
        for name, predictions in predict_classically(prompts, task, cache).items():
            scores.setdefault(name, []).append(task.score(predictions, prompts))
    scores = {name: np.concatenate(of_parts) for name, of_parts in scores.items()}
    return scores, scores.pop("limit", None)


def score_rolled_out(answers: Answers, task: Task, parts: Sequence[Prompts], n_loops: int) -> dict[str, np.ndarray]:
    """Return the scores of the model and of the task's solver, each by steps of its own; none without `has_steps`."""
    if not task.has_steps:
        return {}
    name, solver = task.solver

    def solve(batch: Prompts) -> np.ndarray:
        return task.roll_out(partial(predict_last, solver), batch["xs"], batch["ys"]).numpy()

    by_name = {
        "model": answers.rolled_out(task, parts, n_loops),
        name: [answers.cache.recall(solve, f"rolled out: {task}", prompts) for prompts in parts],
    }
    return {
        f"{name}, rolled out": np.concatenate([task.score(*each) for each in zip(values, parts, strict=True)])
        for name, values in by_name.items()
    }


def predict_classically(prompts: Prompts, task: Task, cache: PredictionCache) -> dict[str, np.ndarray]:
    """Return the answers of the task's baselines, by name, and as `"limit"` those of its limit, if it has one."""
    limit = task.limit
    predictors = {**task.baselines} | ({"limit": limit.predictor} if limit else {})
    predictions = {}
    with tqdm(
        total=len(predictors) * n_chunks(len(prompts["labels"])), desc="baselines", disable=not predictors
    ) as bar:
        for name, predictor in predictors.items():
            bar.set_postfix_str(name)
            predictions |= name_predictions(name, predictor, cache.predict(predictor, prompts, bar.update))
    return predictions
