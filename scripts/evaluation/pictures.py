"""The pictures of a metrics.json: the error by number of examples, by loop and under every shift."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib


matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator, StrMethodFormatter


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
FLOOR = 1e-5  # an exact solver's error is round-off: it is drawn here, and the axis shows what else there is
MANY_LOOPS = 40  # beyond them loops are drawn on a logarithmic axis: the first ones change most


def plain(text: str) -> str:
    """Text as a figure shows it letter by letter: no mathematics between dollar signs, no control characters."""
    return "".join(letter for letter in text if letter.isprintable()).replace("$", r"\$")


def finish(axes: Axes):
    """The style that all pictures share."""
    axes.set_yscale("log")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, linewidth=0.6)


def draw_curve(axes: Axes, first: int, curve: dict[str, Sequence[float]], floor: float = FLOOR, **style: Any):
    """
    Draw errors at `first`, `first` + 1, ... for a logarithmic axis, with their 90% interval where there is one.

    Args:
        axes (`Axes`):
            Where to draw.
        first (`int`):
            Place of the first error.
        curve (`dict`):
            `"error"`, and maybe `"low"` and `"high"`. A single error is drawn as a dot, its interval as a bar.
        floor (`float`, defaults to 1e-5):
            What is below is drawn there.
        style:
            That of the line, as `Axes.plot` takes it.
    """
    places = range(first, first + len(curve["error"]))
    raised = {part: [max(error, floor) for error in curve[part]] for part in ("error", "low", "high") if part in curve}
    is_dot = len(places) == 1
    axes.plot(places, raised["error"], marker="o" if is_dot else None, **style)
    if "low" in raised and is_dot:
        axes.vlines(places, raised["low"], raised["high"], color=style["color"], alpha=0.5)
    elif "low" in raised:
        axes.fill_between(places, raised["low"], raised["high"], color=style["color"], alpha=0.2, linewidth=0)


def set_span(axes: Axes, first: int, last: int):
    """Show the places from `first` to `last`; a single one stands in the middle."""
    axes.set_xlim(*((first, last) if last > first else (first - 0.5, first + 0.5)))


def loop_axis(axes: Axes, n_loops: int):
    """An axis of 1, 2, ... loops, logarithmic where there are many; its ticks are plain numbers."""
    axes.set_xlabel("loops")
    if n_loops <= MANY_LOOPS:
        set_span(axes, 1, n_loops)
        axes.xaxis.get_major_locator().set_params(integer=True)
        return
    axes.set_xscale("log")
    axes.set_xlim(1, n_loops)
    steps = [step * 10**power for power in range(len(str(n_loops))) for step in (1, 2, 5)]
    axes.xaxis.set_major_locator(FixedLocator([step for step in steps if step <= n_loops]))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:.0f}"))
    axes.xaxis.set_minor_locator(NullLocator())


def shade_limit(axes: Axes, limit: list[float], floor: float = FLOOR):
    """Shade what no predictor reaches."""
    top = [max(error, floor / 10) for error in limit]
    axes.fill_between(range(len(top)), top, floor / 10, color="#E6E6E6", linewidth=0, label="below the limit")


def draw_by_example(axes: Axes, metrics: dict[str, Any]):
    """Error after every number of examples, with 90% intervals; of the Lasso only the alpha of the paper."""
    settings = metrics["settings"]
    curves = metrics["error_by_example"] | {
        f"{name}, published": {"error": curve["error"]} for name, curve in metrics["published"].items()
    }
    if "limit" in metrics:
        shade_limit(axes, metrics["limit"]["error"])
    for name in sorted(curves.keys() & COLOURS.keys(), key=list(COLOURS).index):
        label = f"looped model, {settings['n_loops']} loops" if name == "model" else name
        style = {"ls": STYLES.get(name, "--"), "color": COLOURS[name], "linewidth": 1.8}
        draw_curve(axes, 0, curves[name], label=label, **style)
    trained = settings.get("n_points_trained") or settings["n_points"]
    if trained < settings["n_points"]:
        axes.axvline(trained - 1, color="#666666", linestyle="--", linewidth=1, label="longest trained prompt")
    axes.set_xlabel("in-context examples")
    set_span(axes, 0, settings["n_points"] - 1)
    axes.xaxis.get_major_locator().set_params(integer=True)


def draw_by_loop(axes: Axes, metrics: dict[str, Any]):
    """Error at the last point after every loop, the trained count marked."""
    settings, errors = metrics["settings"], metrics["error_by_loop"]["last_point"]
    label = f"{settings['n_points'] - 1} examples"
    draw_curve(axes, 1, {"error": errors}, color=COLOURS["model"], linewidth=1.8, label=label)
    axes.axvline(settings["n_loops"], color="#666666", linestyle="--", linewidth=1, label="trained loops")
    loop_axis(axes, len(errors))
    axes.legend(fontsize=8, frameon=False)


def error_figure(metrics: dict[str, Any]) -> Figure:
    """Both curves side by side."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4.2), layout="constrained", sharey=True)
    draw_by_example(left, metrics)
    draw_by_loop(right, metrics)
    for axes in (left, right):
        finish(axes)
    curve, by_loop = metrics["error_by_example"]["model"], metrics["error_by_loop"]["last_point"]
    bottom = max(FLOOR / 2, min(curve["low"] + by_loop) / 3)
    # the model is always seen, also one whose errors are all below or above what is usual
    left.set_ylim(bottom, max(5, 3 * min(curve["error"]), 3 * min(by_loop)))
    left.set_ylabel("squared error / normaliser" + (f" (bottom: {FLOOR:g} or less)" if bottom < FLOOR else ""))
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    figure.suptitle(
        plain(f"{metrics['settings']['task'].replace('_', ' ')}, {metrics['settings']['n_dims']} dimensions")
    )
    return figure


