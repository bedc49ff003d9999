"""What a training run takes: floating-point operations from its recipe alone, seconds from its log."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

from transformers.utils import cached_file

from scripts.arguments import Arguments


def training_flops(arguments: Arguments) -> int:
    """
    Floating-point operations of the matrix products of a run, a multiply-add counted as two.

    A block of width E costs 24 E^2 + 4 N E a token of an N-token prompt (projections and MLP, scores and weighted
    sum); loops before the window run forward only, those in it forward and backward, three times as much. Read-in,
    read-out and the optimizer, well under 1% together, are left out.

    Args:
        arguments ([`Arguments`]):
            The run; its curriculum and loop counts are followed step by step.
    """
    model, optimization = arguments.model, arguments.optimization
    n_points = arguments.stream.n_points
    total = 0
    for step in range(optimization.max_steps):
        n_loops, loop_window = arguments.loops.at(step, model.n_loops, optimization.seed)
        n_tokens = 2 * n_points.at(step) - 1
        block = n_tokens * (24 * model.n_embd**2 + 4 * n_tokens * model.n_embd)
        total += block * (n_loops + 2 * (loop_window or n_loops))
    return total * optimization.batch_size * model.n_layer


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
    """
    try:
        environment, log = (Path(cached_file(name, file)) for file in ("environment.json", "log.jsonl"))
    except OSError:
        return None
    record: dict[str, Any] = json.loads(environment.read_text())
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    before = record.get("initial_model", {"seconds": 0})
    return {"flops": total_flops(record), "seconds": training_seconds(lines) + before["seconds"]}
