"""Time training steps, predictions, generation and the stream beside a naive loop over `transformers.GPT2Model`.

    python scripts/benchmark.py --output_dir runs/benchmark

Both run in one process with the same allocator settings and threads, in turns; each row is the median of the repeats
with their range, the floating-point operations, the share of the matmul peak that this machine reached in the same run
and the peak of the memory that tensors took. `--against module:function` adds a callable of your own: it is called
with (xs, ys, n_loops, loop_window) and does one training step. `--model DIR` measures what adaptive loops save on a
trained model. Writes benchmark.json and scaling.png.
"""

import argparse
import importlib
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count
from tqdm import tqdm

from scripts.benchmarks.peak_memory import PeakMemory
from scripts.benchmarks.workloads import N_HEAD, N_NEW_TOKENS, Step, Workload
from scripts.common.devices import prepare_device
from scripts.common.model_loading import add_model_arguments, load_chosen
from scripts.common.output_folder import claim_own
from scripts.common.records import write_atomically
from tasks import TASKS, make_task
from tasks.streams import make_generator


Rows = dict[str, dict[str, Any]]
SCALING = {"n_loops": (5, 15, 30), "n_points": (11, 41, 81), "batch_size": (16, 64, 128)}
TOLERANCES = (0.1, 0.08, 0.06, 0.05, 0.03, 0.02, 0.01)
LONG_LOOPS = 100
# a row is repeated until this many seconds have passed, and at least once
SECONDS_A_ROW = 60
# torch's counter does not know the fused attention of the CPU
CPU_ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: lambda q, k, v, *_, **__: sdpa_flop_count(q, k, v),
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: (
        lambda grad, q, k, v, *_, **__: sdpa_backward_flop_count(grad, q, k, v)
    ),
}


def matmul_peak(device: torch.device, dtype: torch.dtype) -> float:
    """Best rate in FLOP/s of a matmul of the model's sizes, (5248, 256) @ (256, 1024)."""
    left, right = (
        torch.randn(5248, 256, device=device, dtype=dtype),
        torch.randn(256, 1024, device=device, dtype=dtype),
    )
    seconds = [timed(lambda: [left @ right for _ in range(3)], device) for _ in range(8)]
    return 3 * 2 * 5248 * 256 * 1024 / min(seconds)


def timed(step: Step, device: torch.device) -> float:
    """Seconds of one call, the device's queue included."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def count(step: Step) -> dict[str, int]:
    """Floating-point operations of a call by torch's counter, and the most bytes its tensors took at one moment."""
    with FlopCounterMode(display=False, custom_mapping=CPU_ATTENTION) as operations:
        step()
    with PeakMemory() as memory:  # on its own: the counter of operations keeps what checkpointing would free
        step()
    return {"flop": operations.get_total_flops(), "peak_bytes": memory.peak}


def measure(steps: dict[str, Step], device: torch.device, repeats: int) -> Rows:
    """Count operations and memory of every step, which warms it up, then time all in turns; seconds and bytes."""
    rows: Rows = {name: count(step) for name, step in steps.items() if name != "compiled"}
    if "compiled" in steps:  # which hides its operations from the counters
        rows["compiled"] = {"flop": rows["LoopedGPT2"]["flop"], "peak_bytes": None}
        timed(steps["compiled"], device)
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    started = time.perf_counter()
    for _ in range(repeats):
        for name, step in steps.items():
            seconds[name].append(timed(step, device))
        if time.perf_counter() - started > SECONDS_A_ROW * len(steps):
            break
    for name, all_ in seconds.items():
        rows[name] |= {"median": statistics.median(all_), "min": min(all_), "max": max(all_), "repeats": len(all_)}
    return rows


