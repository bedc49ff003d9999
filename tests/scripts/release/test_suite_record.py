"""What a card shows of a suite is what its summary says of this model."""

from dataclasses import replace

import pytest

from scripts.evaluation.metrics_record import Settings
from scripts.release.files import ReleaseError
from scripts.release.suite_record import SuiteRecord


SETTINGS = Settings(
    model="tables", task="table_prior", n_points=5, n_prompts=8, n_loops=2, n_parameters=9, weights_sha256="a" * 64
)
# R² at four tables, of two classical methods, of the model after 1, 2 and 4 loops, and of another model
R2 = {
    "first": (0.1, 0.2, 0.3, 0.4),
    "second": (0.2, 0.1, 0.2, 0.3),
    "mine, 1 loops": (0.0, 0.0, 0.0, 0.0),
    "mine, 4 loops": (0.5, 0.5, 0.5, 0.5),
    "mine, 2 loops": (0.15, 0.3, 0.1, 0.9),
    "other": (1.0, 1.0, 1.0, 1.0),
}


def metrics_of(r2):
    return {"r2": r2, "pinball": 0.3 - r2 / 10, "coverage": 0.9, "fit_seconds": 1.0, "predict_seconds": 2.0}


@pytest.fixture
def summary():
    tables = {f"MASS/t{n}": {name: metrics_of(values[n]) for name, values in R2.items()} for n in range(4)}
    methods = {name: metrics_of(sum(values) / 4) for name, values in R2.items()}
    return {
        "split": "judged",
        "models": {
            "mine": {"weights_sha256": "a" * 64, "n_loops": {name: int(name[6]) for name in R2 if "mine" in name}},
            "other": {"weights_sha256": "b" * 64, "n_loops": {"other": None}},
        },
        "comparisons": [
            {"kind": "regression", "rows": rows, "methods": methods, "tables": tables} for rows in (500, 50, 200)
        ],
    }


def test_the_model_is_ranked_among_the_classical_methods_alone_at_its_trained_loops(summary):
    suite = SuiteRecord(summary, SETTINGS, n_loops=2)
    compared = suite.compared(suite.middle)
    assert list(compared) == ["this model", "first", "second"]
    ranks = [entry["rank_by_r2"]["mean"] for entry in compared.values()]
    assert ranks == pytest.approx([(2 + 1 + 3 + 1) / 4, (3 + 2 + 1 + 2) / 4, (1 + 3 + 2 + 3) / 4])
    assert compared["this model"]["r2"] == pytest.approx(sum(R2["mine, 2 loops"]) / 4)
    assert suite.middle["rows"] == 200
    assert {rows: part["n_tables"] for rows, part in suite.tables().items()} == {500: 4, 50: 4, 200: 4}
    row = next(line for line in suite.tables()[50]["methods"].splitlines() if "this model" in line)
    assert row.startswith("| **this model** | 1.75 [")
    assert row.endswith("] | 0.362 | 0.264 | 0.9 | 1 | 2 |")


def test_loops_are_in_their_order_and_the_best_and_the_worst_tables_named(summary):
    suite = SuiteRecord(summary, SETTINGS, n_loops=2)
    assert [line[:9] for line in suite.loops().splitlines()[2:]] == ["| 1 | 0 |", "| 2 | 0.3", "| 4 | 0.5"]
    behind, ahead = (suite.extremes()[side].splitlines()[2:] for side in ("behind", "ahead"))
    assert behind[0] == "| MASS/t2 | 0.100 | first | 0.300 | -0.200 |"
    assert ahead[0] == "| MASS/t3 | 0.900 | first | 0.400 | +0.500 |"
    assert [line.split()[1] for line in ahead] == ["MASS/t3", "MASS/t1", "MASS/t0"]


def test_the_trained_loops_may_go_by_no_number(summary):
    summary["models"]["mine"]["n_loops"] = {"mine, 2 loops": None}
    suite = SuiteRecord(summary, SETTINGS, n_loops=2)
    assert suite.by_loops == {2: "mine, 2 loops"}
    assert suite.loops() is None


@pytest.mark.parametrize(
    ("n_loops", "weights", "message"),
    [
        (2, "c" * 64, "run on other weights than metrics.json"),
        (3, "a" * 64, "trained number of loops, 3: run .*--n_lo"),
    ],
)
def test_a_suite_of_another_model_is_refused(n_loops, weights, message, summary):
    with pytest.raises(ReleaseError, match=message):
        SuiteRecord(summary, replace(SETTINGS, weights_sha256=weights), n_loops)
