"""Linear functions of a few coordinates only (Garg et al., 2022)."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch

from ..baselines.classical import LASSO_ALPHAS, predict_lasso
from ..baselines.prefixes import Predictor, PredictorFamily
from ..common import FunctionClass, NamedPredictor, check_at_least_one, draw_normal
from .linear_functions import LinearFunctions


@dataclass(frozen=True)
class SparseLinearRegression(FunctionClass):
    """
    y = w·x with w ~ N(0, I) on `sparsity` coordinates drawn among the active ones and zero elsewhere.

    Drawing the support among the active coordinates, as Garg et al. do, keeps every function non-zero while the
    curriculum grows; Yang et al. draw it among all and train on y = 0 in 40% of their first prompts.

    Args:
        sparsity (`int`, defaults to 3):
            Non-zero weights, in 1 ... `n_dims_active`.
    """

    name = "sparse_linear_regression"
    description = "sparse linear functions"
    headline_places: ClassVar = {"10": [10], "40": [40]}
    turns: ClassVar = "signed permutations"
    sparsity: int = 3

    def __post_init__(self):
        super().__post_init__()
        check_at_least_one(sparsity=self.sparsity)
        self.check_sizes(n_dims_active=self.n_dims)

    @property
    def normaliser(self) -> float:
        return float(self.sparsity)

    @property
    def n_hints(self) -> int:
        return self.n_dims

    @property
    def baselines(self) -> Mapping[str, Predictor]:
        lasso = PredictorFamily(predict_lasso, tuple(f"alpha {alpha:g}" for alpha in LASSO_ALPHAS))
        return {**super().baselines, "Lasso": lasso}

    @property
    def limit(self) -> NamedPredictor:
        from ..limits.sparse_posterior import predict_sparse_posterior

        return NamedPredictor("posterior over supports", partial(predict_sparse_posterior, sparsity=self.sparsity))

    def check_sizes(self, n_points: int | None = None, n_dims_active: int | None = None):
        super().check_sizes(n_points, n_dims_active)
        if n_dims_active is not None and self.sparsity > n_dims_active:
            raise ValueError(f"`sparsity` must be <= the active dimensions, got {self.sparsity} > {n_dims_active}.")

    def draw_functions(self, n_prompts: int, n_dims_active: int, generator: torch.Generator) -> LinearFunctions:
        weights = draw_normal((n_prompts, self.n_dims), generator)
        ranks = torch.rand((n_prompts, n_dims_active), generator=generator, device=generator.device)
        support = ranks.topk(self.sparsity, dim=1).indices
        return LinearFunctions(torch.zeros_like(weights).scatter(1, support, weights.gather(1, support)))
