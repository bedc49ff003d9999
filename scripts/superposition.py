"""Mix the examples of two functions in one prompt, and measure how a model's answers divide between them.

    python scripts/superposition.py --model runs/linear --tasks linear_regression sparse_linear_regression
        --output_dir runs/linear

Each example is of f with a probability from 0 to 1, else of g. A least-squares fit over all prompts explains the
answers by both: a f(x) + b g(x), and a rest. The same is done with the answers of ridges, whose penalty is chosen by
leaving out each example in turn. `superposition.json` holds the numbers.

Source: Xiong et al., "Everything Everywhere All at Once: LLMs can In-Context Learn Multiple Tasks in Superposition"
(ICML 2025), of language models.
"""

import argparse
import json
import sys
from pathlib import Path

from scripts.common.count_flags import check_counts
from scripts.common.devices import prepare_device
from scripts.common.model_loading import add_model_arguments, load_chosen, weights_digest
from scripts.common.output_folder import claim_beside
from scripts.common.records import write_atomically
from scripts.evaluation.evaluated_task import recipe_of
from scripts.studies.superposition import measure_superposition, print_superposition, tasks_for
from tasks import TASKS, FunctionClass


RECORD = "superposition.json"


def parse_arguments() -> argparse.Namespace:
    """Read and check the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    add_model_arguments(parser)
    names = [name for name, task in TASKS.items() if issubclass(task, FunctionClass)]
    parser.add_argument(
        "--tasks", nargs=2, required=True, choices=names, metavar=("F", "G"), help="Classes of f and g, maybe one."
    )
    parser.add_argument("--output_dir", type=Path, required=True, help=f"Folder {RECORD} is written to.")
    parser.add_argument("--n_prompts", type=int, default=1280, help="Prompts per share of f. Default: 1280.")
    parser.add_argument("--n_loops", type=int, help="Loops of the model. Default: its trained count.")
    parser.add_argument("--seed", type=int, default=1, help="Seed of the prompts. Default: 1.")
    arguments = parser.parse_args()
    # two coefficients leave a rest of three prompts
    check_counts(parser, arguments, {"n_prompts": 3, "n_loops": 1, "seed": 0})
    return arguments


def main():
    """Load, measure, write, print."""
    arguments = parse_arguments()
    try:
        model = load_chosen(arguments, prepare_device())
        pair = tasks_for(arguments.tasks, recipe_of(arguments.model, arguments.revision), model.config)
        settings = {name: getattr(arguments, name) for name in ("tasks", "n_prompts", "seed")}
        settings |= {"n_loops": arguments.n_loops or model.config.n_loops, "weights_sha256": weights_digest(model)}
        claim_beside(arguments.output_dir, settings["weights_sha256"])
        sizes = (settings[name] for name in ("n_loops", "n_prompts", "seed"))
        record = {"settings": settings, **measure_superposition(model, pair, *sizes)}
        write_atomically(arguments.output_dir / RECORD, json.dumps(record, indent=1))
    except (ValueError, OSError) as error:
        sys.exit(f"superposition.py: error: {error}")
    print_superposition(record)
    print(f"written to {arguments.output_dir / RECORD}")


if __name__ == "__main__":
    main()
