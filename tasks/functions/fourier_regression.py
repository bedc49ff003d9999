"""Fourier series with random coefficients (Panwar, Ahuja and Goyal, 2024)."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

from ..baselines.classical import predict_3_nearest_neighbours, predict_least_squares
from ..common import FunctionClass, NamedPredictor, check_at_least_one, draw_normal
from .linear_functions import LinearFunctions


HALF_PERIOD = 3**0.5  # x is uniform in -HALF_PERIOD ... HALF_PERIOD, so of variance 1


@dataclass(frozen=True)
class FourierRegression(FunctionClass):
    """
    y = c + sum over coordinates d and frequencies k of a_dk cos(pi k x_d / L) + b_dk sin(pi k x_d / L).

    All coefficients are N(0, 1), and x is uniform in -L ... L, a whole period. L is sqrt(3), so that x has variance 1;
    Panwar et al. have one coordinate and L = 5, which is the same in other units.
    Source: "In-context learning through the Bayesian prism" (ICLR 2024), section 3.

    Args:
        n_dims (`int`, defaults to 1), n_points (`int`, defaults to 41):
            As in every class.
        n_frequencies (`int`, defaults to 10):
            Frequencies per coordinate, >= 1.
    """

    name = "fourier_regression"
    description = "Fourier series"
    n_dims: int = 1
    n_frequencies: int = 10

    def __post_init__(self):
        super().__post_init__()
        check_at_least_one(n_frequencies=self.n_frequencies)

    @property
    def normaliser(self) -> float:
        return 1.0 + self.n_dims * self.n_frequencies  # cos² + sin² is 1

    @property
    def limit(self) -> NamedPredictor:
        predictor = partial(predict_least_squares_on_waves, n_frequencies=self.n_frequencies)
        return NamedPredictor("least squares on waves", predictor)

    @property
    def solver(self) -> NamedPredictor:
        return NamedPredictor("3-nearest neighbours", predict_3_nearest_neighbours)

    def draw_functions(
        self, n_prompts: int, n_dims_active: int, generator: torch.Generator
    ) -> Callable[[torch.Tensor], torch.Tensor]:
        weights = draw_normal((n_prompts, 1 + 2 * self.n_dims * self.n_frequencies), generator)
        per_dim = weights[:, 1:].unflatten(1, (2 * self.n_frequencies, self.n_dims))
        per_dim[..., n_dims_active:] = 0  # the cosine of an inactive coordinate is 1
        function = LinearFunctions(weights)
        return lambda xs: function(waves(xs, self.n_frequencies))

    def draw_xs(self, n_prompts: int, n_points: int, n_dims_active: int, generator: torch.Generator) -> torch.Tensor:
        places = torch.rand((n_prompts, n_points, self.n_dims), generator=generator, device=generator.device)
        xs = HALF_PERIOD * (2 * places - 1)
        xs[..., n_dims_active:] = 0
        return xs


def waves(xs: torch.Tensor, n_frequencies: int) -> torch.Tensor:
    """The features of xs `(..., D)`: 1, then D cosines of each frequency and D sines of each, `(..., F)`."""
    angles = torch.pi / HALF_PERIOD * torch.cat([k * xs for k in range(1, n_frequencies + 1)], dim=-1)
    return torch.cat([torch.ones_like(xs[..., :1]), angles.cos(), angles.sin()], dim=-1)


def predict_least_squares_on_waves(
    xs: torch.Tensor, ys: torch.Tensor, query: torch.Tensor, n_frequencies: int
) -> torch.Tensor:
    """Predict w·waves(x), w the least-squares solution of smallest norm: the posterior mean for w ~ N(0, I)."""
    return predict_least_squares(waves(xs, n_frequencies), ys, waves(query, n_frequencies))
