"""Measure a model and the classical baselines on the same fresh prompts and write metrics.json.

    python scripts/evaluate.py --model runs/linear --task linear_regression --n_prompts 1280 --output_dir runs/linear

`metrics.json` holds the normalised squared error (predicting 0 gives 1) by number of examples with 90% bootstrap
intervals, for the model and every baseline, and by loop far past the trained count.
"""

import argparse
import json
import os
import platform
import sys
import time
from pathlib import Path


# run as a file, Python puts scripts/ first on the path, where this very file would hide the `evaluate` library
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).resolve().parent]

import datasets
import evaluate
import numpy as np
import torch
import transformers
from tqdm import tqdm
from transformers import AutoModel

from scripts.checkpoints import weights_digest, write_atomically
from scripts.devices import fastest_attention, prepare_device
from tasks import TASKS, Task, make_task
from tasks.baselines import BASELINES, predict_prefixes
from tasks.in_context_error import InContextError
from tasks.metrics import normalised_squared_error
from tasks.streams import make_generator


def parse_arguments() -> argparse.Namespace:
    """Read and check the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--model", required=True, help="Folder or Hub repository of a model.")
    parser.add_argument("--task", required=True, choices=TASKS, help="Function class of the prompts.")
    parser.add_argument("--output_dir", type=Path, required=True, help="Folder metrics.json is written to.")
    parser.add_argument("--n_prompts", type=int, default=1280, help="Fresh prompts. Default: 1280, as in the paper.")
    parser.add_argument(
        "--n_points", type=int, help="Points of a prompt. Default: as many as the model has positions."
    )
    parser.add_argument("--n_loops", type=int, help="Loops of the model. Default: its trained count.")
    parser.add_argument("--max_loops", type=int, help="Last loop of the error by loop. Default: 5 times n_loops.")
    parser.add_argument("--seed", type=int, default=1, help="Seed of the prompts. Default: 1.")
    parser.add_argument("--batch_size", type=int, default=64, help="Prompts at a time. Default: 64.")
    arguments = parser.parse_args()
    for name in ("n_prompts", "n_points", "n_loops", "max_loops", "batch_size"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            parser.error(f"`{name}` must be >= 1, got {value}")
    if arguments.seed < 0:
        parser.error(f"`seed` must be >= 0, got {arguments.seed}")
    return arguments


def load_model(name: str, device: torch.device) -> torch.nn.Module:
    """Load an in-context regression model, its code included, in float32 for evaluation."""
    model = AutoModel.from_pretrained(
        name, trust_remote_code=True, dtype=torch.float32, attn_implementation=fastest_attention(device)
    )
    if not hasattr(model, "read_out"):
        sys.exit(f"evaluate.py: error: {name} holds a {type(model).__name__}, not an in-context regression model.")
    return model.to(device).eval()


@torch.inference_mode()
def predict_by_loop(
    model: torch.nn.Module, prompts: dict[str, torch.Tensor], n_loops: int, batch_size: int
) -> np.ndarray:
    """Predictions `(n_prompts, n_loops, n_points)` after every one of `n_loops` loops."""
    predictions = []
    for start in tqdm(range(0, len(prompts["xs"]), batch_size), desc="model"):
        xs, ys = (prompts[name][start : start + batch_size].to(model.device) for name in ("xs", "ys"))
        predictions.append(model(xs, ys, n_loops=n_loops, output_loop_predictions=True).loop_predictions.cpu())
    return torch.cat(predictions).numpy()


def errors_by_example(prompts: dict[str, torch.Tensor], task: Task, by_loop: np.ndarray) -> dict[str, dict]:
    """Error and interval after every number of examples, of the model's predictions and of each baseline."""
    metric = InContextError()
    labels = prompts["labels"].numpy()
    curves = {"model": metric.compute(predictions=by_loop, references=labels, normaliser=task.normaliser)}
    for name, predictor in tqdm(BASELINES.items(), desc="baselines"):
        predictions = predict_prefixes(predictor, prompts["xs"], prompts["ys"]).numpy()
        curves[name] = metric.compute(predictions=predictions, references=labels, normaliser=task.normaliser)
    return curves


def print_table(metrics: dict):
    """Print the errors at a few numbers of examples and at a few loops."""
    curves = metrics["error_by_example"]
    last = len(curves["model"]["error"]) - 1
    examples = sorted({0, last // 4, last // 2, 3 * last // 4, last})
    print(f"\nnormalised squared error, {metrics['settings']['task']}, {metrics['settings']['n_prompts']} prompts")
    print(f"{'examples':>22}" + "".join(f"{n:>10}" for n in examples))
    for name, curve in curves.items():
        print(f"{name:>22}" + "".join(f"{curve['error'][n]:>10.3g}" for n in examples))
    by_loop = metrics["error_by_loop"]["last_point"]
    trained = metrics["settings"]["n_loops"]
    loops = sorted({1, max(1, trained // 2), trained, min(2 * trained, len(by_loop)), len(by_loop)})
    print(f"{'loops':>22}" + "".join(f"{n:>10}" for n in loops))
    print(f"{f'model, {last} examples':>22}" + "".join(f"{by_loop[n - 1]:>10.3g}" for n in loops))


def main():
    """Load, predict, measure, write."""
    arguments = parse_arguments()
    device = prepare_device()
    try:
        arguments.output_dir.mkdir(parents=True, exist_ok=True)
        model = load_model(arguments.model, device)
        n_loops = arguments.n_loops or model.config.n_loops
        max_loops = arguments.max_loops or 5 * n_loops
        if max_loops < n_loops:
            raise ValueError(f"`max_loops` must be >= the loops of the model, {n_loops}, got {max_loops}")
        task = make_task(arguments.task, model.config.n_dims)
        n_points = arguments.n_points or (model.config.n_positions + 1) // 2
        prompts = task.sample(arguments.n_prompts, n_points, make_generator("evaluation", arguments.seed))
        started = time.perf_counter()
        by_loop = predict_by_loop(model, prompts, max_loops, arguments.batch_size)
    except (ValueError, OSError) as error:
        sys.exit(f"evaluate.py: error: {error}")
    seconds = time.perf_counter() - started

    loop_errors = normalised_squared_error(
        by_loop, np.broadcast_to(prompts["labels"].numpy()[:, None], by_loop.shape), task.normaliser
    ).mean(axis=0)
    metrics = {
        "settings": {
            "model": os.path.basename(os.path.normpath(arguments.model)),
            "task": task.name,
            "n_dims": task.n_dims,
            "n_points": n_points,
            "n_prompts": arguments.n_prompts,
            "seed": arguments.seed,
            "n_loops": n_loops,
            "max_loops": max_loops,
            "normaliser": task.normaliser,
            "n_parameters": model.num_parameters(),
            "weights_sha256": weights_digest(model),
        },
        "error_by_example": errors_by_example(prompts, task, by_loop[:, n_loops - 1]),
        "error_by_loop": {"last_point": loop_errors[:, -1].tolist(), "mean": loop_errors.mean(axis=1).tolist()},
        "seconds_of_the_model": seconds,
        "versions": {
            "python": platform.python_version(),
            **{library.__name__: library.__version__ for library in (torch, transformers, datasets, evaluate, np)},
        },
    }
    write_atomically(arguments.output_dir / "metrics.json", json.dumps(metrics, indent=1, allow_nan=False))
    print_table(metrics)
    print(f"\nwritten to {arguments.output_dir / 'metrics.json'}")


if __name__ == "__main__":
    main()
