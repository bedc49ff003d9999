"""Measure the contests: a model of many classes, those of one class each, classical solvers and the limit."""

from collections.abc import Mapping, Sequence

import numpy as np
from tqdm import tqdm

from scripts.evaluation.metrics_record import Interval
from scripts.evaluation.predictions import Answers
from scripts.specialists.contests import Contest
from scripts.specialists.record import Row
from tasks import FunctionClass
from tasks.baselines.prefixes import Predictor, name_predictions
from tasks.common import Prompts
from tasks.metrics import bootstrap_interval
from tasks.prediction_cache import chunks
from tasks.streams import make_generator


def measure_contests(
    answers: Answers,
    specialists: Mapping[str, Answers],
    contests: Sequence[Contest],
    n_prompts: int,
    seed: int,
) -> list[Row]:
    """
    Measure a model beside others on the same fresh prompts.

    Args:
        answers ([`~scripts.evaluation.predictions.Answers`]):
            Those of the model of many classes.
        specialists (`Mapping[str, Answers]`):
            Those of the others, by the task that each was trained on.
        contests (`Sequence` of [`Contest`]):
            What is compared.
        n_prompts (`int`), seed (`int`):
            Prompts of each contest, and their seed.

    Raises:
        `ValueError`: a model cannot read the prompts of a contest, or one that a contest names is not there.
    """
    tasks = [contest.task(answers.model.config) for contest in contests]
    for contest, task in zip(contests, tasks, strict=True):
        if contest.specialist not in specialists:
            raise ValueError(f"`specialists` must hold a model of {contest.specialist}, got {', '.join(specialists)}.")
        if contest.task(specialists[contest.specialist].model.config) != task:
            raise ValueError(f"`n_dims` of the model and of the specialist of {contest.specialist} must be the same.")
    return [
        _measure(contest, task, answers, specialists[contest.specialist], n_prompts, seed)
        for contest, task in tqdm(list(zip(contests, tasks, strict=True)), desc="contests")
    ]


def _measure(
    contest: Contest, task: FunctionClass, answers: Answers, specialist: Answers, n_prompts: int, seed: int
) -> Row:
    prompts = contest.sample(task, n_prompts, make_generator("specialists", seed))
    own, other = (errors_of(each, task, prompts, contest.places) for each in (answers, specialist))
    limit = solver_errors("limit", contest.limit(task), task, prompts, contest.places)["limit"]
    solvers = {}
    for name, predictor in contest.solvers(task).items():
        solvers |= solver_errors(name, predictor, task, prompts, contest.places)
    unit = limit.mean() if contest.is_ratio else 1.0
    low, high = bootstrap_interval((own - other) / unit)
    return Row(
        figure=contest.figure,
        examples=contest.examples,
        is_shift=contest.shift is not None,
        target=contest.target,
        limit=float(limit.mean() / unit),
        solvers={name: float(errors.mean() / unit) for name, errors in solvers.items()},
        published=contest.published(task) if not contest.is_ratio else {},
        specialists={contest.specialist: float(other.mean() / unit)},
        model=float(own.mean() / unit),
        difference=Interval(float((own - other).mean() / unit), float(low), float(high)),
    )


def errors_of(answers: Answers, task: FunctionClass, prompts: Prompts, places: Sequence[int]) -> np.ndarray:
    """The errors `(n_prompts,)` of a model after its own loops, each a mean over the places."""
    (predictions,) = answers.to_parts([prompts], answers.model.config.n_loops)
    return task.score(predictions, prompts)[:, list(places)].mean(axis=1)


def solver_errors(
    name: str, predictor: Predictor, task: FunctionClass, prompts: Prompts, places: Sequence[int]
) -> dict[str, np.ndarray]:
    """The errors of a predictor as [`errors_of`], by the name of each of its settings; no other place is answered."""
    parts = []
    for part in chunks({name: prompts[name] for name in ("xs", "ys")}):
        xs, ys = part["xs"].double(), part["ys"].double()
        parts.append(np.stack([predictor(xs[:, :n], ys[:, :n], xs[:, n]).numpy() for n in places], axis=1))
    asked = {"labels": prompts["labels"][:, list(places)]}
    named = name_predictions(name, predictor, np.concatenate(parts))
    return {key: task.score(predictions, asked).mean(axis=1) for key, predictions in named.items()}
