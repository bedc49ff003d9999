"""Measure a model beside the baselines and the limit of a task, on plain and on shifted prompts, loop by loop."""

import platform
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any

import numpy as np
from tqdm import tqdm

from scripts.evaluation.certainty import measure_certainty
from scripts.evaluation.loop_scores import LoopScores, first_prompts
from scripts.evaluation.metrics_record import Curve, Interval, Metrics, Settings
from scripts.evaluation.own_loops import measure_own_loops, own_loops_of
from scripts.evaluation.predictions import Answers, score_classically, score_rolled_out
from tasks import FunctionClass, Task
from tasks.common import Prompts
from tasks.metrics import bootstrap_interval, curve_of
from tasks.shifts import SHIFT_BASELINES
from tasks.streams import make_generator


@dataclass(frozen=True)
class Sizes:
    """
    Numbers of prompts and loops of an evaluation.

    Args:
        n_prompts (`int`):
            Prompts that all predictors answer.
        n_loop_prompts (`int`, *optional*, defaults to all):
            How many of them, the first ones, the errors by loop are measured on.
        n_shift_prompts (`int`):
            Prompts per shift, 0 for no shifts.
        n_loops (`int`), max_loops (`int`):
            Loops of the model, and the last loop of the errors by loop.
        seed (`int`):
            Seed of the prompts.
    """

    n_prompts: int
    n_loop_prompts: int | None
    n_shift_prompts: int
    n_loops: int
    max_loops: int
    seed: int


def draw_prompts(task: Task, n_prompts: int, seed: int) -> list[Prompts]:
    """
    Draw the prompts that all predictors answer, in parts of one shape each.

    Raises:
        `ValueError`: they do not fit into memory.
    """
    try:
        return task.sample_parts(n_prompts, make_generator("evaluation", seed))
    except (RuntimeError, MemoryError) as error:
        raise ValueError(f"{n_prompts} prompts (`n_prompts`) cannot be drawn: {error}") from None


def measure(
    name: str, recipe: dict[str, Any], answers: Answers, task: Task, parts: Sequence[Prompts], sizes: Sizes
) -> Metrics:
    """
    Measure a model.

    Args:
        name (`str`), recipe (`dict`):
            The model's name in the record, and the recipe of its training, empty where it is not known.
        answers ([`~scripts.evaluation.predictions.Answers`]):
            Its answers.
        task ([`~tasks.Task`]), parts (`Sequence` of `dict`), sizes ([`Sizes`]):
            What it is measured on. Each component of a mixture is also measured alone, on as many prompts.
    """

    def measured(task: Task, parts: Sequence[Prompts]) -> Metrics:
        by_loop, errors = _scores_of_the_model(answers, task, parts, sizes)
        is_shifted = bool(task.shifts) and sizes.n_shift_prompts > 0
        needed = own_loops_of(task, parts, recipe)
        own = {} if needed is None else measure_own_loops(answers, by_loop, needed)
        return Metrics(
            settings=Settings(
                model=name,
                task=task.name,
                task_trained=recipe.get("task"),
                n_points=errors.shape[1],
                n_points_trained=recipe.get("n_points"),
                n_prompts=sizes.n_prompts,
                n_loop_prompts=by_loop.n_prompts,
                n_shift_prompts=sizes.n_shift_prompts if is_shifted else 0,
                seed=sizes.seed,
                n_loops=sizes.n_loops,
                max_loops=sizes.max_loops,
                n_turns=None if answers.turns is None else len(answers.turns),
                limit=task.limit.name if task.limit else None,
                n_parameters=answers.model.num_parameters(),
                weights_sha256=answers.weights_sha256,
                score=task.score_name,
                place=task.place_name,
                first_place=task.first_place,
                place_step=task.place_step,
                **({"n_dims": task.n_dims, "normaliser": task.normaliser} if isinstance(task, FunctionClass) else {}),
            ),
            **compare(errors, task, parts, answers, sizes.n_loops),
            **own,
            **measure_certainty(answers, task, parts, sizes.n_loops),
            error_by_loop=errors_by_loop(by_loop),
            shifts=measure_shifts(answers, task, sizes) if is_shifted else {},
            published=published_for(task, errors.shape[1]),
            published_shifts=_curves(task.published_shifts) if is_shifted else {},
        )

    components = {
        key: measured(part, draw_prompts(part, sizes.n_prompts, sizes.seed)) for key, part in task.components.items()
    }
    return replace(measured(task, parts), components=components, versions=versions())


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries of an evaluation."""
    libraries = ("torch", "transformers", "datasets", "evaluate", "numpy")
    return {"python": platform.python_version(), **{library: version(library) for library in libraries}}


def _scores_of_the_model(
    answers: Answers, task: Task, parts: Sequence[Prompts], sizes: Sizes
) -> tuple[LoopScores, np.ndarray]:
    """Return scores of the first prompts after every loop, and `(N, places)` of all after the model's own loops."""
    some, others = first_prompts(parts, sizes.n_loop_prompts or sizes.n_prompts)
    by_loop = LoopScores(task, some, answers.to_parts(some, sizes.max_loops, every_loop=True))
    for number in range(sizes.max_loops):
        if not all(np.isfinite(part[:, number]).all() for part in by_loop.by_loop):
            raise ValueError(
                f"the model's answers after {number + 1} loops are not finite: give fewer, `--max_loops {number}`."
            )
    rest = zip(answers.to_parts(others, sizes.n_loops), others, strict=True) if others else ()
    return by_loop, np.concatenate([by_loop.after(sizes.n_loops), *(task.score(*each) for each in rest)])


