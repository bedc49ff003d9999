"""Measure a model between the solvers people use and the limit no one can pass, and write metrics.json.

    python scripts/evaluate.py --model runs/linear --task linear_regression --n_prompts 1280 --output_dir runs/linear

All predictors answer the same fresh prompts. Errors are squared errors divided by that of predicting 0; a curve is
`error`, `low` and `high` by number of examples, the ends those of the 90% bootstrap interval over prompts.

    settings              what was evaluated, on what, and the name of the limit
    error_by_example      curves of "model" and of every baseline
    limit                 curve of the best possible predictor of the function class
    excess_over_limit     curve of the model's error less the limit's, paired prompt by prompt
    excess_of_baselines   the same of every baseline
    mean_excess           the model's excess averaged over all positions: error, low, high
    error_by_loop         error at the "last_point" and its means over all positions ("mean") and over the last fifth
                          of them ("last_fifth") after every loop up to --max_loops
    shifts                by shift (Garg et al., section 4), curves of "model", "limit" and some baselines; linear only
    published             curves of the papers that are complete, where their size is this one
    published_shifts      those of Garg et al.'s standard transformer, null where the drawn line is hidden
    versions

All predictions are kept in --cache_dir: an interrupted run goes on, and the baselines serve the next model too.
Pictures and a report.html of other numbers are removed: they are drawn again by scripts/plot.py and scripts/report.py.
"""

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


# run as a file, Python puts scripts/ first on the path, where this very file would hide the `evaluate` library
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).resolve().parent]

import datasets
import evaluate
import numpy as np
import torch
import transformers
from tqdm import tqdm

from scripts.common.devices import prepare_device
from scripts.common.model_loading import add_model_arguments, load_chosen, weights_digest
from scripts.common.output_folder import check_beside, make_folder, remove_drawings
from scripts.common.records import METRICS_FILE, RecordError, read_metrics, write_atomically
from scripts.evaluation.predictions import describe, predict_at_queries, predict_by_loop, predict_points, recipe_of
from tasks import TASKS, Task, make_task
from tasks.baselines.classical import LASSO_ALPHAS
from tasks.in_context_error import InContextError
from tasks.metrics import bootstrap_interval, curve_of, normalised_squared_error
from tasks.prediction_cache import PredictionCache, n_chunks
from tasks.shifts import SHIFT_BASELINES
from tasks.streams import make_generator


def parse_arguments() -> argparse.Namespace:
    """Read and check the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    add_model_arguments(parser)
    parser.add_argument("--task", required=True, choices=TASKS, help="Function class of the prompts.")
    parser.add_argument("--output_dir", type=Path, required=True, help="Folder metrics.json is written to.")
    parser.add_argument("--n_prompts", type=int, default=1280, help="Fresh prompts. Default: 1280, as in the paper.")
    parser.add_argument(
        "--n_points", type=int, help="Points of a prompt. Default: as many as the model has positions."
    )
    parser.add_argument("--n_loops", type=int, help="Loops of the model. Default: its trained count.")
    parser.add_argument("--max_loops", type=int, help="Last loop of the error by loop. Default: 5 times n_loops.")
    parser.add_argument(
        "--n_loop_prompts",
        type=int,
        help="Prompts of the error by loop, the first so many. Default: all, as for every other error.",
    )
    parser.add_argument(
        "--n_shift_prompts", type=int, default=256, help="Prompts of a shift; the papers: 1280; 0: none. Default: 256."
    )
    parser.add_argument("--seed", type=int, default=1, help="Seed of the prompts. Default: 1.")
    parser.add_argument("--batch_size", type=int, default=64, help="Prompts at a time. Default: 64.")
    parser.add_argument(
        "--cache_dir",
        type=Path,
        default=Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "looped_gpt2",
        help="Folder of all predictions. Default: looped_gpt2 in the user's cache folder.",
    )
    arguments = parser.parse_args()
    for name in ("n_prompts", "n_points", "n_loops", "max_loops", "n_loop_prompts", "batch_size"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            parser.error(f"`{name}` must be >= 1, got {value}")
    for name in ("seed", "n_shift_prompts"):
        if getattr(arguments, name) < 0:
            parser.error(f"`{name}` must be >= 0, got {getattr(arguments, name)}")
    return arguments


def predict_by_model(
    predict: Callable[..., np.ndarray],
    model: torch.nn.Module,
    prompts: dict[str, torch.Tensor],
    n_loops: int,
    arguments: argparse.Namespace,
) -> np.ndarray:
    """Answers of a function of scripts.evaluation.predictions, kept under the model's weights, settings and code."""
    size = arguments.batch_size
    about = [predict.__name__, *describe(model), n_loops]
    with tqdm(total=n_chunks(len(prompts["xs"]), size), desc=f"model, {n_loops} loops") as bar:
        return PredictionCache(arguments.cache_dir).recall(
            lambda batch: predict(model, batch, n_loops, size), about, prompts, bar.update, size
        )


