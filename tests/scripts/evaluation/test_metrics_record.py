"""A record of an evaluation is read whole, as it was written, or refused in one line that names what is wrong."""

import copy
import functools
import json
from dataclasses import replace
from pathlib import Path

import pytest

from scripts.common.records import RecordError
from scripts.evaluation.metrics_record import Curve, Metrics


RELEASES = sorted((Path(__file__).parents[3] / "model_cards").glob("*/metrics.json"))
CURVE = Curve([1.0, 0.5, 0.1], [0.9, 0.4, 0.05], [1.1, 0.6, 0.2])


@pytest.mark.parametrize("path", RELEASES, ids=lambda path: path.parent.name)
def test_the_metrics_of_the_releases_keep_every_value_and_name(path, tmp_path):
    Metrics.read(path).write(tmp_path / "metrics.json")
    written, released = (json.loads(file.read_text()) for file in (tmp_path / "metrics.json", path))
    added = {"score": "normalised squared error", "place": "in-context examples", "first_place": 0, "place_step": 1}
    assert written == released | {"settings": added | released["settings"]}


def test_what_is_written_is_read(metrics, full_metrics, tmp_path):
    for record in (metrics, full_metrics):
        record.write(tmp_path / "metrics.json")
        assert Metrics.read(tmp_path / "metrics.json") == record


def test_older_metrics_lack_what_came_later(evaluated):
    path = evaluated / "metrics.json"
    assert json.loads(path.read_text()).keys() == {"settings", "error_by_example", "error_by_loop", "versions"}
    metrics = Metrics.read(path)
    assert metrics.published == metrics.shifts == metrics.published_shifts == metrics.components == {}
    assert metrics.limit is metrics.mean_excess is metrics.settings.limit is None
    assert (metrics.settings.score, metrics.settings.place) == ("normalised squared error", "in-context examples")


def test_a_published_curve_under_a_shift_may_be_longer_and_hidden_in_part(metrics):
    curve = Curve([None, 1.0, *[0.5] * 39])
    assert replace(metrics, published_shifts={"skewed": curve}).published_shifts["skewed"] == curve
    with pytest.raises(RecordError, match=r"`published_shifts\.skewed\.error` must have 1"):
        replace(metrics, published_shifts={"skewed": Curve([])})


def test_what_newer_versions_add_is_left_alone(metrics, tmp_path):
    metrics.write(tmp_path / "metrics.json")
    content = json.loads((tmp_path / "metrics.json").read_text())
    content["settings"]["more"] = content["more"] = content["error_by_example"]["model"]["more"] = [{}]
    (tmp_path / "metrics.json").write_text(json.dumps(content))
    assert Metrics.read(tmp_path / "metrics.json") == metrics


def places(value, path=()):
    """Every place in nested mappings, not inside lists."""
    yield path
    if isinstance(value, dict):
        for name, part in value.items():
            yield from places(part, (*path, name))


NAN, INFINITY = float("nan"), float("inf")
WRONG = {
    dict: ([], "text", -1, True),
    list: ([], {}, "text", -1, True, [NAN], [INFINITY], [True], ["text"], [[]]),
    str: ([], {}, -1, True),
    int: ([], {}, "text", -1, 1.5, True, NAN, 10**400),
    float: ([], {}, "text", True, NAN, -INFINITY, 10**400),
}
NEEDED = {
    ("settings", name) for name in ("model", "task", "n_points", "n_prompts", "n_loops", "n_parameters", "limit")
}
NEEDED |= {("settings",), ("error_by_example",), ("error_by_example", "model"), ("excess_over_limit",)}
NEEDED |= {("error_by_example", "model", part) for part in ("error", "low", "high")}
NEEDED |= {("error_by_loop",), ("error_by_loop", "last_point"), ("error_by_loop", "mean"), ("limit", "error")}
NEEDED |= {("mean_excess", "low"), ("shifts", "skewed", "model"), ("published", "looped transformer", "error")}


def at(content, place):
    """The mapping that holds a place."""
    return functools.reduce(lambda mapping, name: mapping[name], place[:-1], content)


def test_every_damaged_field_is_refused_by_name(full_metrics, tmp_path):
    full_metrics.write(tmp_path / "metrics.json")
    content = json.loads((tmp_path / "metrics.json").read_text())
    for place in list(places(content))[1:]:
        is_version = place[0] == "versions" and len(place) > 1  # of whatever kind
        damages = () if is_version else WRONG[type(at(content, place)[place[-1]])]
        for damage in (*damages, *((None, "gone") if place in NEEDED else ())):
            spoilt = copy.deepcopy(content)
            at(spoilt, place)[place[-1]] = damage
            if damage == "gone":
                del at(spoilt, place)[place[-1]]
            with pytest.raises(RecordError) as refused:
                Metrics.from_dict(spoilt)
            field = ".".join(name for name in place if name not in ("components", "sparse")) or "components"
            named = str(refused.value).split("`")[1]
            assert named.startswith(field) or field.startswith(named), (place, damage)


def test_a_refusal_is_one_line_that_names_the_file(tmp_path):
    path = tmp_path / "metrics.json"
    for content in (
        "{}",
        '{"settings": []}',
        '{"settings": {"model": "a\\nb"}}',
        '{"error_by_loop": {"a\\nb": 3}}',
        "[]",
    ):
        path.write_text(json.dumps(content))
        with pytest.raises(RecordError, match=str(path)) as refused:
            Metrics.read(path)
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda m: replace(m, error_by_example={"zero": CURVE}), "error_by_example.model"),
        (lambda m: replace(m, error_by_example={"model": Curve([1.0, 0.5, 0.1])}), "error_by_example.model"),
        (lambda m: replace(m, excess_of_baselines={"zero": Curve([1.0] * 4)}), "excess_of_baselines.zero.error"),
        (lambda m: replace(m, published={"paper": Curve([1.0, None])}), "published.paper.error"),
        (lambda m: replace(m, shifts={"a": {"zero": CURVE}}), "shifts.a"),
        (lambda m: replace(m, shifts={"a": {"model": CURVE}, "b": {"model": CURVE, "zero": CURVE}}), "shifts.b"),
        (lambda m: replace(m, limit=CURVE), "settings.limit"),
        (lambda m: replace(m, error_by_loop={"last_point": [1.0, 1.0]}), "error_by_loop.mean"),
        (lambda m: replace(m, error_by_loop={"last_point": [1.0], "mean": [1.0]}), "error_by_loop.last_point"),
        (lambda m: replace(m, settings=replace(m.settings, n_loops=0)), "settings.n_loops"),
    ],
)  # fmt: skip
def test_parts_that_do_not_go_together_cannot_be_a_record(damage, named, metrics):
    with pytest.raises(RecordError, match=f"^`{named}` must "):
        damage(metrics)
