"""The record beside a model and its table, which says who is best in each row."""

import json
from dataclasses import replace

import pytest

from scripts.common.records import RecordError
from scripts.evaluation.metrics_record import Interval
from scripts.specialists.record import HEADS, Comparison, Row


ROW = Row(
    figure="linear",
    examples="20",
    target=0.03,
    limit=0.001,
    solvers={"ridge": 0.2, "zero": 1.0},
    published={"looped transformer": 0.1},
    specialists={"linear_regression": 0.05},
    model=0.06,
    difference=Interval(0.01, 0.005, 0.015),
)
ROWS = [
    ROW,
    replace(ROW, figure="scaled", target=None, published={}, is_shift=True, model=0.01),
    replace(ROW, figure="skewed", solvers={"least squares": 0.0}, is_shift=True, specialists={"a": 0.5, "b": 0.4}),
    replace(ROW, figure="R²", more_is_better=True, published={}, specialists={"a": 0.5, "b": 0.65}, model=0.7),
]
COMPARISON = Comparison({"weights_sha256": "0" * 64, "n_prompts": 8}, ROWS)


def test_a_row_says_who_is_best_and_what_the_best_of_each_kind_reached():
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in COMPARISON.table.splitlines()]
    assert lines[0] == ["error", *HEADS]
    assert lines[2:] == [
        ["linear", "20", "0.03", "0.001", "0.2, ridge", "0.1", "**0.05**", "0.06", "linear regression specialist"],
        ["scaled", "20", "-", "0.001", "0.2, ridge", "-", "0.05", "**0.01**", "this model"],
        ["skewed", "20", "0.03", "0.001", "**0**", "0.1", "0.4, b specialist", "0.06", "least squares"],
        ["R²", "20", "0.03", "0.001", "**1**, zero", "-", "0.65, b specialist", "0.7", "zero"],
    ]


def test_the_summary_counts_shifts_alone():
    assert [row.beats_the_specialist for row in ROWS] == [False, True, True, True]
    assert [row.is_near_the_limit for row in ROWS[:3]] == [False, True, False]
    assert "On 2 kinds of shifted prompts it is better than the specialist on 2" in COMPARISON.summary
    assert COMPARISON.summary.endswith("+ 0.01 on 1.")


def test_what_is_written_is_read_again(tmp_path):
    path = COMPARISON.write(tmp_path)
    assert Comparison.read(path) == COMPARISON


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content.pop("rows"),
        lambda content: content["settings"].pop("weights_sha256"),
        lambda content: content["rows"][0].pop("limit"),
        lambda content: content["rows"][0].update(difference=3),
        lambda content: content["rows"][0].update(colour="red"),
        lambda content: content.update(rows=3),
        lambda content: content.update(rows=["row"]),
    ],
)
def test_another_file_is_refused_in_one_line_that_names_it(damage, tmp_path):
    path = COMPARISON.write(tmp_path)
    content = json.loads(path.read_text())
    damage(content)
    path.write_text(json.dumps(content))
    with pytest.raises(
        RecordError, match=r"specialists\.json is not what scripts/compare_specialists\.py writes"
    ) as refused:
        Comparison.read(path)
    assert "\n" not in str(refused.value)
