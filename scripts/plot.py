"""Draw a metrics.json: the error by number of examples and by loop (figure 2 of Yang et al.), and under every shift.

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
from matplotlib.figure import Figure


# Okabe and Ito's colours, told apart with any colour vision; curves of one colour differ in their dashes
COLOURS = {
    "model": "#D55E00",
    "least squares": "#000000",
    "3-nearest neighbours": "#0072B2",
    "averaging": "#009E73",
    "zero": "#999999",
    "ridge": "#56B4E9",
    "Lasso, alpha 0.01": "#CC79A7",
    "greedy tree": "#E69F00",
    "greedy tree, signs": "#E69F00",
    "XGBoost": "#CC79A7",
    "XGBoost, signs": "#CC79A7",
    "2-layer network": "#CC79A7",
    "looped transformer, published": "#D55E00",
    "standard transformer, published": "#666666",
}
STYLES = {
    "model": "-",
    "3-nearest neighbours": "-.",
    "averaging": ":",
    "zero": ":",
    "greedy tree, signs": ":",
    "XGBoost, signs": "-.",
    "looped transformer, published": (0, (1, 3)),
    "standard transformer, published": (0, (1, 3)),
}
FLOOR = 1e-5  # an exact solver's error is round-off; below this the axis would show nothing else


def finish(axes: Axes):
    """The style that all pictures share."""
    axes.set_yscale("log")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, linewidth=0.6)


def shade_limit(axes: Axes, limit: list[float]):
    """Shade what no predictor reaches."""
    top = [max(error, FLOOR / 10) for error in limit]
    axes.fill_between(range(len(top)), top, FLOOR / 10, color="#E6E6E6", linewidth=0, label="below the limit")


def draw_by_example(axes: Axes, metrics: dict[str, Any]):
    """Error after every number of examples, with 90% intervals; of the Lasso only the alpha of the paper."""
    settings = metrics["settings"]
    curves = metrics["error_by_example"] | {
        f"{name}, published": curve for name, curve in metrics.get("published", {}).items()
    }
    if "limit" in metrics:
        shade_limit(axes, metrics["limit"]["error"])
    for name in sorted(curves.keys() & COLOURS.keys(), key=list(COLOURS).index):
        curve = curves[name]
        label = f"looped model, {settings['n_loops']} loops" if name == "model" else name
        examples = range(len(curve["error"]))
        axes.plot(examples, curve["error"], ls=STYLES.get(name, "--"), color=COLOURS[name], label=label, linewidth=1.8)
        if "low" in curve and "published" not in name:
            axes.fill_between(examples, curve["low"], curve["high"], color=COLOURS[name], alpha=0.2, linewidth=0)
    trained = settings.get("n_points_trained") or settings["n_points"]
    if trained < settings["n_points"]:
        axes.axvline(trained - 1, color="#666666", linestyle="--", linewidth=1, label="longest trained prompt")
    axes.set_xlabel("in-context examples")
    axes.set_xlim(0, settings["n_points"] - 1)


def draw_by_loop(axes: Axes, metrics: dict[str, Any]):
    """Error at the last point after every loop, the trained count marked."""
    errors = metrics["error_by_loop"]["last_point"]
    n_examples = metrics["settings"]["n_points"] - 1
    axes.plot(range(1, len(errors) + 1), errors, color=COLOURS["model"], linewidth=1.8, label=f"{n_examples} examples")
    axes.axvline(metrics["settings"]["n_loops"], color="#666666", linestyle="--", linewidth=1, label="trained loops")
    axes.set_xlabel("loops")
    axes.set_xlim(1, max(2, len(errors)))
    axes.legend(fontsize=8, frameon=False)


def error_figure(metrics: dict[str, Any]) -> Figure:
    """Both curves side by side."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4.2), layout="constrained", sharey=True)
    draw_by_example(left, metrics)
    draw_by_loop(right, metrics)
    for axes in (left, right):
        finish(axes)
    lowest = min(metrics["error_by_example"]["model"]["low"] + metrics["error_by_loop"]["last_point"])
    left.set_ylim(max(FLOOR, lowest / 3), 5)
    left.set_ylabel("squared error / normaliser")
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    figure.suptitle(f"{metrics['settings']['task'].replace('_', ' ')}, {metrics['settings']['n_dims']} dimensions")
    return figure


def shift_figure(metrics: dict[str, Any]) -> Figure:
    """One small picture a shift, all on one scale: the model, the limit, baselines, and the published model."""
    shifts = metrics["shifts"]
    n_columns = 4
    n_rows = -(-len(shifts) // n_columns)
    figure, grid = plt.subplots(
        n_rows, n_columns, figsize=(9, 2.1 * n_rows), layout="constrained", sharex=True, sharey=True, squeeze=False
    )
    for axes, (shift, curves) in zip(grid.flat, shifts.items(), strict=False):
        shade_limit(axes, curves["limit"]["error"])
        for name in [name for name in COLOURS if name in curves]:
            curve = curves[name]
            examples = range(len(curve["error"]))
            axes.plot(examples, curve["error"], ls=STYLES.get(name, "--"), color=COLOURS[name], label=name)
        published = metrics.get("published_shifts", {}).get(shift)
        if published:
            values = [float("nan") if error is None else error for error in published["error"]]
            name = "standard transformer, published"
            axes.plot(values, ls=STYLES[name], color=COLOURS[name], label=name)
        axes.set_title(shift.replace("_", " "), fontsize=9)
        finish(axes)
        axes.set_ylim(1e-3, 20)
        axes.set_xlim(0, metrics["settings"]["n_points"] - 1)
        axes.xaxis.get_major_locator().set_params(integer=True)
    for axes in grid.flat[len(shifts) :]:
        axes.axis("off")
    figure.supxlabel("in-context examples", fontsize=9)
    figure.supylabel("squared error / normaliser", fontsize=9)
    figure.legend(
        *grid[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=4, fontsize=8, frameon=False
    )
    return figure


def figures(metrics: dict[str, Any]) -> dict[str, Figure]:
    """Every picture of the metrics, by the name of its file."""
    return {"error": error_figure(metrics)} | ({"shifts": shift_figure(metrics)} if metrics.get("shifts") else {})


def draw(metrics: dict[str, Any], output_dir: Path) -> list[Path]:
    """Draw all pictures; returns the PNG and the SVG of each that were written."""
    output_dir.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, figure in figures(metrics).items():
        for suffix in ("png", "svg"):
            paths.append(output_dir / f"{name}.{suffix}")
            figure.savefig(paths[-1], dpi=150)
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
    parser.add_argument("--output_dir", type=Path, required=True, help="Folder the pictures are written to.")
    arguments = parser.parse_args()
    try:
        paths = draw(read_metrics(arguments.metrics), arguments.output_dir)
    except (OSError, ValueError) as error:
        sys.exit(f"plot.py: error: {error}")
    print(*paths, sep="\n")


if __name__ == "__main__":
    main()
