"""Linear functions of a few coordinates only (Garg et al., 2022)."""

from dataclasses import dataclass

import torch

from .common import Task, check_at_least_one, draw_normal
from .linear_functions import LinearFunctions


@dataclass(frozen=True)
class SparseLinearRegression(Task):
    """
    y = w·x with w ~ N(0, I) on `sparsity` coordinates drawn among the active ones and zero elsewhere.

    Drawing the support among the active coordinates, as Garg et al. do, keeps every function non-zero while the
    curriculum grows; Yang et al. draw it among all and train on y = 0 in 40% of their first prompts.

    Args:
        sparsity (`int`, defaults to 3):
            Non-zero weights, in 1 ... `n_dims_active`.
    """

    name = "sparse_linear_regression"
    sparsity: int = 3

    def __post_init__(self):
        super().__post_init__()
        check_at_least_one(sparsity=self.sparsity)
        self.check_n_dims_active(self.n_dims)

    @property
    def normaliser(self) -> float:
        return float(self.sparsity)

    @property
    def n_hints(self) -> int:
        return self.n_dims

    def check_n_dims_active(self, n_dims_active: int):
        super().check_n_dims_active(n_dims_active)
        if self.sparsity > n_dims_active:
            raise ValueError(f"`sparsity` must be <= the active dimensions, got {self.sparsity} > {n_dims_active}.")

    def draw_functions(self, n_prompts: int, n_dims_active: int, generator: torch.Generator) -> LinearFunctions:
        weights = draw_normal((n_prompts, self.n_dims), generator)
        ranks = torch.rand((n_prompts, n_dims_active), generator=generator, device=generator.device)
        support = ranks.topk(self.sparsity, dim=1).indices
        return LinearFunctions(torch.zeros_like(weights).scatter(1, support, weights.gather(1, support)))
