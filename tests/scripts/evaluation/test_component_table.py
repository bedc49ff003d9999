"""The table of a mixture's components, cell by cell."""

from dataclasses import replace

import pytest

from scripts.evaluation.component_table import component_table
from scripts.evaluation.metrics_record import Curve
from scripts.evaluation.printed_tables import table_lines


def curve(*errors):
    return Curve(list(errors), list(errors), list(errors))


def part_of(metrics, n_points, **fields):
    """The record of a component whose error falls from 1 by the same step at every place."""
    errors = [1 - place / n_points for place in range(n_points)]
    settings = replace(metrics.settings, n_points=n_points, limit="least squares")
    return replace(metrics, settings=settings, error_by_example={"model": curve(*errors)}, **fields)


def test_errors_are_means_over_the_examples_that_papers_give_theirs_at(metrics):
    ones = [1.0] * 101
    long = part_of(metrics, 101, limit=curve(*ones), excess_over_limit=curve(*ones), coverage_by_example=[0.9] * 101)
    baselines = {"averaging": curve(*ones), "ridge": curve(*[0.5] * 101)}
    long = replace(long, error_by_example=long.error_by_example | baselines)
    heads, rows = component_table(replace(metrics, components={"relu_2nn": long, "sums": part_of(metrics, 101)}))
    assert heads == ["20", "40", "80 to 100", "all"]
    expected = {
        "relu 2nn": [81 / 101, 61 / 101, 11 / 101, 51 / 101],
        "relu 2nn, limit": [1.0] * 4,
        "relu 2nn, ridge": [0.5] * 4,
        "relu 2nn, in the 90% interval": [0.9] * 4,
        "sums": [81 / 101, 61 / 101, 11 / 101, 51 / 101],
    }
    assert list(rows) == list(expected)
    for name, values in expected.items():
        assert rows[name] == pytest.approx(values), name


def test_only_columns_that_all_components_have_are_shown_and_else_the_last(metrics):
    parts = {"long": part_of(metrics, 101), "short": part_of(metrics, 41)}
    assert component_table(replace(metrics, components=parts))[0] == ["20", "40", "all"]
    parts["tiny"] = part_of(metrics, 4)
    heads, rows = component_table(replace(metrics, components={"tiny": parts["tiny"]}))
    assert (heads, rows["tiny"]) == (["3", "all"], [0.25, 0.625])
    printed = [line.split() for line in table_lines(replace(metrics, components={"tiny": parts["tiny"]}))]
    assert ["components,", "examples", "3", "all"] in printed
    assert ["tiny", "0.25", "0.625"] in printed
