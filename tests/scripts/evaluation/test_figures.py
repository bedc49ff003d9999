"""What a picture shows of a record, and that the model is always seen."""

import xml.etree.ElementTree
from dataclasses import replace

import numpy as np
import pytest
from matplotlib import image
from matplotlib import pyplot as plt
from matplotlib.colors import to_rgb

from scripts.common.output_folder import PICTURES
from scripts.evaluation.axes import COLOURS
from scripts.evaluation.figures import (
    component_figure,
    error_figure,
    figures,
    plot_by_example,
    plot_by_loop,
    plot_metrics,
    shift_figure,
)
from scripts.evaluation.length_map import length_figure
from scripts.evaluation.metrics_record import Curve


CURVE = Curve([1.0, 0.5, 0.1], [0.9, 0.4, 0.05], [1.1, 0.6, 0.2])


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def lines_of(axes):
    """The lines of axes by their name."""
    return {line.get_label(): list(line.get_ydata()) for line in axes.get_lines()}


def texts_of(axes):
    """What stands beside and above axes."""
    return axes.get_xlabel(), axes.get_ylabel(), axes.get_title()


def test_a_picture_is_drawn_of_what_there_is(metrics, full_metrics, tmp_path):
    assert [path.name for path in plot_metrics(metrics, tmp_path)] == ["error.png", "error.svg"]
    names = [path.name for path in plot_metrics(full_metrics, tmp_path)]
    assert names == [f"{name}.{suffix}" for name in PICTURES for suffix in ("png", "svg")]
    plot_metrics(metrics, tmp_path)  # those of shifts and components that are no more are removed
    assert sorted(path.name for path in tmp_path.iterdir()) == ["error.png", "error.svg"]


def test_right_answers_are_drawn_by_length_and_loops_beside_the_loops_that_are_needed(full_metrics):
    settings = replace(full_metrics.settings, first_place=5, place="bits")
    axes = length_figure(replace(full_metrics, settings=settings)).axes[0]
    (image,) = axes.get_images()
    np.testing.assert_allclose(image.get_array(), 1 - np.array(full_metrics.error_by_loop_and_place))
    assert image.get_extent() == [4.5, 7.5, 0.5, 4.5]
    (line,) = axes.get_lines()
    assert (list(line.get_xdata()), list(line.get_ydata())) == ([5, 6, 7], [1, 2, 2.5])
    assert texts_of(axes)[:2] == ("bits", "loops")


def test_every_shift_is_drawn(full_metrics):
    axes = shift_figure(full_metrics).axes
    assert [item.get_title() for item in axes] == ["skewed", "scale x 1/3", "", ""]
    lines = lines_of(axes[0])
    assert lines["model"] == CURVE.error
    assert lines["standard transformer, published"][1:] == [0.5, 0.2]
    assert "standard transformer, published" not in lines_of(axes[1])


def test_the_limit_the_papers_and_the_longest_trained_prompt_are_named(full_metrics):
    labels = error_figure(full_metrics).axes[0].get_legend_handles_labels()[1]
    assert {"below the limit", "looped transformer, published", "longest trained prompt"} <= set(labels)


def test_both_files_of_a_picture_show_every_curve(metrics, tmp_path):
    named = {name: CURVE for name in COLOURS if "published" not in name}
    png, svg = plot_metrics(replace(metrics, error_by_example=named), tmp_path)
    pixels = image.imread(png)[..., :3]
    for name in named:
        assert (np.abs(pixels - to_rgb(COLOURS[name])).max(axis=2) < 0.1).any(), name
    assert xml.etree.ElementTree.parse(svg).getroot().tag.endswith("svg")
    drawn = svg.read_text().lower()
    assert all(COLOURS[name].lower() in drawn for name in named)


def test_the_curves_are_the_metrics(full_metrics):
    axes = plt.subplots()[1]
    plot_by_example(axes, full_metrics)
    lines = lines_of(axes)
    assert lines["least squares"] == full_metrics.error_by_example["least squares"].error
    assert lines["looped model, 2 loops"] == full_metrics.error_by_example["model"].error
    assert texts_of(axes)[0] == "in-context examples"
    axes = plt.subplots()[1]
    plot_by_loop(axes, full_metrics)
    assert list(axes.get_lines()[0].get_xdata()) == [1, 2, 3, 4]
    assert lines_of(axes)["2 examples"] == full_metrics.error_by_loop["last_point"]


@pytest.fixture
def shares(metrics):
    """The record of a task whose score is a share and whose places are no examples."""
    changes = {"task": "chains", "n_dims": None, "normaliser": None}
    settings = replace(metrics.settings, **changes, score="share of wrong answers", place="pointers to follow")
    model = Curve([0.0, 0.1, 0.4], [0.0, 0.05, 0.3], [0.0, 0.15, 0.5])
    return replace(metrics, settings=settings, error_by_example={"model": model, "logistic regression": CURVE})


