"""How a training step grows with loops, points and batch size."""

import argparse
from pathlib import Path

import matplotlib
import torch
from tqdm import tqdm

from scripts.benchmarks.timing import Rows, count_operations, timed
from scripts.benchmarks.workloads import Workload


matplotlib.use("Agg")

import matplotlib.pyplot as plt


SCALING = {"n_loops": (5, 15, 30), "n_points": (11, 41, 81), "batch_size": (16, 64, 128)}


def benchmark_scaling(sizes: argparse.Namespace, device: torch.device) -> dict[str, dict[int, Rows]]:
    """Time a training step of ours and of the naive loop at growing loops, points and batch sizes, once each."""
    scaling: dict[str, dict[int, Rows]] = {name: {} for name in SCALING}
    for name, value in tqdm([(name, value) for name, values in SCALING.items() for value in values], desc="scaling"):
        steps = Workload(argparse.Namespace(**(vars(sizes) | {name: value})), device).training_steps()
        rows = {who: count_operations(step) for who, step in steps.items()}
        scaling[name][value] = {who: rows[who] | {"median": timed(step, device)} for who, step in steps.items()}
    return scaling


def plot_scaling(scaling: dict[str, dict[int, Rows]], path: Path):
    """Plot the seconds of a training step against loops, points and batch size, ours and the naive loop's."""
    figure, panels = plt.subplots(1, len(scaling), figsize=(9, 3.2), layout="constrained", sharey=True)
    for axes, (name, rows) in zip(panels, scaling.items(), strict=True):
        for who, colour in {"LoopedGPT2": "#D55E00", "naive": "#0072B2"}.items():
            axes.plot(list(rows), [row[who]["median"] for row in rows.values()], "o-", color=colour, label=who)
        axes.set_xlabel(name)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("seconds per training step")
    panels[0].set_ylim(bottom=0)
    panels[0].legend(frameon=False)
    figure.savefig(path, dpi=150)
    plt.close(figure)
