"""The scores of a model after any number of loops, of prompts that may differ in shape."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tasks import Task
from tasks.common import Prompts


@dataclass(frozen=True)
class LoopScores:
    """
    Prompts in parts of one shape each, and the answers of a model to them.

    Args:
        task ([`~tasks.Task`]), parts (`Sequence` of `dict`):
            What is answered: N prompts in all.
        by_loop (`Sequence` of `np.ndarray`):
            Of each part the answers after every loop, `(B, L, ...)`.
    """

    task: Task
    parts: Sequence[Prompts]
    by_loop: Sequence[np.ndarray]

    @property
    def n_prompts(self) -> int:
        """Prompts N in all parts."""
        return sum(map(len, self.by_loop))

    @property
    def n_loops(self) -> int:
        """The last loop L."""
        return self.by_loop[0].shape[1]

    def after(self, n_loops: int | np.ndarray) -> np.ndarray:
        """The scores `(N, places)` after so many loops, or after those `(N,)` of each prompt, at most L."""
        own = np.broadcast_to(n_loops, self.n_prompts)
        scores, start = [], 0
        for answers, prompts in zip(self.by_loop, self.parts, strict=True):
            last = own[start : start + len(answers)] - 1
            scores.append(self.task.score(answers[np.arange(len(answers)), last], prompts))
            start += len(answers)
        return np.concatenate(scores)


def first_prompts(parts: Sequence[Prompts], n_prompts: int) -> tuple[list[Prompts], list[Prompts]]:
    """Split parts into those of the first `n_prompts` and those of the others, without empty ones."""
    some, others = [], []
    for prompts in parts:
        n_here = min(n_prompts, len(prompts["labels"]))
        n_prompts -= n_here
        for group, rows in ((some, slice(n_here)), (others, slice(n_here, None))):
            part = {name: values[rows] for name, values in prompts.items()}
            group.extend([part] if len(part["labels"]) else [])
    return some, others
