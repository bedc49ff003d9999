import json
import sys
import xml.etree.ElementTree

import pytest
from matplotlib import image

from scripts import plot


@pytest.fixture
def metrics():
    curves = {
        name: {"error": [1.0, 0.5, 0.1], "low": [0.9, 0.4, 0.05], "high": [1.1, 0.6, 0.2]} for name in plot.COLOURS
    }
    return {
        "settings": {"task": "linear_regression", "n_dims": 2, "n_points": 3, "n_prompts": 8, "n_loops": 2},
        "error_by_example": curves,
        "error_by_loop": {"last_point": [0.9, 0.1, 0.1, 0.2], "mean": [0.9, 0.5, 0.5, 0.5]},
    }


def test_both_pictures_are_written_and_show_every_curve(metrics, tmp_path):
    png, svg = plot.draw(metrics, tmp_path / "new")
    pixels = image.imread(png)
    assert pixels.shape[0] > 300
    assert pixels.std() > 0.05
    assert xml.etree.ElementTree.parse(svg).getroot().tag.endswith("svg")
    drawn = svg.read_text().lower()
    assert all(colour.lower() in drawn for colour in plot.COLOURS.values())


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
