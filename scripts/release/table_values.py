"""What a card shows of a model of tables: what it takes, how it is used, and what it is worth on real ones."""

from typing import Any

from scripts.release.markdown import Markdown, number, table
from scripts.release.record import Record
from scripts.release.suite_record import SuiteRecord


# by kind of target: what it is called, the estimator that answers it, and answers of an example
KINDS = {
    "classification": ("class", "InContextClassifier", ('"no"', '"yes"', '"yes"')),
    "regression": ("value", "InContextRegressor", ("2.5", "9.1", "7")),
}


def suite_values(suite: SuiteRecord) -> dict[str, Any]:
    """What the page shows of the suite."""
    compared = suite.compared(suite.middle)
    own = compared.pop("this model")
    ranks = {name: entry[suite.ranked_by]["mean"] for name, entry in compared.items()}
    best = min(ranks, key=ranks.__getitem__)
    return {
        "split": suite.split,
        "rows": suite.middle["rows"],
        "n_tables": len(suite.middle["tables"]),
        "n_methods": 1 + len(ranks),
        "measure": suite.measure,
        "own_rank": f"{own[suite.ranked_by]['mean']:.2f}",
        "best": best,
        "best_rank": f"{ranks[best]:.2f}",
        "tables": suite.tables(),
        "loops": suite.loops(),
        **suite.extremes(),
    }


def table_values(record: Record) -> dict[str, Any]:
    """The variables of model_cards/tasks/tables.md."""
    task, config, certainty = record.task, record.config, record.metrics.certainty
    target, estimator, answers = KINDS[task.kind]
    suite = None
    if record.suite is not None:
        suite = suite_values(SuiteRecord(record.suite, record.metrics.settings, config["n_loops"]))
    return {
        "target": target,
        "estimator": Markdown(estimator),
        "answers": [Markdown(answer) for answer in answers],
        "n_columns": task.n_columns,
        "n_dims": task.n_dims,
        "n_rows": task.n_points,
        "n_labels": task.model_fields.get("num_labels"),
        "suite": suite,
        "certainty": certainty
        and table(["value"], "measure", {name: [number(value)] for name, value in certainty.items()}),
    }
