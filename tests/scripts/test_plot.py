import json
import sys
import xml.etree.ElementTree
from html.parser import HTMLParser

import numpy as np
import pytest
from matplotlib import image
from matplotlib.colors import to_rgb

from scripts import report as report_program
from scripts.common.records import RecordError, read_metrics
from scripts.evaluation import page as report
from scripts.evaluation import pictures as plot


CURVE = {"error": [1.0, 0.5, 0.1], "low": [0.9, 0.4, 0.05], "high": [1.1, 0.6, 0.2]}


@pytest.fixture
def metrics():
    curves = {name: CURVE for name in plot.COLOURS if "published" not in name}
    settings = {"task": "linear_regression", "model": "linear", "n_dims": 2, "n_points": 3, "n_prompts": 8}
    return {
        "settings": settings | {"n_loops": 2, "normaliser": 2.0, "n_parameters": 9, "weights_sha256": "0" * 64},
        "error_by_example": curves,
        **{part: {} for part in ("published", "shifts", "published_shifts")},
        "error_by_loop": {"last_point": [0.9, 0.1, 0.1, 0.2], "mean": [0.9, 0.5, 0.5, 0.5]},
    }


@pytest.fixture
def full_metrics(metrics):
    """With all that an evaluation of linear regression adds."""
    shift = dict.fromkeys(("model", "limit", "least squares", "zero"), CURVE)
    return metrics | {
        "limit": CURVE,
        "excess_over_limit": CURVE,
        "mean_excess": {"error": 0.01, "low": 0.0, "high": 0.02},
        "published": {"looped transformer": CURVE, "standard transformer": {"error": [1.0, 0.5]}},
        "shifts": {"skewed": shift, "scale_x_1/3": shift},
        "published_shifts": {"skewed": {"error": [None, 0.5, 0.2]}},
        "versions": {"torch": "<2>"},
        "settings": metrics["settings"] | {"limit": "least squares", "n_points_trained": 2},
    }


def test_shifts_are_drawn_where_there_are_some(metrics, full_metrics, tmp_path):
    assert [path.name for path in plot.draw(metrics, tmp_path)] == ["error.png", "error.svg"]
    names = [path.name for path in plot.draw(full_metrics, tmp_path)]
    assert names == ["error.png", "error.svg", "shifts.png", "shifts.svg"]
    axes = plot.shift_figure(full_metrics).axes
    assert [item.get_title() for item in axes[:2]] == ["skewed", "scale x 1/3"]
    lines = {line.get_label(): list(line.get_ydata()) for line in axes[0].get_lines()}
    assert lines["model"] == CURVE["error"]
    assert lines["standard transformer, published"][1:] == [0.5, 0.2]
    labels = plot.error_figure(full_metrics).axes[0].get_legend_handles_labels()[1]
    assert {"below the limit", "looped transformer, published", "longest trained prompt"} <= set(labels)
    plot.plt.close("all")


