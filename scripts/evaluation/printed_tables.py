"""The tables that an evaluation prints."""

from collections.abc import Iterator
from typing import Any

from scripts.evaluation.component_table import component_table
from scripts.evaluation.metrics_record import Metrics


def table_lines(metrics: Metrics) -> Iterator[str]:
    """Yield lines with errors at a few places, after a few loops, under the shifts and of a mixture's components."""
    settings = metrics.settings
    of_turns = f", mean answers of {settings.n_turns} turns" if settings.n_turns else ""
    yield f"{settings.score}, {settings.task}, {settings.n_prompts} prompts{of_turns}"
    yield from (_line(name, values) for name, values in error_rows(metrics).items())
    if excess := metrics.mean_excess:
        yield f"\nmean excess over the limit {excess.error:.4g} ({excess.low:.4g} to {excess.high:.4g})"
    if metrics.stops:
        yield "\n" + _line("loops of each prompt", ["whole", "longest", "loops"])
        for rule, stopped in metrics.stops.items():
            errors = stopped.errors.error
            numbers = (sum(errors) / len(errors), errors[-1], stopped.mean_loops[-1])
            yield _line(rule, [f"{number:.3g}" for number in numbers])
    if metrics.certainty:
        yield ""
        yield from (_line(name, [f"{value:.3g}"]) for name, value in metrics.certainty.items())
    if metrics.shifts:
        shown = ("model", "limit", "zero")
        yield "\n" + _line("shift, last point", shown)
        for shift, curves in metrics.shifts.items():
            yield _line(shift, [f"{curves[name].error[-1]:.3g}" for name in shown])
    if metrics.components:
        heads, rows = component_table(metrics)
        width = max(map(len, rows))
        yield "\n" + _line(f"components, {metrics.settings.places}", heads, width)
        yield from (_line(name, [f"{value:.3g}" for value in values], width) for name, values in rows.items())
    for part in metrics.components.values():
        yield ""
        yield from table_lines(part)


def error_rows(metrics: Metrics) -> dict[str, list[Any]]:
    """The rows of the first table, by their first cell."""
    settings, by_loop = metrics.settings, metrics.error_by_loop["last_point"]
    last, trained, numbers = settings.n_points - 1, settings.n_loops, settings.place_numbers
    examples = sorted({0, last // 4, last // 2, 3 * last // 4, last})
    loops = sorted({1, max(1, trained // 2), trained, min(2 * trained, len(by_loop)), len(by_loop)})
    curves = dict(metrics.error_by_example)
    if metrics.limit:
        curves[f"limit: {settings.limit}"] = metrics.limit
        curves["excess of the model"] = metrics.excess_over_limit
    curves |= {f"{name}, published": curve for name, curve in metrics.published.items()}
    shown = {name: curve.error for name, curve in curves.items()}
    if metrics.coverage_by_example:
        shown["in the 90% interval"] = metrics.coverage_by_example
    return {
        settings.places: [numbers[n] for n in examples],
        **{name: [f"{values[n]:.3g}" for n in examples if n < len(values)] for name, values in shown.items()},
        "loops": loops,
        f"model, {numbers[last]} {settings.places}": [f"{by_loop[n - 1]:.3g}" for n in loops],
    }


def _line(name: str, values: list[Any], width: int = 38) -> str:
    return f"{name:>{width}}" + "".join(f"{value:>10}" for value in values)
