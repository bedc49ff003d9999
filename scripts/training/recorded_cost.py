"""What a training run took, from the records in its folder: floating-point operations and seconds."""

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

from transformers.utils import cached_file

from scripts.common.records import RecordError, read_json, read_json_lines


def training_seconds(log: list[dict[str, float]]) -> float:
    """Time of all steps of a run's log, from the mean time of a step in every report."""
    reports = [{"step": 0}] + [line for line in log if "seconds_per_step" in line]
    if len(reports) == 1:
        raise ValueError("log.jsonl reports no step")
    return sum((now["step"] - before["step"]) * now["seconds_per_step"] for before, now in pairwise(reports))


def total_flops(environment: dict[str, Any]) -> float:
    """Operations of a run by its environment.json, those of the model that it started from included."""
    return environment["flops"] + environment.get("initial_model", {"flops": 0})["flops"]


def recorded_cost(name: str) -> dict[str, float] | None:
    """
    What it took to train the model `name`, a folder or Hub repository: `flops` and `seconds`, the runs that its own
    started from included; `None` where it brings no record.

    Raises:
        [`RecordError`]: it brings a record that is damaged, or of another shape.
    """
    try:
        environment, log = (Path(cached_file(name, file)) for file in ("environment.json", "log.jsonl"))
    except OSError:
        return None
    record, lines = read_json(environment), read_json_lines(log)
    try:
        seconds = training_seconds(lines) + record.get("initial_model", {"seconds": 0})["seconds"]
        cost = {"flops": total_flops(record), "seconds": seconds}
        if not all(math.isfinite(value) and value >= 0 for value in cost.values()):
            raise ValueError(f"{cost} must be numbers >= 0")
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        raise RecordError(f"{environment} and {log.name} do not tell what the run took ({error!r}).") from None
    return cost
