"""Schedules of the curriculum, each a pure function of the step, so a checkpoint need not hold their state."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Schedule:
    """
    A count that starts at `start` and grows by `increment` every `interval` steps until it reaches `end`.

    Args:
        start (`int`), end (`int`):
            First and last value, 1 <= start <= end.
        increment (`int`, defaults to 1):
            What is added each time, >= 1.
        interval (`int`, defaults to 1):
            Steps between two additions, >= 1.
        hold (`int`, defaults to 0):
            Steps at `start` before the first interval begins, >= 0.

    Source: Garg et al. (2022), section 3; `hold` is this project's.
    """

    start: int
    end: int
    increment: int = 1
    interval: int = 1
    hold: int = 0

    def __post_init__(self):
        if not 1 <= self.start <= self.end:
            raise ValueError(f"A schedule must have 1 <= `start` <= `end`, got start {self.start} and end {self.end}.")
        if self.increment < 1 or self.interval < 1:
            raise ValueError(f"`increment` and `interval` must be >= 1, got {self.increment} and {self.interval}.")
        if self.hold < 0:
            raise ValueError(f"`hold` must be >= 0, got {self.hold}.")

    def at(self, step: int) -> int:
        """Value at `step` (counted from 0)."""
        growths = max(0, step - self.hold) // self.interval
        return min(self.end, self.start + self.increment * growths)


def draw_n_loops(seed: int, step: int, low: int, high: int) -> int:
    """Loop count of `step`, uniform in `low` ... `high`: the same on every process, whatever ran before."""
    return int(np.random.default_rng([seed, step]).integers(low, high, endpoint=True))
