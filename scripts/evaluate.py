"""Measure a model beside classical solvers and the best possible predictor, and write metrics.json.

    python scripts/evaluate.py --model runs/linear --task linear_regression --n_prompts 1280 --output_dir runs/linear

All predictors answer the same fresh prompts. What metrics.json holds is said in scripts/evaluation/metrics_record.py.

All predictions are kept in --cache_dir: an interrupted run can go on, and the next model reuses the baselines.
Pictures and a report.html of other numbers are removed: draw them again by scripts/plot.py and scripts/report.py.
"""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedModel

from scripts.common.count_flags import check_counts
from scripts.common.devices import prepare_device
from scripts.common.fields import read_mapping
from scripts.common.model_loading import add_model_arguments, check_name, load_chosen
from scripts.common.output_folder import check_beside, make_folder, remove_drawings
from scripts.common.records import METRICS_FILE, RecordError
from scripts.evaluation.evaluated_task import build_task, recipe_of, settings_of, task_for
from scripts.evaluation.measuring import Sizes, draw_prompts, measure
from scripts.evaluation.metrics_record import Metrics
from scripts.evaluation.own_loops import own_loops_of
from scripts.evaluation.prediction_flags import LEAST, add_prediction_arguments
from scripts.evaluation.predictions import Answers
from scripts.evaluation.printed_tables import table_lines
from scripts.training.objectives import OBJECTIVES
from tasks import TASKS
from tasks.prediction_cache import PredictionCache
from tasks.streams import make_generator
from tasks.turns import draw_turns


def parse_arguments() -> argparse.Namespace:
    """Read and check the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    add_model_arguments(parser)
    parser.add_argument("--task", required=True, choices=TASKS, help="Task that prompts are drawn from.")
    parser.add_argument(
        "--task_settings", metavar="MAPPING", help="Its settings, e.g. '{noise_std: 0.5}'. Default: the training's."
    )
    parser.add_argument("--output_dir", type=Path, required=True, help="Folder metrics.json is written to.")
    parser.add_argument("--n_prompts", type=int, default=1280, help="Fresh prompts. Default: 1280, as in the paper.")
    parser.add_argument(
        "--n_points", type=int, help="Points of a prompt. Default: as many as the model has positions."
    )
    parser.add_argument(
        "--n_loops", type=int, help="Loops of the model. Default: its trained count, or the most that a prompt needs."
    )
    parser.add_argument(
        "--max_loops",
        type=int,
        help="Last loop of the error by loop. Default: 5 times n_loops, or twice the most needed.",
    )
    parser.add_argument(
        "--n_loop_prompts",
        type=int,
        help="Number of prompts, the first ones, for the error by loop. Default: all.",
    )
    parser.add_argument(
        "--n_shift_prompts", type=int, default=256, help="Prompts per shift, 0: none; the papers: 1280. Default: 256."
    )
    parser.add_argument(
        "--n_turns",
        type=int,
        default=1,
        help="Turns of the xs of each prompt, under which the class of functions stays what it is: the answers of the "
        "model are means over them. Default: 1, as they are.",
    )
    add_prediction_arguments(parser)
    arguments = parser.parse_args()
    counts = ("n_prompts", "n_points", "n_loops", "max_loops", "n_loop_prompts", "n_turns")
    check_counts(parser, arguments, dict.fromkeys(counts, 1) | {"n_shift_prompts": 0} | LEAST)
    return arguments


def say_where_trained(arguments: argparse.Namespace, recipe: dict[str, Any]):
    """Print a note on stderr where the model's recipe names another task than that of the prompts."""
    trained_on = recipe.get("task") or arguments.task
    if trained_on != arguments.task:
        print(
            f"evaluate.py: note: {arguments.model} was trained on {trained_on} and is measured on {arguments.task}.",
            file=sys.stderr,
        )


def sizes_for(model: PreTrainedModel, arguments: argparse.Namespace, needed: np.ndarray | None) -> Sizes:
    """
    Return the sizes that were asked for, else the model's; raises `ValueError` where `max_loops` are too few.

    Where prompts have a number of loops that they need, the default is the largest, and twice as many for the last;
    fewer are noted on stderr.
    """
    most_needed = 0 if needed is None else int(needed.max())
    n_loops = arguments.n_loops or most_needed or model.config.n_loops
    max_loops = arguments.max_loops or (5 * n_loops if needed is None else 2 * max(n_loops, most_needed))
    if max_loops < most_needed:
        raise ValueError(
            f"`max_loops` must be >= {most_needed}, the loops that the longest prompt needs, got {max_loops}."
        )
    if max_loops < n_loops:
        raise ValueError(f"`max_loops` must be >= the loops of the model, {n_loops}, got {max_loops}.")
    if n_loops < most_needed:
        print(
            f"evaluate.py: note: the longest prompt needs {most_needed} loops and `n_loops` is {n_loops}, so answers "
            "of the model are wrong that more loops would set right.",
            file=sys.stderr,
        )
    asked = {name: getattr(arguments, name) for name in ("n_prompts", "n_loop_prompts", "n_shift_prompts", "seed")}
    return Sizes(**asked, n_loops=n_loops, max_loops=max_loops)


def write(metrics: Metrics, output_dir: Path):
    """Write metrics.json; if its numbers are new, remove what was drawn from the old ones."""
    path = output_dir / METRICS_FILE
    try:
        is_new = Metrics.read(path) != metrics
    except RecordError:
        is_new = True
    if is_new and (stale := remove_drawings(output_dir)):
        print(f"removed {', '.join(stale)} of other numbers: draw again by scripts/plot.py, scripts/report.py")
    metrics.write(path)


def main():
    """Load, measure, write."""
    arguments = parse_arguments()
    try:
        check_name(arguments.model)
        recipe = recipe_of(arguments.model, arguments.revision)
        settings = settings_of(recipe, arguments.task) | read_mapping("task_settings", arguments.task_settings)
        objective = OBJECTIVES[build_task(arguments.task, settings).objective]()
        model = load_chosen(arguments, prepare_device(), objective.model_class, objective.auto_class)
        task = task_for(arguments.task, settings, model.config, arguments.n_points)
        turns = draw_turns(task, arguments.n_turns, make_generator("turns", arguments.seed))
        answers = Answers(model, objective, PredictionCache(arguments.cache_dir), arguments.batch_size, turns)
        say_where_trained(arguments, recipe)
        parts = draw_prompts(task, arguments.n_prompts, arguments.seed)
        sizes = sizes_for(model, arguments, own_loops_of(task, parts, recipe))
        check_beside(arguments.output_dir, answers.weights_sha256)
        make_folder(arguments.cache_dir, "cache_dir")
        make_folder(arguments.output_dir)
        name = os.path.basename(os.path.normpath(arguments.model))
        metrics = measure(name, recipe, answers, task, parts, sizes)
        write(metrics, arguments.output_dir)
    except (ValueError, OSError) as error:
        sys.exit(f"evaluate.py: error: {error}")
    print("", *table_lines(metrics), sep="\n")
    print(f"\nwritten to {arguments.output_dir / METRICS_FILE}")


if __name__ == "__main__":
    main()
