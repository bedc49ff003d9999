"""The numbers published with the papers, to be shown beside ours; `published.json` names the source of each."""

import json
from functools import cache
from pathlib import Path
from typing import Any


@cache
def published() -> dict[str, Any]:
    """
    All of `published.json`.

    `tasks[name]["curves"]` and `shifts["curves"]` hold curves by name: `"error"` by number of examples, `"low"` and
    `"high"` of the 90% interval where they were printed, and `"digitisation_error"` where the errors were read from a
    picture. `probing` holds the errors of figure 8, `openml` accuracies on tables, `lengths` how long questions may
    be that models of sequences answer. Every part names its `"source"`.
    """
    return json.loads(Path(__file__).with_name("published.json").read_text())


def published_curves(task: str, n_dims: int) -> dict[str, dict[str, list[float | None]]]:
    """Published curves of a function class by its name; empty where the papers have none in `n_dims` dimensions."""
    entry = published()["tasks"].get(task)
    return entry["curves"] if entry and n_dims == 20 else {}
