"""Measure a model beside the baselines and the limit of a task, on plain and on shifted prompts, loop by loop."""

import platform
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any

import numpy as np
from tqdm import tqdm

from scripts.evaluation.metrics_record import Curve, Interval, Metrics, Settings
from scripts.evaluation.own_loops import measure_own_loops, own_loops_of
from scripts.evaluation.predictions import Answers, predict_classically
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


def draw_prompts(task: Task, n_prompts: int, seed: int) -> Prompts:
    """Draw the prompts that all predictors answer; raises `ValueError` where they do not fit into memory."""
    try:
        return task.sample(n_prompts, make_generator("evaluation", seed))
    except (RuntimeError, MemoryError) as error:
        raise ValueError(f"{n_prompts} prompts (`n_prompts`) cannot be drawn: {error}") from None


def measure(
    name: str, recipe: dict[str, Any], answers: Answers, task: Task, prompts: Prompts, sizes: Sizes
) -> Metrics:
    """
    Measure a model.

    Args:
        name (`str`), recipe (`dict`):
            The model's name in the record, and the recipe of its training, empty where it is not known.
        answers ([`~scripts.evaluation.predictions.Answers`]):
            Its answers.
        task ([`~tasks.Task`]), prompts (`dict`), sizes ([`Sizes`]):
            What it is measured on. Each component of a mixture is also measured alone, on as many prompts.
    """

    def measured(task: Task, prompts: Prompts) -> Metrics:
        by_loop, by_model = _answers_of_the_model(answers, prompts, sizes)
        is_shifted = bool(task.shifts) and sizes.n_shift_prompts > 0
        errors = task.score(by_model, prompts)
        needed = own_loops_of(task, prompts, recipe)
        own = {} if needed is None else measure_own_loops(answers, by_loop, needed, task, prompts)
        return Metrics(
            settings=Settings(
                model=name,
                task=task.name,
                task_trained=recipe.get("task"),
                n_points=errors.shape[1],
                n_points_trained=recipe.get("n_points"),
                n_prompts=sizes.n_prompts,
                n_loop_prompts=len(by_loop),
                n_shift_prompts=sizes.n_shift_prompts if is_shifted else 0,
                seed=sizes.seed,
                n_loops=sizes.n_loops,
                max_loops=sizes.max_loops,
                limit=task.limit.name if task.limit else None,
                n_parameters=answers.model.num_parameters(),
                weights_sha256=answers.weights_sha256,
                score=task.score_name,
                place=task.place_name,
                first_place=task.first_place,
                **({"n_dims": task.n_dims, "normaliser": task.normaliser} if isinstance(task, FunctionClass) else {}),
            ),
            **compare(errors, task, prompts, answers),
            **own,
            error_by_loop=errors_by_loop(by_loop, task, prompts),
            shifts=measure_shifts(answers, task, sizes) if is_shifted else {},
            published=published_for(task, errors.shape[1]),
            published_shifts=_curves(task.published_shifts) if is_shifted else {},
        )

    parts = {
        key: measured(part, draw_prompts(part, sizes.n_prompts, sizes.seed)) for key, part in task.components.items()
    }
    return replace(measured(task, prompts), components=parts, versions=versions())


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries of an evaluation."""
    libraries = ("torch", "transformers", "datasets", "evaluate", "numpy")
    return {"python": platform.python_version(), **{library: version(library) for library in libraries}}


def _answers_of_the_model(answers: Answers, prompts: Prompts, sizes: Sizes) -> tuple[np.ndarray, np.ndarray]:
    """Return answers to the first prompts after every loop, and to all prompts after the model's own loops."""
    n_some = sizes.n_loop_prompts or sizes.n_prompts
    some, others = ({name: values[part] for name, values in prompts.items()} for part in np.s_[:n_some, n_some:])
    by_loop = answers.to_prompts(some, sizes.max_loops, every_loop=True)
    by_model = by_loop[:, sizes.n_loops - 1]
    if len(others["labels"]):
        by_model = np.concatenate((by_model, answers.to_prompts(others, sizes.n_loops)))
    return by_loop, by_model


def compare(errors: np.ndarray, task: Task, prompts: Prompts, answers: Answers) -> dict[str, Any]:
    """Return the parts of the record that compare the model's `errors` `(n_prompts, n_places)` with others'."""
    baselines, limit = predict_classically(prompts, task, answers.cache)
    by_name = {"model": errors, **{name: task.score(values, prompts) for name, values in baselines.items()}}
    parts = {"error_by_example": {name: Curve(**curve_of(values)) for name, values in by_name.items()}}
    if limit is None:
        return parts
    least = task.score(limit, prompts)
    excess = {name: values - least for name, values in by_name.items()}
    curves = {name: Curve(**curve_of(values)) for name, values in excess.items()}
    low, high = map(float, bootstrap_interval(np.nanmean(excess["model"], axis=1)))
    return parts | {
        "limit": Curve(**curve_of(least)),
        "excess_over_limit": curves.pop("model"),
        "excess_of_baselines": curves,
        "mean_excess": Interval(float(np.nanmean(excess["model"])), low, high),
    }


def errors_by_loop(by_loop: np.ndarray, task: Task, prompts: Prompts) -> dict[str, list[float]]:
    """Mean errors after every loop, from answers `(n, n_loops, ...)` to the first n of the prompts."""
    some = {name: values[: len(by_loop)] for name, values in prompts.items()}
    for n in range(by_loop.shape[1]):
        if not np.isfinite(by_loop[:, n]).all():
            raise ValueError(f"the model's answers after {n + 1} loops are not finite: give fewer, `--max_loops {n}`.")
    # one loop at a time: all at once would take gigabytes in double precision
    errors = []
    for n in range(by_loop.shape[1]):
        scores = task.score(by_loop[:, n], some)
        if np.isnan(scores).all(axis=0).any():
            raise ValueError(f"{len(by_loop)} prompts lack a place of the score: give more, `--n_loop_prompts`.")
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
