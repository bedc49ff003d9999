import json
import sys
import xml.etree.ElementTree

import pytest
from matplotlib import image

from scripts import plot, report


CURVE = {"error": [1.0, 0.5, 0.1], "low": [0.9, 0.4, 0.05], "high": [1.1, 0.6, 0.2]}


@pytest.fixture
def metrics():
    curves = {name: CURVE for name in plot.COLOURS if "published" not in name}
    return {
        "settings": {"task": "linear_regression", "n_dims": 2, "n_points": 3, "n_prompts": 8, "n_loops": 2},
        "error_by_example": curves,
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
        "settings": metrics["settings"] | {"limit": "least squares", "model": "linear", "n_points_trained": 2},
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
    report.main()
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
    metrics["settings"]["model"] = "linear"
    assert report.page(metrics).count("<svg") == 1


@pytest.mark.parametrize(
    ("value", "text"), [(0.12345, "0.123"), (-3e-14, "0"), (2e-9, "2e-09"), (7, "7"), ("", ""), (0.0, "0")]
)
def test_the_report_shows_no_round_off(value, text):
    assert report.shown(value) == text


def test_both_pictures_are_written_and_show_every_curve(metrics, tmp_path):
    png, svg = plot.draw(metrics, tmp_path / "new")
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


@pytest.mark.parametrize("content", [b"{", b"[]", b"\x89PNG", json.dumps({"settings": {}}).encode()])
def test_a_file_that_is_no_metrics_is_refused(content, tmp_path, monkeypatch):
    path = tmp_path / "metrics.json"
    path.write_bytes(content)
    monkeypatch.setattr(sys, "argv", ["plot.py", "--metrics", str(path), "--output_dir", str(tmp_path / "out")])
    with pytest.raises(SystemExit, match="is not the output of scripts/evaluate"):
        plot.main()
