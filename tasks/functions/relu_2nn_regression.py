"""Random 2-layer ReLU networks (Garg et al., 2022)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch

from ..baselines.classical import predict_3_nearest_neighbours, predict_relu_network
from ..baselines.prefixes import Predictor
from ..common import FunctionClass, NamedPredictor, check_at_least_one, draw_normal
from ..limits.arc_cosine_kernel import predict_arc_cosine_kernel


@dataclass(frozen=True)
class Relu2nnRegression(FunctionClass):
    """
    y = sqrt(2 / hidden_size) · a·relu(W x) with all weights N(0, 1), so that the mean square of y is `n_dims`.

    Args:
        hidden_size (`int`, defaults to 100):
            Hidden units, >= 1.
    """

    name = "relu_2nn_regression"
    description = "two-layer ReLU networks"
    headline_places: ClassVar = {"80 to 100": list(range(80, 101))}
    turns: ClassVar = "rotations"
    hidden_size: int = 100

    def __post_init__(self):
        super().__post_init__()
        check_at_least_one(hidden_size=self.hidden_size)

    @property
    def normaliser(self) -> float:
        return float(self.n_dims)

    @property
    def baselines(self) -> Mapping[str, Predictor]:
        return {**super().baselines, "2-layer network": predict_relu_network}

    @property
    def limit(self) -> NamedPredictor:
        """The best predictor linear in y, close to the posterior mean of networks this wide."""
        return NamedPredictor("arc-cosine kernel", predict_arc_cosine_kernel)

    @property
    def solver(self) -> NamedPredictor:
        return NamedPredictor("3-nearest neighbours", predict_3_nearest_neighbours)

    def draw_functions(
        self, n_prompts: int, n_dims_active: int, generator: torch.Generator
    ) -> Callable[[torch.Tensor], torch.Tensor]:
        hidden = draw_normal((n_prompts, self.n_dims, self.hidden_size), generator)
        output = draw_normal((n_prompts, self.hidden_size, 1), generator)
        scale = (2 / self.hidden_size) ** 0.5
        return lambda xs: scale * ((xs @ hidden).relu() @ output).squeeze(-1)
