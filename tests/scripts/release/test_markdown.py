import pytest

from scripts.evaluation.metrics_record import Curve
from scripts.release.markdown import Markdown, duration, error_at, escape, operations_cell, table


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0 s"), (119, "119 s"), (3000, "50 min"), (7500, "2 h 5 min")])
def test_durations_are_readable(seconds, text):
    assert duration(seconds) == text


def test_what_is_far_beyond_the_compute_taken_has_no_figure():
    assert operations_cell(9.9e15, 1e14) == "9.9e+15"
    assert operations_cell(1.1e16, 1e14) == "beyond 1.0e+16"
    assert operations_cell(float("inf"), 1e14) == "beyond 1.0e+16"
    assert operations_cell(9e13, 1e14) == "reached"
    assert operations_cell(None, 1e14) == "-"


def test_an_error_has_its_interval_where_there_is_one_and_a_dash_where_the_curve_has_ended():
    assert error_at(1, Curve([0.5, 0.12345], [0.4, 0.1], [0.6, 0.2])) == "0.123 [0.1, 0.2]"
    assert error_at(1, Curve([0.5, 0.12345])) == "0.123"
    assert error_at(2, Curve([0.5, 0.12345])) == "-"


def test_text_is_shown_and_markdown_obeyed():
    assert escape("a_b *c*\n| d") == r"a_b \*c\* \| d"
    assert escape(Markdown("*c*")) == "*c*"
    with pytest.raises(ValueError, match="a value is missing"):
        escape(None)


def test_a_table_has_a_row_a_name():
    assert table([1, 2], "n", {"a|": ["x", "y"]}) == "| n | 1 | 2 |\n| --- | --- | --- |\n| a\\| | x | y |"