def predict_classically(
    prompts: dict[str, torch.Tensor], task: Task, cache: PredictionCache
) -> tuple[dict[str, np.ndarray], np.ndarray | None]:
    """Predictions of every baseline of the function class by name, and those of its limit where one is known."""
    limit = task.limit
    predictors = {**task.baselines} | ({"limit": limit.predictor} if limit else {})
    predictions = {}
    with tqdm(total=len(predictors) * n_chunks(len(prompts["xs"])), desc="baselines") as bar:
        for name, predictor in predictors.items():
            bar.set_postfix_str(name)
            predictions[name] = cache.predict(predictor, prompts, bar.update)
    if "Lasso" in predictions:
        by_alpha = np.moveaxis(predictions.pop("Lasso"), 2, 0)
        predictions |= {f"Lasso, alpha {alpha:g}": by_alpha[i] for i, alpha in enumerate(LASSO_ALPHAS)}
    return predictions, predictions.pop("limit", None)


def compare(
    prompts: dict[str, torch.Tensor], task: Task, by_model: np.ndarray, cache: PredictionCache
) -> dict[str, dict]:
    """The entries of metrics.json on the plain prompts."""
    baselines, limit = predict_classically(prompts, task, cache)
    labels, metric = prompts["labels"].numpy(), InContextError()
    predictions = {"model": by_model, **baselines}
    errors = {
        name: metric.compute(predictions=values, references=labels, normaliser=task.normaliser)
        for name, values in predictions.items()
    }
    if limit is None:
        return {"error_by_example": errors}
    excess = {
        name: normalised_squared_error(values, labels, task.normaliser)
        - normalised_squared_error(limit, labels, task.normaliser)
        for name, values in predictions.items()
    }
    low, high = bootstrap_interval(excess["model"].mean(axis=1))
    return {
        "error_by_example": errors,
        "limit": metric.compute(predictions=limit, references=labels, normaliser=task.normaliser),
        "excess_over_limit": curve_of(excess["model"]),
        "excess_of_baselines": {name: curve_of(values) for name, values in excess.items() if name != "model"},
        "mean_excess": {"error": excess["model"].mean(), "low": float(low), "high": float(high)},
    }


def measure_shifts(
    model: torch.nn.Module, task: Task, n_points: int, n_loops: int, arguments: argparse.Namespace
) -> dict[str, dict]:
    """Curves on every shift: of the model, the best predictor there and some baselines."""
    cache, curves = PredictionCache(arguments.cache_dir), {}
    for name, shift in tqdm(task.shifts.items(), desc="shifts"):
        generator = make_generator("shift", arguments.seed)
        prompts = shift.sample(task, arguments.n_shift_prompts, generator, n_points)
        labels = prompts["labels"].numpy()
        predictions = {"model": predict_by_model(predict_at_queries, model, prompts, n_loops, arguments)}
        predictors = {"limit": shift.limit} | SHIFT_BASELINES
        predictions |= {key: cache.predict(predictor, prompts) for key, predictor in predictors.items()}
        curves[name] = {
            predictor: curve_of(normalised_squared_error(values, labels, task.normaliser))
            for predictor, values in predictions.items()
        }
    return curves


def published_for(task: Task, n_points: int) -> dict[str, dict]:
    """The papers' curves that have a value at every one of these positions."""
    curves = {
        name: {key: curve[key][:n_points] for key in ("error", "low", "high") if key in curve}
        for name, curve in task.published.items()
    }
    return {name: curve for name, curve in curves.items() if None not in curve["error"]}


