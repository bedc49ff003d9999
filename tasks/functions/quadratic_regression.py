"""Linear functions of the squares of the coordinates (Garg et al., 2022)."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from ..baselines.classical import predict_least_squares
from ..common import FunctionClass, NamedPredictor, draw_normal
from .linear_functions import LinearFunctions


@dataclass(frozen=True)
class QuadraticRegression(FunctionClass):
    """y = w·(x_1², ..., x_D²) / sqrt(3) with w ~ N(0, I), so that the mean square of y is `n_dims`."""

    name = "quadratic_regression"
    description = "quadratic functions"

    @property
    def normaliser(self) -> float:
        return float(self.n_dims)

    @property
    def limit(self) -> NamedPredictor:
        return NamedPredictor("least squares on squares", predict_least_squares_on_squares)

    def draw_functions(
        self, n_prompts: int, n_dims_active: int, generator: torch.Generator
    ) -> Callable[[torch.Tensor], torch.Tensor]:
        function = LinearFunctions(draw_normal((n_prompts, self.n_dims), generator))
        return lambda xs: function(squares(xs))


def squares(xs: torch.Tensor) -> torch.Tensor:
    """The features of xs `(..., D)`, in the same shape: E x⁴ is 3, so a mean square of 1 each."""
    return xs.square() / 3**0.5


def predict_least_squares_on_squares(xs: torch.Tensor, ys: torch.Tensor, query: torch.Tensor) -> torch.Tensor:
    """Predict w·squares(x), w the least-squares solution of smallest norm: the posterior mean for w ~ N(0, I)."""
    return predict_least_squares(squares(xs), ys, squares(query))