def test_the_report_holds_everything_in_one_file(full_metrics, tmp_path, monkeypatch):
    (tmp_path / "metrics.json").write_text(json.dumps(full_metrics))
    flags = ["--metrics", str(tmp_path / "metrics.json"), "--output_dir", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", ["report.py", *flags])
    report_program.main()
    report_program.main()  # it may replace its own
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("<svg") == 2
    for text in (
        "limit: least squares",
        "looped transformer, published",
        "scale x 1/3",
        "&lt;2&gt;",
        "0.01",
        "skewed",
    ):
        assert text in page
    assert not any(word in page for word in ("<script", "<img", "<link", "src="))  # nothing is fetched


def test_the_report_needs_no_more_than_the_first_keys(metrics):
    assert report.page(metrics).count("<svg") == 1


@pytest.mark.parametrize(
    ("value", "text"), [(0.12345, "0.123"), (-3e-14, "0"), (2e-9, "2e-09"), (7, "7"), ("", ""), (0.0, "0")]
)
def test_the_report_shows_no_round_off(value, text):
    assert report.shown(value) == text


def test_both_pictures_are_written_and_show_every_curve(metrics, tmp_path):
    png, svg = plot.draw(metrics, tmp_path)
    pixels = image.imread(png)
    assert pixels.shape[0] > 300
    assert pixels.std() > 0.05
    assert xml.etree.ElementTree.parse(svg).getroot().tag.endswith("svg")
    drawn = svg.read_text().lower()
    assert all(plot.COLOURS[name].lower() in drawn for name in metrics["error_by_example"])


def test_the_curves_are_the_metrics(metrics):
    axes = plot.plt.subplots()[1]
    plot.draw_by_example(axes, metrics)
    lines = {line.get_label(): list(line.get_ydata()) for line in axes.get_lines()}
    assert lines["least squares"] == metrics["error_by_example"]["least squares"]["error"]
    assert lines["looped model, 2 loops"] == metrics["error_by_example"]["model"]["error"]
    axes = plot.plt.subplots()[1]
    plot.draw_by_loop(axes, metrics)
    assert list(axes.get_lines()[0].get_xdata()) == [1, 2, 3, 4]
    assert list(axes.get_lines()[0].get_ydata()) == metrics["error_by_loop"]["last_point"]
    plot.plt.close("all")


def ink(figure, axes, colour):
    """Pixels of a colour inside of axes."""
    for legend in filter(None, (axes.get_legend() for axes in figure.axes)):
        legend.remove()
    figure.canvas.draw()
    pixels = np.asarray(figure.canvas.buffer_rgba())[::-1, :, :3] / 255
    box = axes.get_window_extent()
    inside = pixels[int(box.y0) : int(box.y1) + 1, int(box.x0) : int(box.x1) + 1]
    plot.plt.close(figure)
    return int((np.abs(inside - to_rgb(colour)).max(axis=2) < 0.2).sum())


def curve_of(values, spread=0.0):
    return {"error": values, "low": [v * (1 - spread) for v in values], "high": [v * (1 + spread) for v in values]}


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


@pytest.mark.parametrize("spread", [0.0, 0.3])
@pytest.mark.parametrize("name", SEEN)
def test_the_model_is_always_seen(name, spread, metrics):
    by_example, by_loop = SEEN[name]
    metrics["error_by_example"] = {"model": curve_of(by_example, spread)}
    metrics["error_by_loop"] = {"last_point": by_loop, "mean": by_loop}
    metrics["settings"] |= {"n_points": len(by_example), "n_loops": 1}
    for number in (0, 1):
        figure = plot.error_figure(metrics)
        assert ink(figure, figure.axes[number], plot.COLOURS["model"]) > 10, number


@pytest.mark.parametrize("errors", [[0.4], [0.0, 0.0], [1e-9, 1e-12], [1e5, 1e5], [0.4, 0.0]])
def test_the_model_is_seen_under_every_shift(errors, metrics):
    curve = curve_of(errors)
    metrics["shifts"] = {"skewed": {"model": curve, "limit": curve_of([0.0] * len(errors)), "zero": CURVE}}
    metrics["settings"]["n_points"] = len(errors)
    figure = plot.shift_figure(metrics)
    assert ink(figure, figure.axes[0], plot.COLOURS["model"]) > 10


def test_a_published_value_alone_is_seen(metrics):
    metrics["published"] = {"standard transformer": {"error": [0.4]}}
    metrics["error_by_example"] = {"model": metrics["error_by_example"]["model"]}
    figure = plot.error_figure(metrics)
    assert ink(figure, figure.axes[0], plot.COLOURS["standard transformer, published"]) > 10


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
    figure, axes = plot.plt.subplots()
    plot.draw_curve(axes, 1, {"error": [1 / n for n in range(1, n_loops + 1)]}, color="#D55E00")
    plot.loop_axis(axes, n_loops)
    plot.finish(axes)
    figure.canvas.draw()
    labels = [label.get_text() for label in axes.get_xticklabels()]
    assert axes.get_xscale() == ("log" if ticks else "linear")
    assert labels == ticks if ticks else all(label.isdigit() for label in labels)
    plot.plt.close(figure)


EVIL = "<script>alert(1)</script> $\\frac{$ & \"' \x00 {0} <!-- -->"


def test_whatever_a_record_says_is_shown_as_text(full_metrics, tmp_path):
    """Every text and every name of a record stands in the page escaped, and its figures draw it letter by letter."""
    metrics = full_metrics | {"versions": {EVIL: EVIL}, "shifts": {EVIL: full_metrics["shifts"]["skewed"]}}
    metrics["error_by_example"] = full_metrics["error_by_example"] | {EVIL: CURVE}
    metrics["published"] = full_metrics["published"] | {EVIL: CURVE}
    metrics["settings"] |= {"task": EVIL, "model": EVIL, "limit": EVIL, "seed": EVIL, EVIL: EVIL}
    path = tmp_path / "metrics.json"
    path.write_text(json.dumps(metrics))
    page = report.page(read_metrics(path))
    tags = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attributes: tags.append(tag)
    parser.feed(page)
    assert "script" not in tags
    assert "<script" not in page
    assert page.count("&lt;script&gt;") > 10
    for picture in plot.draw(metrics, tmp_path):
        if picture.suffix == ".svg":
            xml.etree.ElementTree.parse(picture)


@pytest.mark.parametrize("text", ["$x$", "a $ b", "$\\frac{$", "$$", "x_1^2", "\\$", "\t\x00x"])
def test_a_name_is_drawn_letter_by_letter(text):
    figure = plot.plt.figure()
    title = figure.suptitle(plot.plain(text))
    drawn, is_mathematics = title._preprocess_math(title.get_text())
    assert not is_mathematics
    assert drawn == "".join(letter for letter in text if letter.isprintable())
    plot.plt.close(figure)


def places(value, path=()):
    yield path
    if isinstance(value, dict):
        for name, part in value.items():
            yield from places(part, (*path, name))


def test_whatever_metrics_are_read_can_be_drawn(full_metrics, tmp_path, monkeypatch):
    """Each part of a record in turn is missing or something else: it is refused, or there is a page."""
    monkeypatch.setattr(report, "svg_of", plot.plt.close)  # the drawing is what takes seconds
    path, n_drawn = tmp_path / "metrics.json", 0
    for place in list(places(full_metrics))[1:]:
        for damage in (None, [], {}, "text", -1, True, 10**400, [None], [0.5], {"error": [0.5]}, "gone"):
            damaged = json.loads(json.dumps(full_metrics))
            parent = damaged
            for name in place[:-1]:
                parent = parent[name]
            parent[place[-1]] = damage
            if damage == "gone":
                del parent[place[-1]]
            path.write_text(json.dumps(damaged))
            try:
                metrics = read_metrics(path)
            except RecordError:
                continue
            n_drawn += 1
            if n_drawn % 8 == 0:  # a sample
                report.page(metrics)
    assert n_drawn > 50


def test_pictures_of_shifts_that_are_no_more_are_removed(metrics, full_metrics, tmp_path):
    plot.draw(full_metrics, tmp_path)
    plot.draw(metrics, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["error.png", "error.svg"]


@pytest.mark.parametrize("program", [plot, report], ids=lambda program: program.__name__)
@pytest.mark.parametrize("content", [b"{", b"[]", b"\x89PNG", json.dumps({"settings": {}}).encode()])
def test_a_file_that_is_no_metrics_is_refused(program, content, tmp_path, monkeypatch):
    path = tmp_path / "metrics.json"
    path.write_bytes(content)
    monkeypatch.setattr(sys, "argv", ["x.py", "--metrics", str(path), "--output_dir", str(tmp_path / "out")])
    with pytest.raises(SystemExit, match=r"error: .*metrics\.json") as refused:
        program.main()
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "out").exists()
