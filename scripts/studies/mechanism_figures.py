"""The figures of the study of mechanisms: of a cell, and of all in a table and a picture."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter

from scripts.benchmarks.peak_memory import PeakMemory
from scripts.benchmarks.timing import timed
from scripts.common.records import write_atomically
from scripts.evaluation.axes import FLOOR, LOGARITHMIC, save
from scripts.studies.grid import SEEDS
from scripts.studies.mechanisms import BASE, MECHANISMS, PROBLEMS
from scripts.studies.study_run import StudyRun
from scripts.training.cost import training_flops
from tasks.streams import make_generator


N_PROMPTS = 1024
N_TIMED = 5
Figures = dict[str, Any]
# at which loops errors are measured, in parts of those trained, and how they are drawn
LOOPS = {"half the loops": 0.5, "as trained": 1, "4 x the loops": 4}
STYLES = {"half the loops": ("<", "#56B4E9"), "as trained": ("o", "#000000"), "4 x the loops": (">", "#D55E00")}
HEADINGS = ("problem", "mechanism", *LOOPS, "seeds", "parameters", "steps", "TFLOP", "ms a step", "MB a step")
# the last columns, and what a figure is multiplied by to be in their units
UNITS = {"flops": 1e-12, "seconds": 1e3, "peak_bytes": 1e-6}


def measure_cell(run: StudyRun, device: torch.device) -> Figures:
    """
    The figures of a trained cell.

    Returns:
        `dict`: `"error"`, by entry of `LOOPS` the score at the task's last place, and its `"score_name"`;
        `"n_parameters"`; `"n_steps"` and `"flops"` of the training; `"seconds"` and `"peak_bytes"` of a forward and a
        backward pass on a batch with all loops.
    """
    model, task = run.load_model(device), run.task
    prompts = task.sample(N_PROMPTS, make_generator("mechanisms", 1))
    n_loops, error = model.config.n_loops, {}
    for name, part in LOOPS.items():
        if n_loops > 1 or part == 1:  # the blocks of a standard transformer run once
            scores = task.score(run.answers(model, prompts, int(part * n_loops)), prompts)
            error[name] = float(np.nanmean(scores[:, -1]))
    arguments = run.arguments
    batch = task.sample(arguments.optimization.batch_size, make_generator("mechanisms", 2))
    batch = {name: values.to(device) for name, values in batch.items()}
    window = arguments.loops.loop_window

    def step():
        model.zero_grad()
        loss, _ = arguments.objective(model, batch, {"n_loops": n_loops, "loop_window": window})
        loss.backward()

    model.train()
    with PeakMemory() as memory:
        step()
    return {
        "score_name": task.score_name,
        "error": error,
        "n_parameters": model.num_parameters(),
        "n_steps": arguments.optimization.max_steps,
        "flops": training_flops(arguments),
        "seconds": statistics.median(seconds_of(step, device) for _ in range(N_TIMED)),
        "peak_bytes": memory.peak,
    }


def seconds_of(step: Callable[[], None], device: torch.device) -> float:
    """Seconds of a call: on a CPU those that its threads computed, which others on the machine do not disturb."""
    if device.type != "cpu":
        return timed(step, device)
    before = time.process_time()
    step()
    return time.process_time() - before


def seeds_of(cells: Mapping[str, Figures], problem: str, mechanism: str) -> dict[int, Figures]:
    """The figures that are there, by seed."""
    names = {seed: f"{problem}/{mechanism}/{seed}" for seed in SEEDS}
    return {seed: cells[name] for seed, name in names.items() if name in cells}


def errors_of(seeds: Mapping[int, Figures], loops: str) -> list[float]:
    """The errors of all seeds at these loops, none where the mechanism has no such loops."""
    return [figures["error"][loops] for figures in seeds.values() if loops in figures["error"]]


def mark(seeds: Mapping[int, Figures], base: Mapping[int, Figures], loops: str) -> str:
    """`" +"` where the error is below that of the base model with each of all seeds, `" -"` where it is above."""
    theirs, ours = errors_of(base, loops), errors_of(seeds, loops)
    if len(theirs) == len(ours) == len(SEEDS):
        pairs = list(zip(ours, theirs, strict=True))
        if all(our < their for our, their in pairs):
            return " +"
        if all(our > their for our, their in pairs):
            return " -"
    return ""


def write_cells(cells: Mapping[str, Figures], output_dir: Path):
    """Write the table, `study.md`, and the picture of all figures that are there."""
    write_atomically(output_dir / "study.md", table(cells))
    plot_cells(cells, output_dir)


def table(cells: Mapping[str, Figures]) -> str:
    """All figures that are there as a table in Markdown, a row for every problem and mechanism."""
    lines = [HEADINGS, ["---"] * len(HEADINGS)]
    for problem, (title, *_) in PROBLEMS.items():
        base = seeds_of(cells, problem, BASE)
        for name, mechanism in MECHANISMS.items():
            seeds = seeds_of(cells, problem, name)
            errors = [spread(errors_of(seeds, loops)) + mark(seeds, base, loops) for loops in LOOPS]
            lines.append([title, mechanism.title, *errors, f"{len(seeds)} of {len(SEEDS)}", *costs(seeds)])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def spread(errors: list[float]) -> str:
    """The mean of errors with the least and the greatest."""
    return f"{statistics.mean(errors):.3g} ({min(errors):.3g} to {max(errors):.3g})" if errors else ""


def costs(seeds: Mapping[int, Figures]) -> list[str]:
    """What a mechanism costs, the last columns of its row."""
    if not seeds:
        return [""] * 5
    mean = {
        name: statistics.mean(figures[name] for figures in seeds.values())
        for name in ("n_parameters", "n_steps", *UNITS)
    }
    counts = [f"{mean[name]:,.0f}" for name in ("n_parameters", "n_steps")]
    return [
        *counts,
        *(f"{value:.3g}" for value in (mean["flops"] / 1e12, 1e3 * mean["seconds"], mean["peak_bytes"] / 1e6)),
    ]


def plot_cells(cells: Mapping[str, Figures], output_dir: Path):
    """Plot all errors that are there: a panel for every problem, a line in it for every mechanism, a dot per seed."""
    figure, panels = plt.subplots(1, len(PROBLEMS), figsize=(11, 6), layout="constrained", sharey=True)
    for axes, (problem, (title, *_)) in zip(panels, PROBLEMS.items(), strict=True):
        rows = [seeds_of(cells, problem, mechanism) for mechanism in MECHANISMS]
        scores = {figures["score_name"] for seeds in rows for figures in seeds.values()}
        if scores & LOGARITHMIC.keys():
            axes.set_xscale("log")
            axes.xaxis.set_minor_formatter(NullFormatter())
        plot_rows(axes, rows)
        axes.set(title=title, xlabel=", ".join(LOGARITHMIC.get(score, score) for score in scores))
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25, linewidth=0.6)
    panels[0].set_yticks(range(len(MECHANISMS)), [mechanism.title for mechanism in MECHANISMS.values()], fontsize=8)
    panels[0].invert_yaxis()
    handles = [
        Line2D([], [], ls="", marker=mark, color=colour, label=loops) for loops, (mark, colour) in STYLES.items()
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(STYLES), fontsize=8, frameon=False)
    save(figure, "study", output_dir)


def plot_rows(axes: Axes, rows: Sequence[Mapping[int, Figures]]):
    """Plot the errors of every seed and a stroke at their mean; a dotted line is the base model's as trained."""
    for loops, (marker, colour) in STYLES.items():
        errors = [[max(error, FLOOR) for error in errors_of(seeds, loops)] for seeds in rows]
        dots = [(error, row) for row, ours in enumerate(errors) for error in ours]
        means = [(statistics.mean(ours), row) for row, ours in enumerate(errors) if ours]
        for points, style in ((dots, {"marker": marker, "alpha": 0.6}), (means, {"marker": "|", "markersize": 11})):
            axes.plot(*zip(*points, strict=True) if points else ([], []), ls="", color=colour, **style)
    base = errors_of(rows[list(MECHANISMS).index(BASE)], "as trained")
    if base:
        axes.axvline(max(statistics.mean(base), FLOOR), color="#666666", linestyle=":", linewidth=1)