def test_a_share_is_drawn_on_an_axis_of_its_own_name_from_none_to_all(shares):
    figure = error_figure(shares)
    left, right = figure.axes
    assert texts_of(left) == ("pointers to follow", "share of wrong answers", "")
    assert left.get_yscale() == right.get_yscale() == "linear"
    bottom, top = left.get_ylim()
    assert -0.1 < bottom < 0 < 0.9 < top < 1.1
    assert lines_of(left)["looped model, 2 loops"] == [0.0, 0.1, 0.4]
    assert lines_of(left)["logistic regression"] == CURVE.error
    assert "2 pointers to follow" in lines_of(right)
    assert figure.get_suptitle() == "chains"


def test_every_component_of_a_mixture_is_drawn_on_one_scale(metrics):
    limited = replace(
        metrics,
        settings=replace(metrics.settings, limit="posterior"),
        error_by_example={"model": Curve([0.1, 0.01, 1e-3], [0.1, 0.01, 1e-3], [0.1, 0.01, 1e-3]), "zero": CURVE},
        **{"limit": CURVE, "excess_over_limit": CURVE},
    )
    mixture = replace(metrics, components={"linear_regression": metrics, "sparse_linear_regression": limited})
    assert list(figures(mixture)) == ["error", "components"]
    figure = component_figure(mixture)
    (first, _, second, by_loop) = figure.axes
    assert [axes.get_title() for axes in (first, second)] == ["linear regression", "sparse linear regression"]
    assert lines_of(second)["looped model, 2 loops"] == [0.1, 0.01, 1e-3]
    assert first.get_ylim() == second.get_ylim() == by_loop.get_ylim()
    assert first.get_ylim()[0] < 1e-3 < 0.9 < first.get_ylim()[1]
    named = {text.get_text() for text in figure.legends[0].get_texts()}
    assert named == {"looped model, 2 loops", "zero", "below the limit"}


def ink(figure, axes, colour):
    """Pixels of a colour inside of axes."""
    for legend in filter(None, (axes.get_legend() for axes in figure.axes)):
        legend.remove()
    figure.canvas.draw()
    pixels = np.asarray(figure.canvas.buffer_rgba())[::-1, :, :3] / 255
    box = axes.get_window_extent()
    inside = pixels[int(box.y0) : int(box.y1) + 1, int(box.x0) : int(box.x1) + 1]
    plt.close(figure)
    return int((np.abs(inside - to_rgb(colour)).max(axis=2) < 0.2).sum())


def curve_of(values, spread=0.0):
    return Curve(values, *([value * (1 + sign * spread) for value in values] for sign in (-1, 1)))


SEEN = {
    "one point": ([0.4], [0.9, 0.4, 0.3]),
    "one loop": ([1.0, 0.5, 0.4], [0.4]),
    "one of each": ([0.4], [0.4]),
    "two of each": ([1.0, 0.4], [1.0, 0.4]),
    "no error": ([0.0, 0.0, 0.0], [0.0, 0.0, 0.0]),
    "no error at one point": ([0.0], [0.0]),
    "round-off": ([1e-14, 1e-14], [1e-14, 1e-14, 1e-14]),
    "round-off of one sign": ([-1e-17, 1e-17], [1e-17, -1e-17]),
    "far above": ([1e6, 1e6], [1e6, 1e6, 1e6]),
    "far above by loop alone": ([1.0, 0.5], [1e9, 1e9]),
    "from one to none": ([1.0, 0.0], [1.0, 0.5, 0.0]),
    "five hundred loops": ([1.0, 0.5], [1.0, *[0.1] * 499]),
}


SHARES = ("one point", "one loop", "no error", "no error at one point", "from one to none", "five hundred loops")
SCORES = ("normalised squared error", "share of wrong answers")
CASES = [(name, SCORES[0], spread) for name in SEEN for spread in (0.0, 0.3)]
CASES += [(name, SCORES[1], 0.3) for name in SHARES]


@pytest.mark.parametrize(("name", "score", "spread"), CASES)
def test_the_model_is_always_seen(name, score, spread, metrics):
    by_example, by_loop = SEEN[name]
    metrics = replace(
        metrics,
        settings=replace(metrics.settings, n_points=len(by_example), n_loops=1, score=score),
        error_by_example={"model": curve_of(by_example, spread)},
        error_by_loop={"last_point": by_loop, "mean": by_loop},
    )
    for number in (0, 1):
        figure = error_figure(metrics)
        assert ink(figure, figure.axes[number], COLOURS["model"]) > 10, number


@pytest.mark.parametrize("errors", [[0.4], [0.0, 0.0], [1e-9, 1e-12], [1e5, 1e5], [0.4, 0.0]])
def test_the_model_is_seen_under_every_shift(errors, metrics):
    curve = curve_of(errors)
    metrics = replace(
        metrics,
        settings=replace(metrics.settings, n_points=len(errors)),
        error_by_example={"model": curve},
        shifts={
            "skewed": {"model": curve, "limit": curve_of([0.0] * len(errors)), "zero": curve_of([1.0] * len(errors))}
        },
    )
    figure = shift_figure(metrics)
    assert ink(figure, figure.axes[0], COLOURS["model"]) > 10


def test_a_published_value_alone_is_seen(metrics):
    figure = error_figure(replace(metrics, published={"standard transformer": Curve([0.4])}))
    assert ink(figure, figure.axes[0], COLOURS["standard transformer, published"]) > 10
