"""Random 2-layer ReLU networks (Garg et al., 2022)."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from .common import Task, check_at_least_one, draw_normal


@dataclass(frozen=True)
class Relu2nnRegression(Task):
    """
    y = sqrt(2 / hidden_size) · a·relu(W x) with all weights N(0, 1), so that the mean square of y is `n_dims`.

    Args:
        hidden_size (`int`, defaults to 100):
            Hidden units, >= 1.
    """

    name = "relu_2nn_regression"
    hidden_size: int = 100

    def __post_init__(self):
        super().__post_init__()
        check_at_least_one(hidden_size=self.hidden_size)

    @property
    def normaliser(self) -> float:
        return float(self.n_dims)

    def draw_functions(
        self, n_prompts: int, n_dims_active: int, generator: torch.Generator
    ) -> Callable[[torch.Tensor], torch.Tensor]:
        hidden = draw_normal((n_prompts, self.n_dims, self.hidden_size), generator)
        output = draw_normal((n_prompts, self.hidden_size, 1), generator)
        scale = (2 / self.hidden_size) ** 0.5
        return lambda xs: scale * ((xs @ hidden).relu() @ output).squeeze(-1)
