"""The axes and texts that all pictures share."""

import pytest
from matplotlib import pyplot as plt

from scripts.evaluation.axes import finish, loop_axis, plain, plot_curve


@pytest.mark.parametrize(
    ("n_loops", "ticks"),
    [
        (5, None),
        (40, None),
        (60, ["1", "2", "5", "10", "20", "50"]),
        (500, ["1", "2", "5", "10", "20", "50", "100", "200", "500"]),
    ],
)
def test_many_loops_are_on_a_logarithmic_axis_with_plain_numbers(n_loops, ticks):
    figure, axes = plt.subplots()
    plot_curve(axes, 1, {"error": [1 / n for n in range(1, n_loops + 1)]}, color="#D55E00")
    loop_axis(axes, n_loops)
    finish(axes)
    figure.canvas.draw()
    labels = [label.get_text() for label in axes.get_xticklabels()]
    assert axes.get_xscale() == ("log" if ticks else "linear")
    assert labels == ticks if ticks else all(label.isdigit() for label in labels)
    plt.close(figure)


@pytest.mark.parametrize("text", ["$x$", "a $ b", "$\\frac{$", "$$", "x_1^2", "\\$", "\t\x00x"])
def test_a_name_is_drawn_letter_by_letter(text):
    figure = plt.figure()
    title = figure.suptitle(plain(text))
    drawn, is_mathematics = title._preprocess_math(title.get_text())
    assert not is_mathematics
    assert drawn == "".join(letter for letter in text if letter.isprintable())
    plt.close(figure)


def test_errors_below_the_floor_are_drawn_at_it():
    axes = plt.subplots()[1]
    plot_curve(axes, 2, {"error": [1.0, 1e-9], "low": [0.5, 0.0], "high": [2.0, 1e-8]}, 1e-5, color="#000000")
    (line,) = axes.get_lines()
    assert line.get_xydata().tolist() == [[2, 1.0], [3, 1e-5]]
    assert axes.collections[0].get_datalim(axes.transData).intervaly.tolist() == [1e-5, 2.0]
    plt.close()


def test_a_single_error_is_a_dot_and_its_interval_a_bar():
    axes = plt.subplots()[1]
    plot_curve(axes, 0, {"error": [0.5], "low": [0.4], "high": [0.6]}, color="#000000")
    assert axes.get_lines()[0].get_marker() == "o"
    assert axes.collections[0].get_segments()[0].tolist() == [[0, 0.4], [0, 0.6]]
    plt.close()