def shift_figure(metrics: dict[str, Any]) -> Figure:
    """One small picture a shift, all on one scale: the model, the limit, baselines, and the published model."""
    shifts = metrics["shifts"]
    n_columns = 4
    n_rows = -(-len(shifts) // n_columns)
    figure, grid = plt.subplots(
        n_rows, n_columns, figsize=(9, 2.1 * n_rows), layout="constrained", sharex=True, sharey=True, squeeze=False
    )
    floor, top = 1e-3, max(20, *(3 * min(curves["model"]["error"]) for curves in shifts.values()))
    for axes, (shift, curves) in zip(grid.flat, shifts.items(), strict=False):
        if "limit" in curves:
            shade_limit(axes, curves["limit"]["error"], floor)
        for name in [name for name in COLOURS if name in curves]:
            line = {"error": curves[name]["error"]}
            draw_curve(axes, 0, line, floor, ls=STYLES.get(name, "--"), color=COLOURS[name], label=name)
        published = metrics["published_shifts"].get(shift)
        if published:
            values = [float("nan") if error is None else error for error in published["error"]]
            name = "standard transformer, published"
            axes.plot(values, ls=STYLES[name], color=COLOURS[name], label=name)
        axes.set_title(plain(shift.replace("_", " ")), fontsize=9)
        finish(axes)
        axes.set_ylim(floor / 2, top)
        set_span(axes, 0, metrics["settings"]["n_points"] - 1)
        axes.xaxis.get_major_locator().set_params(integer=True)
    for axes in grid.flat[len(shifts) :]:
        axes.axis("off")
    figure.supxlabel("in-context examples", fontsize=9)
    figure.supylabel(f"squared error / normaliser (bottom: {floor:g} or less)", fontsize=9)
    figure.legend(
        *grid[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=4, fontsize=8, frameon=False
    )
    return figure


def figures(metrics: dict[str, Any]) -> dict[str, Figure]:
    """Every picture of the metrics, by the name of its file."""
    return {"error": error_figure(metrics)} | ({"shifts": shift_figure(metrics)} if metrics["shifts"] else {})


def draw(metrics: dict[str, Any], output_dir: Path) -> list[Path]:
    """Draw all pictures; returns the PNG and the SVG of each. Pictures of shifts of other numbers are removed."""
    paths = []
    for name, figure in figures(metrics).items():
        for suffix in ("png", "svg"):
            paths.append(output_dir / f"{name}.{suffix}")
            figure.savefig(paths[-1], dpi=150)
        plt.close(figure)
    for stale in {output_dir / "shifts.png", output_dir / "shifts.svg"} - set(paths):
        stale.unlink(missing_ok=True)
    return paths