def compare(
    errors: np.ndarray, task: Task, parts: Sequence[Prompts], answers: Answers, n_loops: int
) -> dict[str, Any]:
    """Return the fields of the record that compare the model's `errors` `(N, places)` with others'."""
    baselines, least = score_classically(parts, task, answers.cache)
    by_name = {"model": errors, **score_rolled_out(answers, task, parts, n_loops), **baselines}
    fields = {"error_by_example": {name: Curve(**curve_of(values)) for name, values in by_name.items()}}
    if least is None:
        return fields
    excess = {name: values - least for name, values in by_name.items()}
    curves = {name: Curve(**curve_of(values)) for name, values in excess.items()}
    low, high = map(float, bootstrap_interval(np.nanmean(excess["model"], axis=1)))
    return fields | {
        "limit": Curve(**curve_of(least)),
        "excess_over_limit": curves.pop("model"),
        "excess_of_baselines": curves,
        "mean_excess": Interval(float(np.nanmean(excess["model"])), low, high),
    }


def errors_by_loop(by_loop: LoopScores) -> dict[str, list[float]]:
    """Mean errors after every loop."""
    # one loop at a time: all at once would take gigabytes in double precision
    errors = []
    for n_loops in range(1, by_loop.n_loops + 1):
        scores = by_loop.after(n_loops)
        if np.isnan(scores).all(axis=0).any():
            raise ValueError(f"{len(scores)} prompts lack a place of the score: give more, `--n_loop_prompts`.")
        errors.append(np.nanmean(scores, axis=0))
    errors = np.stack(errors)
    last_fifth = errors[:, 4 * (errors.shape[1] - 1) // 5 :]
    return {
        "last_point": errors[:, -1].tolist(),
        "mean": errors.mean(axis=1).tolist(),
        "last_fifth": last_fifth.mean(axis=1).tolist(),
    }


def measure_shifts(answers: Answers, task: Task, sizes: Sizes) -> dict[str, dict[str, Curve]]:
    """Curves on every shift: of the model, of the best predictor there and of some baselines."""
    curves = {}
    for name, shift in tqdm(task.shifts.items(), desc="shifts"):
        prompts = shift.sample(task, sizes.n_shift_prompts, make_generator("shift", sizes.seed), task.n_points)
        predictions = {"model": answers.at_queries(prompts, sizes.n_loops)}
        predictors = {"limit": shift.limit} | SHIFT_BASELINES
        predictions |= {key: answers.cache.predict(predictor, prompts) for key, predictor in predictors.items()}
        curves[name] = {key: Curve(**curve_of(task.score(values, prompts))) for key, values in predictions.items()}
    return curves


def published_for(task: Task, n_points: int) -> dict[str, Curve]:
    """The papers' curves at the first `n_points` places, those that have a value at each."""
    curves = {
        name: {key: curve[key][:n_points] for key in ("error", "low", "high") if key in curve}
        for name, curve in task.published.items()
    }
    return _curves({name: curve for name, curve in curves.items() if None not in curve["error"]})


def _curves(curves: dict[str, dict[str, Any]]) -> dict[str, Curve]:
    return {name: Curve(**curve) for name, curve in curves.items()}
