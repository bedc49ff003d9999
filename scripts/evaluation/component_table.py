"""One table of all components of a mixture: the errors of the model and of others where papers give theirs."""

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from scripts.evaluation.metrics_record import Metrics


# numbers of examples, first and last, that an error is a mean over
SPANS = {"20": (20, 20), "40": (40, 40), "80 to 100": (80, 100)}


def component_table(metrics: Metrics) -> tuple[list[str], dict[str, list[Any]]]:
    """
    Return the heads and the rows, by their first cell, of a table of a mixture's components.

    Each has a row of the model's errors and below it those of its limit and of the baseline that is best at the last
    of them, where it has these; and, of a model of quantiles, the shares of answers in its 90% interval. The columns
    are the spans of examples that all components have, or where they have none the last place, and all places.
    """
    parts = metrics.components.values()
    spans = {name: ends for name, ends in SPANS.items() if all(_places(part, *ends) for part in parts)}
    if not spans:
        last = max(part.settings.place_numbers[-1] for part in parts)
        spans = {str(last): (last, last)}
    rows = {}
    for name, part in metrics.components.items():
        for row, values in _curves(part).items():
            places = [_places(part, *ends) or [-1] for ends in spans.values()]
            means = [fmean(values[place] for place in each) for each in places]
            rows[f"{name.replace('_', ' ')}{row}"] = [*means, fmean(values)]
    return [*spans, "all"], rows


def _curves(part: Metrics) -> dict[str, Sequence[float]]:
    """What is shown of a component, by what comes after its name."""
    curves = {name: curve.error for name, curve in part.error_by_example.items()}
    shown = {"": curves.pop("model")}
    if part.limit:
        shown[", limit"] = part.limit.error
    if curves:
        best = min(curves, key=lambda name: curves[name][-1])
        shown[f", {best}"] = curves[best]
    if part.coverage_by_example:
        shown[", in the 90% interval"] = part.coverage_by_example
    return shown


def _places(part: Metrics, low: int, high: int) -> list[int]:
    """The places of a component whose numbers are from `low` to `high`, if it has both of these."""
    numbers = part.settings.place_numbers
    return [i for i, number in enumerate(numbers) if low <= number <= high] if {low, high} <= {*numbers} else []