@torch.no_grad()
def adaptive_loops(model: torch.nn.Module, task_name: str, device: torch.device, repeats: int) -> Rows:
    """Seconds, loops and error at the last point of a trained model by `exit_tolerance`, on 256 prompts."""
    task = make_task(task_name, n_dims=model.config.n_dims)
    n_points = (model.config.n_positions + 1) // 2
    prompts = task.sample(256, make_generator("evaluation", 1), n_points=n_points)
    xs, ys, labels = (prompts[name].to(device) for name in ("xs", "ys", "labels"))
    calls = {f"{n} loops": {"n_loops": n} for n in (model.config.n_loops, LONG_LOOPS)}
    for n in (model.config.n_loops, LONG_LOOPS):
        calls |= {f"at most {n}, tolerance {t}": {"n_loops": n, "exit_tolerance": t} for t in TOLERANCES}
    rows: Rows = {}
    for name, call in calls.items():
        outputs = model(xs, ys, **call)
        used = outputs.n_loops_used.float().mean().item() if "exit_tolerance" in call else call["n_loops"]
        error = (outputs.predictions[:, -1] - labels[:, -1]).square().mean().item() / task.normaliser
        rows[name] = {"mean_loops": used, "error": error}
    timings: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            timings[name].append(timed(lambda call=call: model(xs, ys, **call), device))
    for name, seconds in timings.items():
        rows[name]["median"] = statistics.median(seconds)
    return rows


