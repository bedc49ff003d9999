"""Time training steps, predictions, generation and the stream beside a naive loop over `transformers.GPT2Model`.

    python scripts/benchmark.py --output_dir runs/benchmark

All run in one process with the same allocator settings and threads, in turns. A row holds the median of the repeats
and their range, the floating-point operations, the share of the matmul peak measured in the same run, and the peak of
the memory that tensors took. `--against module:function` adds a function of yours: it is called with (xs, ys, n_loops,
loop_window) and does one training step. `--model DIR` measures what adaptive loops save on a trained model. Writes
benchmark.json and scaling.png.
"""

import argparse
import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from scripts.benchmarks.adaptive_loops import benchmark_adaptive_loops
from scripts.benchmarks.printing import print_adaptive_loops, print_memory, print_steps
from scripts.benchmarks.scaling import benchmark_scaling, plot_scaling
from scripts.benchmarks.timing import Rows, benchmark_steps, matmul_peak
from scripts.benchmarks.workloads import N_HEAD, N_NEW_TOKENS, Workload
from scripts.common.count_flags import parse_counts
from scripts.common.devices import prepare_device
from scripts.common.model_loading import add_model_arguments, load_chosen
from scripts.common.output_folder import claim_own
from scripts.common.records import write_atomically
from tasks import TASKS, FunctionClass, make_task


FUNCTION_CLASSES = [name for name, task in TASKS.items() if issubclass(task, FunctionClass)]
COUNTS = {"batch_size": 64, "n_dims": 20, "n_points": 41, "n_embd": 256, "n_loops": 30, "loop_window": 15}
SEQUENCES = (64, 256)  # tokens of the language model's rows
COUNTS |= {"n_queries": 1000, "repeats": 5}


def parse_arguments() -> argparse.Namespace:
    """Read and check the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--output_dir", type=Path, required=True, help="Folder of benchmark.json and scaling.png.")
    parser.add_argument("--against", metavar="MODULE:FUNCTION", help="A training step of your own to time as well.")
    parser.add_argument("--compile", choices=("default", "reduce-overhead"), help="Time a compiled step as well.")
    add_model_arguments(parser, required=False)
    parser.add_argument(
        "--task", choices=FUNCTION_CLASSES, default="linear_regression", help="Function class of that model."
    )
    arguments = parse_counts(parser, COUNTS, {"n_points": 3})
    if arguments.n_embd % N_HEAD:
        parser.error(f"`n_embd` must be a multiple of {N_HEAD}, the heads, got {arguments.n_embd}")
    if arguments.against:
        try:
            arguments.against = load_step(arguments.against)
        except ValueError as error:
            parser.error(str(error))
    return arguments


def load_step(name: str) -> Callable:
    """Import the function that `--against` names as module:function; raises `ValueError` where that fails."""
    module, _, function = name.partition(":")
    sys.path.insert(0, ".")
    try:
        step = getattr(importlib.import_module(module), function)
    except Exception as error:  # code of the user may raise anything
        raise ValueError(f"`against` must be module:function, got {name}: {error!r}") from None
    if not callable(step):
        raise ValueError(f"`against` must be a function, got a {type(step).__name__} in {name}")
    return step


def run(workload: Workload, arguments: argparse.Namespace) -> dict[str, Any]:
    """Time and print all rows but those of a trained model; returns the entries of benchmark.json."""
    device, repeats = workload.device, arguments.repeats
    peaks = {"float32": matmul_peak(device, torch.float32), "training": matmul_peak(device, workload.precision)}
    training = workload.training_steps(arguments.compile, arguments.against)
    rows: dict[str, Rows] = {"training step": benchmark_steps(training, device, repeats)}
    for n_tokens in SEQUENCES:
        steps = workload.language_steps(n_tokens, arguments.compile)
        rows[f"training step, {n_tokens} tokens"] = benchmark_steps(steps, device, repeats)
    with torch.no_grad():
        rows["prediction"] = benchmark_steps(workload.predictions(), device, repeats)
        rows[f"{arguments.n_queries} queries"] = benchmark_steps(workload.queries(), device, repeats)
        rows["one more example"] = benchmark_steps(workload.added_example(), device, repeats)
        rows[f"{N_NEW_TOKENS} new tokens"] = benchmark_steps(workload.generation(), device, repeats)
    rows["stream batch"] = benchmark_steps(workload.stream_batches(), device, 20 * repeats)
    print_steps(rows, peaks)
    memory = benchmark_steps(workload.memory(), device, 1)
    print_memory(memory)
    return {"peak_flop_per_second": peaks, "seconds": rows, "memory": memory}


def main():
    """Measure, print, write."""
    arguments = parse_arguments()
    device = prepare_device()
    settings = {name: value for name, value in vars(arguments).items() if name not in ("against", "output_dir")}
    try:
        model = load_chosen(arguments, device) if arguments.model is not None else None
        workload = Workload(arguments, device)
        claim_own(arguments.output_dir, "benchmark.json", settings, ["scaling.png"])
    except (ValueError, OSError) as error:
        sys.exit(f"benchmark.py: error: {error}")
    result = run(workload, arguments) | {"adaptive_loops": {}}
    if model is not None:
        task = make_task(arguments.task, n_dims=model.config.n_dims)
        result["adaptive_loops"] = benchmark_adaptive_loops(model, task, device, arguments.repeats)
        print_adaptive_loops(result["adaptive_loops"])
    result["scaling"] = benchmark_scaling(arguments, device)
    settings |= {"threads": torch.get_num_threads(), "device": device.type, "precision": str(workload.precision)}
    write_atomically(arguments.output_dir / "benchmark.json", json.dumps({"settings": settings} | result, indent=1))
    plot_scaling(result["scaling"], arguments.output_dir / "scaling.png")
    print(f"\nwritten to {arguments.output_dir}")


if __name__ == "__main__":
    main()
