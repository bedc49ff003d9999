"""Draw the error by number of examples and by loop from a metrics.json, as Figure 2 of Yang et al. does.

python scripts/plot.py --metrics runs/linear/metrics.json --output_dir runs/linear
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import matplotlib


matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes


# Okabe and Ito's colours, told apart with any colour vision
COLOURS = {
    "model": "#D55E00",
    "least squares": "#000000",
    "3-nearest neighbours": "#0072B2",
    "averaging": "#009E73",
    "zero": "#999999",
}
STYLES = {"model": "-", "least squares": "--", "3-nearest neighbours": "-.", "averaging": ":", "zero": ":"}
FLOOR = 1e-5  # an exact solver's error is round-off; below this the axis would show nothing else


def draw_by_example(axes: Axes, metrics: dict[str, Any]):
    """Error after every number of examples, with 90% intervals."""
    for name, curve in metrics["error_by_example"].items():
        label = f"looped model, {metrics['settings']['n_loops']} loops" if name == "model" else name
        examples = range(len(curve["error"]))
        axes.plot(examples, curve["error"], STYLES[name], color=COLOURS[name], label=label, linewidth=1.8)
        axes.fill_between(examples, curve["low"], curve["high"], color=COLOURS[name], alpha=0.2, linewidth=0)
    axes.set_xlabel("in-context examples")
    axes.set_xlim(0, metrics["settings"]["n_points"] - 1)


def draw_by_loop(axes: Axes, metrics: dict[str, Any]):
    """Error at the last point after every loop, the trained count marked."""
    errors = metrics["error_by_loop"]["last_point"]
    n_examples = metrics["settings"]["n_points"] - 1
    axes.plot(range(1, len(errors) + 1), errors, color=COLOURS["model"], linewidth=1.8, label=f"{n_examples} examples")
    axes.axvline(metrics["settings"]["n_loops"], color="#666666", linestyle="--", linewidth=1, label="trained loops")
    axes.set_xlabel("loops")
    axes.set_xlim(1, max(2, len(errors)))
    axes.legend(fontsize=8, frameon=False)


def draw(metrics: dict[str, Any], output_dir: Path) -> list[Path]:
    """Draw both curves side by side; returns the PNG and the SVG written."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.9), layout="constrained", sharey=True)
    draw_by_example(left, metrics)
    draw_by_loop(right, metrics)
    for axes in (left, right):
        axes.set_yscale("log")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25, linewidth=0.6)
    lowest = min(metrics["error_by_example"]["model"]["low"] + metrics["error_by_loop"]["last_point"])
    left.set_ylim(max(FLOOR, lowest / 3), 5)
    left.set_ylabel("squared error / normaliser")
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=5, fontsize=8, frameon=False)
    figure.suptitle(f"{metrics['settings']['task'].replace('_', ' ')}, {metrics['settings']['n_dims']} dimensions")
    output_dir.mkdir(parents=True, exist_ok=True)
    paths = [output_dir / f"error.{suffix}" for suffix in ("png", "svg")]
    for path in paths:
        figure.savefig(path, dpi=150)
    plt.close(figure)
    return paths


def read_metrics(path: Path) -> dict[str, Any]:
    """Read a metrics.json; raises `ValueError` when it is something else."""
    try:
        metrics = json.loads(path.read_bytes())
        complete = {"settings", "error_by_example", "error_by_loop"} <= metrics.keys()
    except (ValueError, AttributeError):
        complete = False
    if not complete:
        raise ValueError(f"{path} is not the output of scripts/evaluate.py")
    return metrics


def main():
    """Read the metrics and draw them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--metrics", type=Path, required=True, help="metrics.json written by scripts/evaluate.py.")
    parser.add_argument(
        "--output_dir", type=Path, required=True, help="Folder error.png and error.svg are written to."
    )
    arguments = parser.parse_args()
    try:
        paths = draw(read_metrics(arguments.metrics), arguments.output_dir)
    except (OSError, ValueError) as error:
        sys.exit(f"plot.py: error: {error}")
    print(*paths, sep="\n")


if __name__ == "__main__":
    main()