def print_table(metrics: dict):
    """Print the errors at a few numbers of examples and at a few loops."""
    settings = metrics["settings"]
    last = len(metrics["error_by_example"]["model"]["error"]) - 1
    examples = sorted({0, last // 4, last // 2, 3 * last // 4, last})
    print(f"\nnormalised squared error, {settings['task']}, {settings['n_prompts']} prompts")
    limits = {}
    if "limit" in metrics:
        limits[f"limit: {settings['limit']}"] = metrics["limit"]
        limits["excess of the model"] = metrics["excess_over_limit"]
    rows = {"examples": examples} | {
        name: [f"{curve['error'][n]:.3g}" for n in examples if n < len(curve["error"])]
        for name, curve in {
            **metrics["error_by_example"],
            **limits,
            **{f"{name}, published": curve for name, curve in metrics["published"].items()},
        }.items()
    }
    by_loop, trained = metrics["error_by_loop"]["last_point"], settings["n_loops"]
    loops = sorted({1, max(1, trained // 2), trained, min(2 * trained, len(by_loop)), len(by_loop)})
    rows |= {"loops": loops, f"model, {last} examples": [f"{by_loop[n - 1]:.3g}" for n in loops]}
    for name, values in rows.items():
        print(f"{name:>38}" + "".join(f"{value:>10}" for value in values))
    if "mean_excess" in metrics:
        excess = metrics["mean_excess"]
        print(f"\nmean excess over the limit {excess['error']:.4g} ({excess['low']:.4g} to {excess['high']:.4g})")
    if metrics["shifts"]:
        print(f"\n{'shift, last point':>38}" + "".join(f"{name[:9]:>10}" for name in ("model", "limit", "zero")))
        for shift, curves in metrics["shifts"].items():
            errors = (f"{curves[name]['error'][-1]:.3g}" for name in ("model", "limit", "zero"))
            print(f"{shift:>38}" + "".join(f"{error:>10}" for error in errors))


def say_where_trained(arguments: argparse.Namespace):
    """Say on the standard error when the model's recipe names another function class than that of the prompts."""
    trained_on = recipe_of(arguments.model, arguments.revision).get("task") or arguments.task
    if trained_on != arguments.task:
        print(
            f"evaluate.py: note: {arguments.model} was trained on {trained_on} and is measured on {arguments.task}.",
            file=sys.stderr,
        )


def settle_sizes(arguments: argparse.Namespace, model: torch.nn.Module):
    """Fill in the sizes that depend on the model; raises `ValueError` where it cannot be measured so."""
    arguments.n_loops = arguments.n_loops or model.config.n_loops
    arguments.max_loops = arguments.max_loops or 5 * arguments.n_loops
    if arguments.max_loops < arguments.n_loops:
        raise ValueError(
            f"`max_loops` must be >= the loops of the model, {arguments.n_loops}, got {arguments.max_loops}."
        )
    most = (model.config.n_positions + 1) // 2
    arguments.n_points = arguments.n_points or most
    if arguments.n_points > most:
        raise ValueError(
            f"`n_points` must be <= {most} for a model of `n_positions` = {model.config.n_positions}, got "
            f"{arguments.n_points}."
        )


def draw_prompts(arguments: argparse.Namespace, task: Task) -> dict[str, torch.Tensor]:
    """The prompts that all predictors answer; raises `ValueError` where they do not fit into memory."""
    try:
        return task.sample(arguments.n_prompts, make_generator("evaluation", arguments.seed))
    except (RuntimeError, MemoryError) as error:
        raise ValueError(f"{arguments.n_prompts} prompts (`n_prompts`) cannot be drawn: {error}") from None


def errors_by_loop(by_loop: np.ndarray, labels: np.ndarray, normaliser: float) -> dict[str, list[float]]:
    """Mean errors after every loop, of predictions `(n_prompts, n_loops, n_points)`."""
    for n in range(by_loop.shape[1]):
        if not np.isfinite(by_loop[:, n]).all():
            raise ValueError(f"the model's answers after {n + 1} loops are not finite: give fewer, `--max_loops {n}`.")
    # a loop at a time: in double precision all at once would take gigabytes
    errors = np.stack(
        [normalised_squared_error(by_loop[:, n], labels, normaliser).mean(axis=0) for n in range(by_loop.shape[1])]
    )
    last_fifth = errors[:, 4 * (errors.shape[1] - 1) // 5 :]
    return {
        "last_point": errors[:, -1].tolist(),
        "mean": errors.mean(axis=1).tolist(),
        "last_fifth": last_fifth.mean(axis=1).tolist(),
    }


def measure(
    model: torch.nn.Module, task: Task, prompts: dict[str, torch.Tensor], arguments: argparse.Namespace
) -> dict[str, Any]:
    """The content of metrics.json."""
    n_points, n_loops, max_loops = arguments.n_points, arguments.n_loops, arguments.max_loops
    parts = (slice(arguments.n_loop_prompts), slice(arguments.n_loop_prompts or arguments.n_prompts, None))
    some, others = ({name: values[part] for name, values in prompts.items()} for part in parts)
    by_loop = predict_by_model(predict_by_loop, model, some, max_loops, arguments)
    by_model = by_loop[:, n_loops - 1]
    if len(others["xs"]):
        by_others = predict_by_model(predict_points, model, others, n_loops, arguments)
        by_model = np.concatenate((by_model, by_others))
    shifted = bool(task.shifts) and arguments.n_shift_prompts > 0
    recipe = recipe_of(arguments.model, arguments.revision)
    return {
        "settings": {
            "model": os.path.basename(os.path.normpath(arguments.model)),
            "task": task.name,
            "task_trained": recipe.get("task"),
            "n_dims": task.n_dims,
            "n_points": n_points,
            "n_points_trained": recipe.get("n_points"),
            "n_prompts": arguments.n_prompts,
            "n_loop_prompts": len(by_loop),
            "n_shift_prompts": arguments.n_shift_prompts if shifted else 0,
            "seed": arguments.seed,
            "n_loops": n_loops,
            "max_loops": max_loops,
            "normaliser": task.normaliser,
            **({"limit": task.limit.name} if task.limit else {}),
            "n_parameters": model.num_parameters(),
            "weights_sha256": weights_digest(model),
        },
        **compare(prompts, task, by_model, PredictionCache(arguments.cache_dir)),
        "error_by_loop": errors_by_loop(by_loop, some["labels"].numpy(), task.normaliser),
        "shifts": measure_shifts(model, task, n_points, n_loops, arguments) if shifted else {},
        "published": published_for(task, n_points),
        "published_shifts": task.published_shifts if shifted else {},
        "versions": {
            "python": platform.python_version(),
            **{library.__name__: library.__version__ for library in (torch, transformers, datasets, evaluate, np)},
        },
    }


def write(metrics: dict[str, Any], output_dir: Path):
    """Write metrics.json, and remove what was drawn from one of other numbers."""
    path = output_dir / METRICS_FILE
    try:
        is_new = read_metrics(path) != metrics
    except RecordError:
        is_new = True
    if is_new and (stale := remove_drawings(output_dir)):
        print(f"removed {', '.join(stale)} of other numbers: draw again by scripts/plot.py, scripts/report.py")
    write_atomically(path, json.dumps(metrics, indent=1, allow_nan=False))


def main():
    """Load, measure, write."""
    arguments = parse_arguments()
    try:
        model = load_chosen(arguments, prepare_device())
        settle_sizes(arguments, model)
        say_where_trained(arguments)
        task = make_task(arguments.task, n_dims=model.config.n_dims, n_points=arguments.n_points)
        prompts = draw_prompts(arguments, task)
        check_beside(arguments.output_dir, weights_digest(model))
        make_folder(arguments.cache_dir, "cache_dir")
        make_folder(arguments.output_dir)
        metrics = measure(model, task, prompts, arguments)
        write(metrics, arguments.output_dir)
    except (ValueError, OSError) as error:
        sys.exit(f"evaluate.py: error: {error}")
    print_table(metrics)
    print(f"\nwritten to {arguments.output_dir / METRICS_FILE}")


if __name__ == "__main__":
    main()
