"""Full binary decision trees on the signs of the coordinates (Garg et al., 2022)."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from .common import Task, check_at_least_one, draw_normal


@dataclass(frozen=True)
class DecisionTree(Task):
    """
    Every inner node asks whether one active coordinate, drawn uniformly, is positive; leaves are N(0, 1).

    The functions are drawn before the inputs, coordinates first, so `torch.Generator().manual_seed(42)` with 1,280
    prompts of 101 points regenerates the evaluation set of Yang et al. on a CPU.

    Args:
        depth (`int`, defaults to 4):
            Questions asked of every x, >= 1.
    """

    name = "decision_tree"
    depth: int = 4

    def __post_init__(self):
        super().__post_init__()
        check_at_least_one(depth=self.depth)

    @property
    def normaliser(self) -> float:
        return 1.0

    def draw_functions(
        self, n_prompts: int, n_dims_active: int, generator: torch.Generator
    ) -> Callable[[torch.Tensor], torch.Tensor]:
        # nodes are numbered level by level, the children of node k are 2k + 1 and 2k + 2
        shape = (n_prompts, 2 ** (self.depth + 1) - 1)
        coordinates = torch.randint(0, n_dims_active, shape, generator=generator, device=generator.device)
        values = draw_normal(shape, generator)

        def function(xs: torch.Tensor) -> torch.Tensor:
            nodes = torch.zeros(xs.shape[:2], dtype=torch.long, device=xs.device)
            for _ in range(self.depth):
                asked = xs.gather(2, coordinates.gather(1, nodes).unsqueeze(-1)).squeeze(-1)
                nodes = 2 * nodes + 1 + (asked > 0)
            return values.gather(1, nodes)

        return function
