"""Time a training step, a prediction and the data stream beside a naive loop over `transformers.GPT2Model`.

    python scripts/benchmark.py --output_dir runs/benchmark

Both run in one process with the same allocator settings and threads, in turns; each row is the median of the repeats
with their range, the floating-point operations and the share of the matmul peak that this machine reached in the same
run. `--against module:function` adds a callable of your own: it is called with (xs, ys, n_loops, loop_window) and does
one training step. Writes benchmark.json and scaling.png.
"""

import argparse
import importlib
import json
import statistics
import sys
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm
from transformers import GPT2Config, GPT2Model

from modeling_looped_gpt2 import LoopedGPT2Config, LoopedGPT2ForInContextRegression
from scripts.checkpoints import write_atomically
from scripts.devices import fastest_attention, has_bfloat16, prepare_device
from tasks import make_task
from tasks.curriculum import Schedule
from tasks.streams import Stream


Step = Callable[[], Any]
SCALING = {"n_loops": (5, 15, 30), "n_points": (11, 41, 81), "batch_size": (16, 64, 128)}


class NaiveLoop(nn.Module):
    """The looped model of stock parts alone: `GPT2Model` called in a Python loop, everything at its default."""

    def __init__(self, config: LoopedGPT2Config):
        super().__init__()
        no_dropout = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
        sizes = {name: getattr(config, name) for name in ("n_layer", "n_head", "n_embd", "n_positions")}
        self.read_in = nn.Linear(config.n_dims, config.n_embd)
        self.transformer = GPT2Model(
            GPT2Config(vocab_size=1, eos_token_id=None, bos_token_id=None, **sizes, **no_dropout)
        )
        self.read_out = nn.Linear(config.n_embd, 1)

    def forward(self, xs: torch.Tensor, ys: torch.Tensor, n_loops: int, loop_window: int) -> torch.Tensor:
        """Predictions `(batch, loop_window, n_points)` after each of the last loops."""
        values = nn.functional.pad(ys.unsqueeze(-1), (0, xs.shape[-1] - 1))
        prompt = self.read_in(torch.stack((xs, values), dim=2).flatten(1, 2))
        state, predictions = torch.zeros_like(prompt), []
        for loop in range(n_loops):
            with torch.set_grad_enabled(loop >= n_loops - loop_window and torch.is_grad_enabled()):
                state = self.transformer(inputs_embeds=state + prompt).last_hidden_state
            if loop >= n_loops - loop_window:
                predictions.append(self.read_out(state)[:, ::2, 0])
        return torch.stack(predictions, dim=1)


class Workload:
    """One size: the prompts of a batch and the steps to be timed on them."""

    def __init__(self, sizes: argparse.Namespace, device: torch.device, against: Callable | None):
        self.sizes, self.device, self.against = sizes, device, against
        self.task = make_task("linear_regression", sizes.n_dims)
        prompts = self.task.sample(sizes.batch_size, sizes.n_points, torch.Generator().manual_seed(0))
        self.xs, self.ys = prompts["xs"].to(device), prompts["ys"].to(device)
        config = LoopedGPT2Config(n_dims=sizes.n_dims, n_positions=2 * sizes.n_points, n_embd=sizes.n_embd)
        self.model = LoopedGPT2ForInContextRegression(config).to(device)
        self.model.set_attn_implementation(fastest_attention(device))
        self.naive = NaiveLoop(config).to(device)
        self.precision = torch.bfloat16 if has_bfloat16(device) else torch.float32

    def training_steps(self) -> dict[str, Step]:
        """A training step of the project, of the naive loop in float32 and of the callable given."""
        loops = (self.sizes.n_loops, min(self.sizes.loop_window, self.sizes.n_loops))
        ours = torch.optim.AdamW(self.model.parameters(), lr=1e-4, fused=True)
        theirs = torch.optim.Adam(self.naive.parameters(), lr=1e-4)

        def step():
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == torch.bfloat16):
                loss = self.model(self.xs, self.ys, labels=self.ys, n_loops=loops[0], loop_window=loops[1]).loss
            loss.backward()
            ours.step()
            ours.zero_grad()

        def naive_step():
            (self.naive(self.xs, self.ys, *loops) - self.ys.unsqueeze(1)).square().mean().backward()
            theirs.step()
            theirs.zero_grad()

        steps = {"LoopedGPT2": step, "naive": naive_step}
        if self.against:
            steps["against"] = lambda: self.against(self.xs, self.ys, *loops)
        return steps

    def predictions(self) -> dict[str, Step]:
        """A prediction after all loops, without gradient, in float32."""
        n_loops = self.sizes.n_loops
        return {
            "LoopedGPT2": torch.no_grad()(lambda: self.model(self.xs, self.ys, n_loops=n_loops)),
            "naive": torch.no_grad()(lambda: self.naive(self.xs, self.ys, n_loops, 1)),
        }

    def stream_batches(self) -> dict[str, Step]:
        """One batch of the training stream as the trainer reads it."""
        sizes = self.sizes
        full = (Schedule(sizes.n_points, sizes.n_points), Schedule(sizes.n_dims, sizes.n_dims))
        batches = iter(DataLoader(Stream(self.task, sizes.batch_size, *full, seed=0).iterable(), batch_size=None))
        return {"LoopedGPT2": lambda: list(islice(batches, 1))}


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


