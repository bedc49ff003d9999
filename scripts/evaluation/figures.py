"""The pictures of an evaluation: errors by place, by loop, under every shift and of every component of a mixture."""

from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from scripts.evaluation.axes import (
    COLOURS,
    FLOOR,
    LOGARITHMIC,
    STYLES,
    finish,
    loop_axis,
    place_axis,
    plain,
    plot_curve,
    save,
    set_legend,
    shade_limit,
)
from scripts.evaluation.length_map import length_figure
from scripts.evaluation.metrics_record import Metrics


def floor_of(metrics: Metrics) -> float:
    """The error at which smaller ones are drawn."""
    return FLOOR if metrics.settings.score in LOGARITHMIC else 0.0


def title_of(metrics: Metrics) -> str:
    """The task, with its number of dimensions where it has one."""
    name, n_dims = metrics.settings.task.replace("_", " "), metrics.settings.n_dims
    return name if n_dims is None else f"{name}, {n_dims} dimensions"


def plot_by_example(axes: Axes, metrics: Metrics):
    """Plot the error at every place, with 90% intervals; for the Lasso only the alpha of the paper."""
    settings, floor = metrics.settings, floor_of(metrics)
    curves = {name: vars(curve) for name, curve in metrics.error_by_example.items()}
    curves |= {f"{name}, published": {"error": curve.error} for name, curve in metrics.published.items()}
    if metrics.limit:
        shade_limit(axes, metrics.limit.error, floor)
    for name in sorted(curves.keys() & COLOURS.keys(), key=list(COLOURS).index):
        label = f"looped model, {settings.n_loops} loops" if name == "model" else name
        style = {"ls": STYLES.get(name, "--"), "color": COLOURS[name], "linewidth": 1.8}
        plot_curve(axes, settings.first_place, curves[name], floor, settings.place_step, label=label, **style)
    trained = settings.n_points_trained or settings.n_points
    if trained < settings.n_points:
        axes.axvline(trained - 1, color="#666666", linestyle="--", linewidth=1, label="longest trained prompt")
    axes.set_xlabel(plain(settings.place))
    place_axis(axes, settings.n_points, settings.first_place, settings.place_step)


def plot_by_loop(axes: Axes, metrics: Metrics):
    """Plot the error at the last place after every loop, and mark the trained number of loops."""
    settings, errors = metrics.settings, metrics.error_by_loop["last_point"]
    label = plain(f"{settings.place_numbers[-1]} {settings.places}")
    plot_curve(axes, 1, {"error": errors}, floor_of(metrics), color=COLOURS["model"], linewidth=1.8, label=label)
    axes.axvline(settings.n_loops, color="#666666", linestyle="--", linewidth=1, label="trained loops")
    loop_axis(axes, len(errors))
    axes.legend(fontsize=8, frameon=False)


def set_errors(axes: Axes, metrics: list[Metrics]):
    """Set range and label of the axis of errors, such that all errors of the model are visible."""
    score = metrics[0].settings.score
    curves = [part.error_by_example["model"] for part in metrics]
    by_loop = [part.error_by_loop["last_point"] for part in metrics]
    if score not in LOGARITHMIC:
        top = max(map(max, (*(curve.high for curve in curves), *by_loop))) or 1
        axes.set_ylim(-0.02 * top, 1.05 * top)
        axes.set_ylabel(plain(score))
        return
    bottom = max(FLOOR / 2, min(map(min, (*(curve.low for curve in curves), *by_loop))) / 3)
    # also where all its errors are unusually small or large
    axes.set_ylim(bottom, max(5, *(3 * min(errors) for errors in (*(curve.error for curve in curves), *by_loop))))
    axes.set_ylabel(LOGARITHMIC[score] + (f" (bottom: {FLOOR:g} or less)" if bottom < FLOOR else ""))


def scale_of(metrics: Metrics) -> str:
    """The scale of the axis of errors."""
    return "log" if metrics.settings.score in LOGARITHMIC else "linear"


