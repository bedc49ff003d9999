"""Measure the stop rules of a trained model beside a random exit of the same loops.

    python scripts/benchmark_stops.py --model model_cards/linear_regression --task linear_regression \\
        --output_dir runs/stops

Each rule is asked at several thresholds how many loops every prompt needs, and its error there is compared with that
of the same numbers of loops given to the prompts at random. A rule that is not better than that has learned nothing of
the prompt. Errors are of the last answer of a prompt: its squared error over the normaliser of the task, or whether it
is wrong. Writes benchmark_stops.json.
"""

import argparse
import json
import sys
from pathlib import Path

from modeling_looped_gpt2.loop_weights_looped_gpt2 import depends_on_n_loops
from scripts.benchmarks.printing import print_stop_rules
from scripts.benchmarks.stop_rules import benchmark_stop_rules
from scripts.common.count_flags import parse_counts
from scripts.common.devices import prepare_device
from scripts.common.model_loading import add_model_arguments, check_name, load_chosen
from scripts.common.output_folder import claim_own
from scripts.common.records import write_atomically
from scripts.evaluation.evaluated_task import build_task, recipe_of, settings_of, task_for
from scripts.training.objectives import OBJECTIVES
from tasks import TASKS, Task
from tasks.common import Prompts
from tasks.streams import make_generator


RESULT_FILE = "benchmark_stops.json"


def parse_arguments() -> argparse.Namespace:
    """Read and check the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    add_model_arguments(parser)
    parser.add_argument("--task", required=True, choices=TASKS, help="Task that prompts are drawn from.")
    parser.add_argument("--output_dir", type=Path, required=True, help=f"Folder of {RESULT_FILE}.")
    parser.add_argument("--max_loops", type=int, help="Most loops of a prompt. Default: the trained ones.")
    arguments = parse_counts(parser, {"n_prompts": 1024, "batch_size": 64, "seed": 1})
    if arguments.max_loops is not None and arguments.max_loops < 1:
        parser.error(f"`max_loops` must be >= 1, got {arguments.max_loops}")
    return arguments


def draw_batch(task: Task, n_prompts: int, seed: int) -> Prompts:
    """Draw prompts of one shape; raises `ValueError` where they do not fit into memory."""
    try:
        return task.sample(n_prompts, make_generator("evaluation", seed))
    except (RuntimeError, MemoryError) as error:
        raise ValueError(f"{n_prompts} prompts (`n_prompts`) cannot be drawn: {error}") from None


def main():
    """Measure, print, write."""
    arguments = parse_arguments()
    device = prepare_device()
    settings = {name: value for name, value in vars(arguments).items() if name != "output_dir"}
    try:
        check_name(arguments.model)
        task_settings = settings_of(recipe_of(arguments.model, arguments.revision), arguments.task)
        objective = OBJECTIVES[build_task(arguments.task, task_settings).objective]()
        model = load_chosen(arguments, device, objective.model_class, objective.auto_class)
        if depends_on_n_loops(model.config):
            raise ValueError(
                f"the loops of {arguments.model} depend on how many there are at most (`loop_encoding="
                f"{model.config.loop_encoding!r}`): a random exit has no such loops to be compared with."
            )
        task = task_for(arguments.task, task_settings, model.config)
        prompts = draw_batch(task, arguments.n_prompts, arguments.seed)
        claim_own(arguments.output_dir, RESULT_FILE, settings, [])
    except (ValueError, OSError) as error:
        sys.exit(f"benchmark_stops.py: error: {error}")
    max_loops = arguments.max_loops or model.config.n_loops
    rows = benchmark_stop_rules(model, objective, task, prompts, max_loops, arguments.batch_size)
    print_stop_rules(rows)
    write_atomically(arguments.output_dir / RESULT_FILE, json.dumps({"settings": settings, "rows": rows}, indent=1))
    print(f"\nwritten to {arguments.output_dir / RESULT_FILE}")


if __name__ == "__main__":
    main()
