"""Compare a model of many classes of functions with models of one class each, classical solvers and limits.

    python scripts/compare_specialists.py --model model_cards/all_classes --output_dir model_cards/all_classes

Writes specialists.json and prints its table, which says who is best in each row; scripts/headline.py prints it again
from the record. All answer the same fresh prompts. Figures are errors after as many examples as papers give theirs at:
on plain prompts, under noise of several strengths as multiples of the error of the ridge that knows it, and on shifted
prompts; and R² on a table of scikit-learn, of one estimator and of the mean of eight.
"""

import argparse
import sys
from pathlib import Path

from scripts.common.count_flags import check_counts
from scripts.common.devices import fastest_attention, prepare_device
from scripts.common.model_loading import check_name, load_model
from scripts.common.output_folder import check_beside, make_folder
from scripts.evaluation.evaluated_task import recipe_of
from scripts.evaluation.prediction_flags import LEAST, add_prediction_arguments
from scripts.evaluation.predictions import Answers
from scripts.specialists.contests import CONTESTS
from scripts.specialists.friedman import measure_friedman
from scripts.specialists.measuring import measure_contests
from scripts.specialists.record import Comparison
from scripts.training.objectives import OBJECTIVES
from tasks.prediction_cache import PredictionCache


N_ESTIMATORS = 8
SPECIALISTS = tuple(dict.fromkeys(f"model_cards/{contest.specialist}" for contest in CONTESTS))


def parse_arguments() -> argparse.Namespace:
    """Read and check the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--model", required=True, help="Folder or Hub repository of the model of many classes.")
    parser.add_argument(
        "--specialists",
        nargs="+",
        default=SPECIALISTS,
        help=f"Folders or repositories of those of one class each. Default: {', '.join(SPECIALISTS)}.",
    )
    parser.add_argument("--output_dir", type=Path, required=True, help="Folder specialists.json is written to.")
    parser.add_argument("--n_prompts", type=int, default=1280, help="Fresh prompts of each row. Default: 1280.")
    parser.add_argument("--n_draws", type=int, default=20, help="Tables that R² is a mean over, >= 2. Default: 20.")
    add_prediction_arguments(parser)
    arguments = parser.parse_args()
    check_counts(parser, arguments, {"n_prompts": 1, "n_draws": 2} | LEAST)
    return arguments


def load_answers(name: str, arguments: argparse.Namespace) -> Answers:
    """The answers of the model of that name; raises `ValueError` where there is none."""
    check_name(name)
    device = prepare_device()
    model = load_model(name, attn_implementation=fastest_attention(device)).to(device)
    return Answers(model, OBJECTIVES["regression"](), PredictionCache(arguments.cache_dir), arguments.batch_size)


def load_specialists(arguments: argparse.Namespace) -> dict[str, Answers]:
    """The answers of the others, by the task of each; raises `ValueError` where two are of one task."""
    tasks = [recipe_of(name).get("task", name) for name in arguments.specialists]
    if len(set(tasks)) < len(tasks):
        raise ValueError(f"`specialists` must be of different tasks, got {', '.join(tasks)}.")
    return {task: load_answers(name, arguments) for task, name in zip(tasks, arguments.specialists, strict=True)}


def main():
    """Load all models, compare, write."""
    arguments = parse_arguments()
    try:
        answers = load_answers(arguments.model, arguments)
        specialists = load_specialists(arguments)
        check_beside(arguments.output_dir, answers.weights_sha256)
        make_folder(arguments.cache_dir, "cache_dir")
        make_folder(arguments.output_dir)
        settings = {name: getattr(arguments, name) for name in ("n_prompts", "n_draws", "seed")}
        settings["weights_sha256"] = answers.weights_sha256
        settings["specialists"] = {task: each.weights_sha256 for task, each in specialists.items()}
        rows = measure_contests(answers, specialists, CONTESTS, arguments.n_prompts, arguments.seed)
        models = {task: each.model for task, each in specialists.items()}
        for n_estimators in (1, N_ESTIMATORS):
            rows.append(measure_friedman(answers.model, models, arguments.n_draws, arguments.seed, n_estimators))
        comparison = Comparison(settings, rows)
        path = comparison.write(arguments.output_dir)
    except (ValueError, OSError) as error:
        sys.exit(f"compare_specialists.py: error: {error}")
    print(comparison.table, comparison.summary, f"written to {path}", sep="\n\n")


if __name__ == "__main__":
    main()