def error_figure(metrics: Metrics) -> Figure:
    """Errors by place and by loop, side by side."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4.2), layout="constrained", sharey=True)
    plot_by_example(left, metrics)
    plot_by_loop(right, metrics)
    for axes in (left, right):
        finish(axes, scale_of(metrics))
    set_errors(left, [metrics])
    set_legend(figure, left, "lower")
    figure.suptitle(plain(title_of(metrics)))
    return figure


def component_figure(metrics: Metrics) -> Figure:
    """Errors by place and by loop, one row per component of a mixture, all on one scale."""
    parts = metrics.components
    size = (9, 0.8 + 2.6 * len(parts))
    figure, grid = plt.subplots(
        len(parts), 2, figsize=size, layout="constrained", sharex="col", sharey=True, squeeze=False
    )
    named = {}
    for (left, right), (name, part) in zip(grid, parts.items(), strict=True):
        plot_by_example(left, part)
        plot_by_loop(right, part)
        left.set_title(plain(name.replace("_", " ")), fontsize=9)
        for axes in (left, right):
            finish(axes, scale_of(part))
        set_errors(left, list(parts.values()))
        handles, labels = left.get_legend_handles_labels()
        named |= dict(zip(labels, handles, strict=True))
    for axes in grid.flat:
        axes.label_outer()
    figure.legend(named.values(), named, loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    return figure


def shift_figure(metrics: Metrics) -> Figure:
    """One small picture per shift, all on one scale: the model, the limit, baselines, and the published model."""
    shifts, n_columns = metrics.shifts, 4
    n_rows = -(-len(shifts) // n_columns)
    figure, grid = plt.subplots(
        n_rows, n_columns, figsize=(9, 2.1 * n_rows), layout="constrained", sharex=True, sharey=True, squeeze=False
    )
    floor, top = 1e-3, max(20, *(3 * min(curves["model"].error) for curves in shifts.values()))
    for axes, (shift, curves) in zip(grid.flat[: len(shifts)], shifts.items(), strict=True):
        if "limit" in curves:
            shade_limit(axes, curves["limit"].error, floor)
        for name in [name for name in COLOURS if name in curves]:
            line = {"error": curves[name].error}
            plot_curve(axes, 0, line, floor, ls=STYLES.get(name, "--"), color=COLOURS[name], label=name)
        if published := metrics.published_shifts.get(shift):
            values = [float("nan") if error is None else error for error in published.error]
            name = "standard transformer, published"
            axes.plot(values, ls=STYLES[name], color=COLOURS[name], label=name)
        axes.set_title(plain(shift.replace("_", " ")), fontsize=9)
        finish(axes)
        axes.set_ylim(floor / 2, top)
        place_axis(axes, metrics.settings.n_points)
    for axes in grid.flat[len(shifts) :]:
        axes.axis("off")
    figure.supxlabel(plain(metrics.settings.place), fontsize=9)
    label = LOGARITHMIC.get(metrics.settings.score, metrics.settings.score)
    figure.supylabel(plain(f"{label} (bottom: {floor:g} or less)"), fontsize=9)
    set_legend(figure, grid[0, 0], "upper")
    return figure


DRAWN = {
    "error": error_figure,
    "shifts": shift_figure,
    "components": component_figure,
    "lengths": length_figure,
}


def figures(metrics: Metrics) -> dict[str, Figure]:
    """Every picture of the metrics, by the name of its file."""
    has = {"error": True, "shifts": metrics.shifts, "components": metrics.components, "lengths": metrics.stops}
    return {name: figure(metrics) for name, figure in DRAWN.items() if has[name]}


def plot_metrics(metrics: Metrics, output_dir: Path) -> list[Path]:
    """Write all pictures; returns the paths of PNG and SVG. Older pictures that do not apply are removed."""
    paths = [path for name, figure in figures(metrics).items() for path in save(figure, name, output_dir)]
    for stale in {output_dir / f"{name}.{suffix}" for name in DRAWN for suffix in ("png", "svg")} - set(paths):
        stale.unlink(missing_ok=True)
    return paths
