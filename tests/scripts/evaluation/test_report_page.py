"""The page shows all of a record, and whatever a record says as text."""

import copy
import json
import xml.etree.ElementTree
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from matplotlib import pyplot as plt

from scripts.common.records import RecordError
from scripts.evaluation import report_page
from scripts.evaluation.figures import plot_metrics
from scripts.evaluation.metrics_record import Metrics
from scripts.evaluation.report_page import cell_text, render_page


def test_the_page_holds_everything_in_one_file(full_metrics):
    text = render_page(full_metrics)
    assert text.count("<svg") == 4
    for part in (
        *("limit: least squares", "looped transformer, published", "scale x 1/3", "&lt;2&gt;", "0.01", "skewed"),
        *("<h3>sparse</h3>", "in-context examples", "Squared errors divided by that of predicting 0."),
    ):
        assert part in text
    assert not any(word in text for word in ("<script", "<img", "<link", "src="))  # nothing is fetched


def test_the_page_needs_no_more_than_the_least(metrics):
    assert render_page(metrics).count("<svg") == 1


def test_the_page_calls_scores_and_places_by_their_names(metrics):
    changes = {"score": "share of wrong answers", "place": "pointers to follow", "n_dims": None, "normaliser": None}
    text = render_page(replace(metrics, settings=replace(metrics.settings, task="chains", **changes)))
    assert "<h1>linear on chains</h1>" in text
    assert "Errors: share of wrong answers." in text
    assert "<h2>Error by number of pointers to follow</h2>" in text
    assert "<td>n_dims</td>" not in text


@pytest.mark.parametrize(
    ("value", "text"), [(0.12345, "0.123"), (-3e-14, "0"), (2e-9, "2e-09"), (7, "7"), ("", ""), (0.0, "0")]
)
def test_the_page_shows_no_round_off(value, text):
    assert cell_text(value) == text


EVIL = "<script>alert(1)</script> $\\frac{$ & \"' \x00 {0} <!-- -->"


def test_whatever_a_record_says_is_shown_as_text(full_metrics, tmp_path):
    """Every text and every name of a record stands in the page escaped, and its figures draw it letter by letter."""
    curve = full_metrics.limit
    texts = dict.fromkeys(("task", "task_trained", "model", "limit", "weights_sha256", "score", "place"), EVIL)
    metrics = replace(
        full_metrics,
        settings=replace(full_metrics.settings, **texts),
        error_by_example=full_metrics.error_by_example | {EVIL: curve},
        shifts={EVIL: full_metrics.shifts["skewed"]},
        published={EVIL: curve},
        components={EVIL: full_metrics.components["sparse"]},
        versions={EVIL: EVIL},
    )
    metrics.write(tmp_path / "metrics.json")
    text = render_page(Metrics.read(tmp_path / "metrics.json"))
    tags = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attributes: tags.append(tag)
    parser.feed(text)
    assert "script" not in tags
    assert "<script" not in text
    assert text.count("&lt;script&gt;") > 10
    for picture in plot_metrics(metrics, tmp_path):
        if picture.suffix == ".svg":
            xml.etree.ElementTree.parse(picture)


def places(value, path=()):
    yield path
    if isinstance(value, dict):
        for name, part in value.items():
            yield from places(part, (*path, name))


def test_whatever_metrics_are_read_can_be_drawn(full_metrics, tmp_path, monkeypatch):
    """Each part of a record in turn is missing or something else: it is refused, or there is a page."""
    monkeypatch.setattr(report_page, "svg_of", plt.close)  # the drawing is what takes seconds
    full_metrics.write(tmp_path / "metrics.json")
    content, n_drawn = json.loads((tmp_path / "metrics.json").read_text()), 0
    for place in list(places(content))[1:]:
        for damage in (None, [], {}, "text", -1, True, 10**400, [None], [0.5], {"error": [0.5]}, "gone"):
            damaged = copy.deepcopy(content)
            parent = damaged
            for name in place[:-1]:
                parent = parent[name]
            parent[place[-1]] = damage
            if damage == "gone":
                del parent[place[-1]]
            try:
                metrics = Metrics.from_dict(damaged)
            except RecordError:
                continue
            n_drawn += 1
            if n_drawn % 8 == 0:  # a sample
                render_page(metrics)
    assert n_drawn > 50