def draw_scaling(scaling: dict[str, dict[int, dict]], path: Path):
    """Seconds of a training step against loops, points and batch size, ours and the naive loop's."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, len(scaling), figsize=(9, 3.2), layout="constrained", sharey=True)
    for axes, (name, rows) in zip(panels, scaling.items(), strict=True):
        for who, colour in {"LoopedGPT2": "#D55E00", "naive": "#0072B2"}.items():
            axes.plot(list(rows), [row[who]["median"] for row in rows.values()], "o-", color=colour, label=who)
        axes.set_xlabel(name)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("seconds a training step")
    panels[0].set_ylim(bottom=0)
    panels[0].legend(frameon=False)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def print_table(rows: dict[str, Rows], peaks: dict[str, float]):
    """Print every row with its share of the peak of its own precision."""
    heads = {"": 28, "median s": 12, "min": 10, "max": 10, "GFLOP": 10, "of peak": 9, "MB": 9, "naive takes": 13}
    print("".join(f"{head:>{width}}" for head, width in heads.items()))
    for what, timings in rows.items():
        for who, row in timings.items():
            ours = what == "training step" and who in ("LoopedGPT2", "compiled")
            peak = peaks["training" if ours else "float32"]
            share = f"{row['flop'] / row['median'] / peak:.0%}" if row["flop"] else ""
            megabytes = f"{row['peak_bytes'] / 1e6:.1f}" if row["peak_bytes"] else ""
            ratio = f"{timings['naive']['median'] / row['median']:.2f} x" if "naive" in timings else ""
            numbers = f"{row['median']:>12.4f}{row['min']:>10.4f}{row['max']:>10.4f}{row['flop'] / 1e9:>10.1f}"
            print(f"{what:>16}{who:>12}{numbers}{share:>9}{megabytes:>9}{ratio:>13}")


def print_memory(rows: Rows):
    """Print the rows of the memory table."""
    print(f"\n{'memory':>44}{'MB':>9}{'median s':>12}")
    for what, row in rows.items():
        print(f"{what:>44}{row['peak_bytes'] / 1e6:>9.1f}{row['median']:>12.3f}")


def print_adaptive(rows: Rows):
    """Print the rows of the adaptive loops."""
    print(f"\n{'adaptive loops':>32}{'mean loops':>12}{'error':>12}{'median s':>12}")
    for what, row in rows.items():
        print(f"{what:>32}{row['mean_loops']:>12.2f}{row['error']:>12.4g}{row['median']:>12.4f}")


def measure_scaling(arguments: argparse.Namespace, device: torch.device) -> dict[str, dict[int, Rows]]:
    """A training step of ours and of the naive loop at growing loops, points and batch sizes, once each."""
    scaling: dict[str, dict[int, Rows]] = {}
    for name, value in tqdm([(name, value) for name, values in SCALING.items() for value in values], desc="scaling"):
        sizes = argparse.Namespace(**(vars(arguments) | {name: value}))
        steps = Workload(sizes, device).training_steps()
        rows = {who: count(step) for who, step in steps.items()}
        for who, step in steps.items():
            rows[who]["median"] = timed(step, device)
        scaling.setdefault(name, {})[value] = rows
    return scaling


def parse_arguments() -> argparse.Namespace:
    """Read and check the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--output_dir", type=Path, required=True, help="Folder of benchmark.json and scaling.png.")
    parser.add_argument("--against", metavar="MODULE:FUNCTION", help="A training step of your own to time as well.")
    parser.add_argument("--compile", choices=("default", "reduce-overhead"), help="Time a compiled step as well.")
    add_model_arguments(parser, required=False)
    parser.add_argument("--task", choices=TASKS, default="linear_regression", help="Function class of that model.")
    sizes = {"batch_size": 64, "n_dims": 20, "n_points": 41, "n_embd": 256, "n_loops": 30, "loop_window": 15}
    for name, default in (sizes | {"n_queries": 1000, "repeats": 5}).items():
        parser.add_argument(f"--{name}", type=int, default=default, help=f"Default: {default}.")
    arguments = parser.parse_args()
    for name in (*sizes, "n_queries", "repeats"):
        if getattr(arguments, name) < 1:
            parser.error(f"`{name}` must be >= 1, got {getattr(arguments, name)}")
    if arguments.n_embd % N_HEAD:
        parser.error(f"`n_embd` must be a multiple of {N_HEAD}, the heads, got {arguments.n_embd}")
    if arguments.n_points < 3:
        parser.error(f"`n_points` must be >= 3, got {arguments.n_points}")
    if arguments.against:
        module, _, function = arguments.against.partition(":")
        sys.path.insert(0, ".")
        try:
            step = getattr(importlib.import_module(module), function)
        except Exception as error:  # code of the user may raise anything
            parser.error(f"`against` must be module:function, got {arguments.against}: {error!r}")
        if not callable(step):
            parser.error(f"`against` must be a function, got a {type(step).__name__} in {arguments.against}")
        arguments.against = step
    return arguments


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
    peaks = {"float32": matmul_peak(device, torch.float32), "training": matmul_peak(device, workload.precision)}
    repeats = arguments.repeats
    rows = {"training step": measure(workload.training_steps(arguments.compile, arguments.against), device, repeats)}
    with torch.no_grad():
        rows["prediction"] = measure(workload.predictions(), device, repeats)
        rows[f"{arguments.n_queries} queries"] = measure(workload.queries(), device, repeats)
        rows["one more example"] = measure(workload.added_example(), device, repeats)
        rows[f"{N_NEW_TOKENS} new tokens"] = measure(workload.generation(), device, repeats)
    rows["stream batch"] = measure(workload.stream_batches(), device, 20 * repeats)
    print_table(rows, peaks)
    memory = measure(workload.memory(), device, 1)
    print_memory(memory)
    adaptive = adaptive_loops(model, arguments.task, device, repeats) if model is not None else {}
    if adaptive:
        print_adaptive(adaptive)
    scaling = measure_scaling(arguments, device)
    settings |= {"threads": torch.get_num_threads(), "device": device.type, "precision": str(workload.precision)}
    result = {"settings": settings, "peak_flop_per_second": peaks, "seconds": rows, "memory": memory}
    result |= {"adaptive_loops": adaptive, "scaling": scaling}
    write_atomically(arguments.output_dir / "benchmark.json", json.dumps(result, indent=1))
    draw_scaling(scaling, arguments.output_dir / "scaling.png")
    print(f"\nwritten to {arguments.output_dir}")


if __name__ == "__main__":
    main()
