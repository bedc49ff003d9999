"""Tables of all components of a mixture: errors where papers give theirs, and what intervals cover."""

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean

from scripts.evaluation.metrics_record import Metrics


# numbers of examples, first and last, that a figure is a mean over
SPANS = {"20": (20, 20), "40": (40, 40), "80 to 100": (80, 100)}
Table = tuple[list[str], dict[str, list[float]]]  # heads, and rows by their first cell


def component_table(metrics: Metrics) -> Table:
    """
    Return a table of the errors of a mixture's components.

    Each has a row of the model's errors and below it those of its limit and of the baseline that is best at the last
    place, where it has these; and, of a model of quantiles, the shares of answers in its 90% interval. The columns are
    the spans of examples that all components have, or where they have none the last place, and all places.
    """

    def curves(part: Metrics) -> dict[str, Sequence[float]]:
        whole = {name: curve.error for name, curve in part.error_by_example.items()}
        whole = {name: errors for name, errors in whole.items() if len(errors) == part.settings.n_points}
        shown = {"": whole.pop("model")}
        if part.limit:
            shown[", limit"] = part.limit.error
        if whole:
            best = min(whole, key=lambda name: whole[name][-1])
            shown[f", {best}"] = whole[best]
        return shown | {f", in the 90% interval{name}": shares for name, shares in _coverage(part).items()}

    return _table(metrics, curves)


def coverage_table(metrics: Metrics) -> Table:
    """As [`component_table`], the shares of answers in the 90% interval alone; no rows for a model of values alone."""
    return _table(metrics, _coverage)


def _coverage(part: Metrics) -> dict[str, Sequence[float]]:
    return {"": part.coverage_by_example} if part.coverage_by_example else {}


def _table(metrics: Metrics, curves: Callable[[Metrics], Mapping[str, Sequence[float]]]) -> Table:
    """The means of the `curves` of each component, which are named by what comes after its name."""
    numbers = [part.settings.place_numbers for part in metrics.components.values()]
    spans = {name: ends for name, ends in SPANS.items() if all({*ends} <= {*own} for own in numbers)}
    last = max(own[-1] for own in numbers)
    spans = spans or {str(last): (last, last)}
    rows = {}
    for (name, part), own in zip(metrics.components.items(), numbers, strict=True):
        places = [[i for i, n in enumerate(own) if low <= n <= high] or [-1] for low, high in spans.values()]
        for kind, values in curves(part).items():
            means = [fmean(values[place] for place in each) for each in places]
            rows[f"{name.replace('_', ' ')}{kind}"] = [*means, fmean(values)]
    return [*spans, "all"], rows
