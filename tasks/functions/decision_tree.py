"""Full binary decision trees on the signs of the coordinates (Garg et al., 2022)."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch

from ..baselines.classical import (
    predict_3_nearest_neighbours,
    predict_boosted_trees,
    predict_greedy_tree,
)
from ..baselines.prefixes import Predictor
from ..common import FunctionClass, NamedPredictor, check_at_least_one, draw_normal


MOST_QUESTIONS = 16


@dataclass(frozen=True)
class DecisionTree(FunctionClass):
    """
    Every inner node asks whether one active coordinate, drawn uniformly, is positive; leaves are N(0, 1).

    The functions are drawn before the inputs, coordinates first, so `torch.Generator().manual_seed(42)` with 1,280
    prompts of 101 points regenerates the evaluation set of Yang et al. on a CPU.

    Args:
        depth (`int`, defaults to 4):
            Questions per x, from the root to a leaf, in 1 ... 16.
    """

    name = "decision_tree"
    description = "decision trees"
    headline_places: ClassVar = {"80 to 100": list(range(80, 101))}
    turns: ClassVar = "signed permutations"
    depth: int = 4

    def __post_init__(self):
        super().__post_init__()
        check_at_least_one(depth=self.depth)
        if self.depth > MOST_QUESTIONS:
            raise ValueError(f"`depth` must be <= {MOST_QUESTIONS}, got {self.depth}: a tree has 2 ** `depth` leaves.")

    @property
    def normaliser(self) -> float:
        return 1.0

    @property
    def n_hints(self) -> int:
        return self.n_dims

    @property
    def baselines(self) -> Mapping[str, Predictor]:
        return {
            **super().baselines,
            "greedy tree": partial(predict_greedy_tree, depth=2),
            "greedy tree, signs": partial(predict_greedy_tree, depth=4, signs=True),
            "XGBoost": predict_boosted_trees,
            "XGBoost, signs": partial(predict_boosted_trees, signs=True),
        }

    @property
    def limit(self) -> NamedPredictor | None:
        from ..limits.tree_posterior import MAX_DEPTH, predict_tree_posterior

        if self.depth > MAX_DEPTH:
            return None
        return NamedPredictor("posterior over trees", partial(predict_tree_posterior, depth=self.depth))

    @property
    def solver(self) -> NamedPredictor:
        return NamedPredictor("3-nearest neighbours", predict_3_nearest_neighbours)

    def draw_functions(self, n_prompts: int, n_dims_active: int, generator: torch.Generator) -> "DrawnTrees":
        shape = (n_prompts, 2 ** (self.depth + 1) - 1)
        coordinates = torch.randint(0, n_dims_active, shape, generator=generator, device=generator.device)
        return DrawnTrees(coordinates, draw_normal(shape, generator), self.depth)


class DrawnTrees:
    """
    A tree per prompt. Nodes are numbered level by level, the children of node k are 2k + 1 and 2k + 2.

    Args:
        coordinates (`torch.LongTensor` of shape `(n_prompts, n_nodes)`):
            The coordinate that each node asks for, used at the inner nodes.
        values (`torch.Tensor` of shape `(n_prompts, n_nodes)`):
            The value of each node, used at the leaves.
        depth (`int`):
            Questions asked of every x.
    """

    def __init__(self, coordinates: torch.Tensor, values: torch.Tensor, depth: int):
        self.coordinates, self.values, self.depth = coordinates, values, depth

    def __call__(self, xs: torch.Tensor) -> torch.Tensor:
        """Values `(n_prompts, n_points)` at xs `(n_prompts, n_points, n_dims)`."""
        leaves, _ = self._walk(xs)
        return self.values.gather(1, leaves)

    def hints(self, xs: torch.Tensor) -> torch.Tensor:
        """
        The box of every x's leaf, `(n_prompts, n_points, n_dims)`: the signs of the coordinates that were asked for on
        the way to the leaf, 0 elsewhere.
        """
        _, asked = self._walk(xs)
        signs = 2.0 * (xs > 0) - 1
        return torch.zeros_like(xs).scatter(2, asked, signs.gather(2, asked))

    def _walk(self, xs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The leaf of every x, `(n_prompts, n_points)`, and the coordinates asked for, `(..., depth)`."""
        nodes = torch.zeros(xs.shape[:2], dtype=torch.long, device=xs.device)
        asked = []
        for _ in range(self.depth):
            asked.append(self.coordinates.gather(1, nodes))
            is_positive = xs.gather(2, asked[-1].unsqueeze(-1)).squeeze(-1) > 0
            nodes = 2 * nodes + 1 + is_positive
        return nodes, torch.stack(asked, dim=2)
