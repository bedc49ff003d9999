"""The elements of all pictures of errors: curves, axes and colours."""

from collections.abc import Mapping, Sequence
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
    "model, rolled out": "#D55E00",
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
    "logistic regression": "#009E73",
    "looped transformer, published": "#D55E00",
    "standard transformer, published": "#666666",
}
STYLES = {
    "model": "-",
    "model, rolled out": "--",
    "3-nearest neighbours": "-.",
    "averaging": ":",
    "zero": ":",
    "greedy tree, signs": ":",
    "XGBoost, signs": "-.",
    "looped transformer, published": (0, (1, 3)),
    "standard transformer, published": (0, (1, 3)),
}
# scores whose values span decades, with the label of their axis; others are shares of 1
LOGARITHMIC = {"normalised squared error": "squared error / normaliser"}
FLOOR = 1e-5  # smaller errors are drawn here: an exact solver's, which is round-off, would stretch the axis
MANY_LOOPS = 40  # more loops are drawn on a logarithmic axis: the first ones change most


def plain(text: str) -> str:
    """Return text that a figure shows literally: without mathematics between dollar signs or control characters."""
    return "".join(letter for letter in text if letter.isprintable()).replace("$", r"\$")


def finish(axes: Axes, scale: str = "log"):
    """Apply the style of all pictures; `scale` is that of the axis of errors."""
    axes.set_yscale(scale)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, linewidth=0.6)


def plot_curve(
    axes: Axes, first: int, curve: Mapping[str, Sequence[float]], floor: float = FLOOR, step: int = 1, **style: Any
):
    """
    Draw errors at `first`, `first` + `step`, ... with their 90% interval where there is one.

    Args:
        axes (`Axes`):
            Where to draw.
        first (`int`):
            Place of the first error.
        curve (`Mapping`):
            `"error"`, and maybe `"low"` and `"high"`. A single error is drawn as a dot, its interval as a bar.
        floor (`float`, defaults to 1e-5):
            Smaller values are drawn here.
        step (`int`, defaults to 1):
            From one place to the next.
        style:
            Style of the line, as `Axes.plot` takes it.
    """
    places = range(first, first + step * len(curve["error"]), step)
    raised = {
        part: [max(error, floor) for error in curve[part]] for part in ("error", "low", "high") if curve.get(part)
    }
    is_dot = len(places) == 1
    axes.plot(places, raised["error"], marker="o" if is_dot else None, **style)
    if "low" in raised and is_dot:
        axes.vlines(places, raised["low"], raised["high"], color=style["color"], alpha=0.5)
    elif "low" in raised:
        axes.fill_between(places, raised["low"], raised["high"], color=style["color"], alpha=0.2, linewidth=0)


def shade_limit(axes: Axes, limit: Sequence[float], floor: float = FLOOR):
    """Shade the area below the limit, which no predictor reaches."""
    top = [max(error, floor / 10) for error in limit]
    axes.fill_between(range(len(top)), top, floor / 10, color="#E6E6E6", linewidth=0, label="below the limit")


def set_span(axes: Axes, first: int, last: int):
    """Show the places from `first` to `last`; a single one is in the middle."""
    axes.set_xlim(*((first, last) if last > first else (first - 0.5, first + 0.5)))


def place_axis(axes: Axes, n_places: int, first: int = 0, step: int = 1):
    """Make the x-axis one of the places of a score, `first`, `first` + `step`, ..., with ticks at whole numbers."""
    set_span(axes, first, first + step * (n_places - 1))
    axes.xaxis.get_major_locator().set_params(integer=True)


def loop_axis(axes: Axes, n_loops: int):
    """Make the x-axis one of 1, 2, ... loops, logarithmic where there are many, with plain numbers as ticks."""
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


def set_legend(figure: Figure, axes: Axes, place: str):
    """Put the legend of one of the axes outside of all axes, `"upper"` or `"lower"`."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc=f"outside {place} center", ncols=4, fontsize=8, frameon=False)


def save(figure: Figure, name: str, folder: Path) -> list[Path]:
    """Write a figure as PNG and SVG, and close it; returns the paths."""
    paths = [folder / f"{name}.{suffix}" for suffix in ("png", "svg")]
    for path in paths:
        figure.savefig(path, dpi=150)
    plt.close(figure)
    return paths
