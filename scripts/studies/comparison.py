"""Models that differ in one thing: measured on the same prompts and plotted together."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib import pyplot as plt

from scripts.evaluation.axes import FLOOR, finish, loop_axis, plot_curve
from scripts.studies.study_run import StudyRun
from tasks import Task
from tasks.guidance import misnamed
from tasks.metrics import curve_of
from tasks.streams import make_generator


N_PROMPTS = 256
# Okabe and Ito's colours; variants beyond them come again with dashes
COLOURS = ("#D55E00", "#0072B2", "#009E73", "#E69F00", "#56B4E9", "#CC79A7", "#000000", "#999999")


def measured_tasks(name: str, task: Task) -> dict[str, Task]:
    """
    What the model of a variant is measured on, by the name of the curve: its task, or each component of a mixture.

    Components that prompts name are also measured with the name of another.
    """
    if not task.components:
        return {name: task}
    names = list(task.components)
    wrong = {f"{part}, called {names[each.number]}": each for part, each in misnamed(task.components).items()}
    return {f"{part}, {name}": component for part, component in task.components.items()} | wrong


def measure_variant(run: StudyRun, task: Task, device: torch.device) -> dict[str, Any]:
    """Measure a trained model: errors by example, and at the last point after 1 to 5 times the trained loops."""
    model = run.load_model(device)
    prompts = task.sample(N_PROMPTS, make_generator("study", 1))
    n_loops = model.config.n_loops
    by_loop = run.answers(model, prompts, 5 * n_loops if n_loops > 1 else 1, every_loop=True)
    errors = np.stack([task.score(by_loop[:, loop], prompts) for loop in range(by_loop.shape[1])], axis=1)
    return {
        "n_loops": n_loops,
        "n_parameters": model.num_parameters(),
        "error_by_example": curve_of(errors[:, n_loops - 1]),
        "error_by_loop": curve_of(errors[:, :, -1]),
    }


def plot_variants(title: str, variants: dict[str, dict[str, Any]], output_dir: Path):
    """Plot errors by example on the left, by loop on the right, with 90% intervals; a dot marks the trained loops."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4.2), layout="constrained", sharey=True)
    for number, (name, measured) in enumerate(variants.items()):
        colour, dashes = COLOURS[number % len(COLOURS)], "--" if number >= len(COLOURS) else "-"
        plot_curve(left, 0, measured["error_by_example"], ls=dashes, color=colour, label=name)
        plot_curve(right, 1, measured["error_by_loop"], ls=dashes, color=colour)
        as_trained = max(measured["error_by_loop"]["error"][measured["n_loops"] - 1], FLOOR)
        right.plot([measured["n_loops"]], [as_trained], "o", color=colour, markersize=4)
    left.set_xlabel("in-context examples")
    left.xaxis.get_major_locator().set_params(integer=True)
    loop_axis(right, max(len(measured["error_by_loop"]["error"]) for measured in variants.values()))
    right.set_xlabel("loops (dot: as trained)")
    left.set_ylabel("squared error / normaliser")
    for axes in (left, right):
        finish(axes)
    ncols = 4 if max(map(len, variants)) <= 30 else 2
    legend = {"loc": "outside lower center", "ncols": ncols, "fontsize": 8, "frameon": False}
    figure.legend(*left.get_legend_handles_labels(), **legend)
    figure.suptitle(title, fontsize=10)
    for suffix in ("png", "svg"):
        figure.savefig(output_dir / f"study.{suffix}", dpi=150)
    plt.close(figure)


def print_variants(variants: dict[str, dict[str, Any]]):
    """Print the errors at the last point after the trained loops, after the best number and after the most."""
    width = max(24, *map(len, variants))
    print(f"\n{'variant':>{width}}{'as trained':>12}{'best loop':>12}{'5 x loops':>12}   error at the last point")
    for name, measured in variants.items():
        errors = measured["error_by_loop"]["error"]
        shown = (errors[measured["n_loops"] - 1], min(errors), errors[-1])
        print(f"{name:>{width}}" + "".join(f"{error:>12.3g}" for error in shown))