def measure(steps: dict[str, Step], device: torch.device, repeats: int) -> dict[str, dict[str, float]]:
    """Count the operations of every step, which warms it up, then time all in turns; median and range in seconds."""
    operations = {}
    for name, step in steps.items():
        with FlopCounterMode(display=False) as counter:
            step()
        operations[name] = counter.get_total_flops()
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(repeats):
        for name, step in steps.items():
            seconds[name].append(timed(step, device))
    return {
        name: {"median": statistics.median(all_), "min": min(all_), "max": max(all_), "flop": operations[name]}
        for name, all_ in seconds.items()
    }


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


def print_table(rows: dict[str, dict[str, dict]], peaks: dict[str, float]):
    """Print every row with its share of the peak of its own precision."""
    print(f"{'':>16}{'':>12}{'median s':>12}{'min':>10}{'max':>10}{'GFLOP':>10}{'of peak':>9}")
    for what, timings in rows.items():
        for who, row in timings.items():
            peak = peaks["training" if (what, who) == ("training step", "LoopedGPT2") else "float32"]
            share = f"{row['flop'] / row['median'] / peak:.0%}" if row["flop"] else ""
            numbers = f"{row['median']:>12.4f}{row['min']:>10.4f}{row['max']:>10.4f}{row['flop'] / 1e9:>10.1f}"
            print(f"{what:>16}{who:>12}{numbers}{share:>9}")


def parse_arguments() -> argparse.Namespace:
    """Read and check the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--output_dir", type=Path, required=True, help="Folder of benchmark.json and scaling.png.")
    parser.add_argument("--against", metavar="MODULE:FUNCTION", help="A training step of your own to time as well.")
    sizes = {"batch_size": 64, "n_dims": 20, "n_points": 41, "n_embd": 256, "n_loops": 30, "loop_window": 15}
    for name, default in (sizes | {"repeats": 5}).items():
        parser.add_argument(f"--{name}", type=int, default=default, help=f"Default: {default}.")
    arguments = parser.parse_args()
    for name in (*sizes, "repeats"):
        if getattr(arguments, name) < 1:
            parser.error(f"`{name}` must be >= 1, got {getattr(arguments, name)}")
    if arguments.against:
        module, _, function = arguments.against.partition(":")
        sys.path.insert(0, ".")
        try:
            arguments.against = getattr(importlib.import_module(module), function)
        except (ImportError, AttributeError, ValueError) as error:
            parser.error(f"`against` must be module:function, got {arguments.against}: {error}")
    return arguments


def main():
    """Measure, print, write."""
    arguments = parse_arguments()
    device = prepare_device()
    workload = Workload(arguments, device, arguments.against)
    peaks = {"float32": matmul_peak(device, torch.float32), "training": matmul_peak(device, workload.precision)}
    rows = {
        "training step": measure(workload.training_steps(), device, arguments.repeats),
        "prediction": measure(workload.predictions(), device, arguments.repeats),
        "stream batch": measure(workload.stream_batches(), device, 20 * arguments.repeats),
    }
    print_table(rows, peaks)
    scaling: dict[str, dict[int, dict]] = {}
    for name, value in tqdm([(name, value) for name, values in SCALING.items() for value in values], desc="scaling"):
        sizes = argparse.Namespace(**(vars(arguments) | {name: value}))
        steps = Workload(sizes, device, None).training_steps()
        scaling.setdefault(name, {})[value] = measure(steps, device, 1)
    arguments.output_dir.mkdir(parents=True, exist_ok=True)
    settings = {name: getattr(arguments, name) for name in (*SCALING, "n_dims", "n_embd", "loop_window", "repeats")}
    settings |= {"threads": torch.get_num_threads(), "device": device.type, "precision": str(workload.precision)}
    result = {"settings": settings, "peak_flop_per_second": peaks, "seconds": rows, "scaling": scaling}
    write_atomically(arguments.output_dir / "benchmark.json", json.dumps(result, indent=1))
    draw_scaling(scaling, arguments.output_dir / "scaling.png")
    print(f"\nwritten to {arguments.output_dir}")


if __name__ == "__main__":
    main()
