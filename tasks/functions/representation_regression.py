"""Linear functions of a representation that is the same in all prompts (Guo et al., 2024)."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial

import torch

from ..baselines.classical import predict_3_nearest_neighbours, predict_least_squares
from ..common import FunctionClass, NamedPredictor, check_at_least_one, draw_normal
from .linear_functions import LinearFunctions


SLOPE = 0.01  # of the leaky ReLU below 0
N_MEASURED = 2**16  # inputs that the mean square of a representation is measured on


@dataclass(frozen=True)
class RepresentationRegression(FunctionClass):
    """
    y = w·phi(x) with w ~ N(0, I): phi, a random network, is always the same, so a model can learn it by heart.

    phi has `n_layers` layers of `n_dims` leaky ReLUs, whose weights are drawn once from `representation_seed`. The
    least squares on phi(x) is what Guo et al. compare with; AlgoFormer (Gao et al., 2024) has such a task too.
    Source: "How do transformers learn in-context beyond simple functions?" (ICLR 2024), section 3; their weights are
    orthogonal, ours are normal, which are the same bits on every machine.

    Args:
        n_dims (`int`, defaults to 20), n_points (`int`, defaults to 41):
            As in every class.
        n_layers (`int`, defaults to 2):
            Layers of phi, >= 1.
        representation_seed (`int`, defaults to 0):
            Decides phi, in 0 ... 2**63 - 1.
    """

    name = "representation_regression"
    description = "linear functions of a fixed representation"
    n_layers: int = 2
    representation_seed: int = 0

    def __post_init__(self):
        super().__post_init__()
        check_at_least_one(n_layers=self.n_layers)
        if type(self.representation_seed) is not int or not 0 <= self.representation_seed < 2**63:
            raise ValueError(
                f"`representation_seed` must be an integer in 0 ... 2**63 - 1, got {self.representation_seed!r}."
            )

    @property
    def normaliser(self) -> float:
        return _mean_square(self.n_dims, self.n_layers, self.representation_seed)

    @property
    def limit(self) -> NamedPredictor:
        settings = {"n_layers": self.n_layers, "seed": self.representation_seed}
        predictor = partial(predict_least_squares_on_representation, **settings)
        return NamedPredictor("least squares on the representation", predictor)

    @property
    def solver(self) -> NamedPredictor:
        return NamedPredictor("3-nearest neighbours", predict_3_nearest_neighbours)

    def draw_functions(
        self, n_prompts: int, n_dims_active: int, generator: torch.Generator
    ) -> Callable[[torch.Tensor], torch.Tensor]:
        function = LinearFunctions(draw_normal((n_prompts, self.n_dims), generator))
        return lambda xs: function(represent(xs, self.n_layers, self.representation_seed))


def represent(xs: torch.Tensor, n_layers: int, seed: int) -> torch.Tensor:
    """phi of xs `(..., D)`, in the same shape."""
    for weights in _weights(xs.shape[-1], n_layers, seed):
        xs = torch.nn.functional.leaky_relu(xs @ weights.to(xs), SLOPE)
    return xs


def predict_least_squares_on_representation(
    xs: torch.Tensor, ys: torch.Tensor, query: torch.Tensor, n_layers: int, seed: int
) -> torch.Tensor:
    """Predict w·phi(x), w the least-squares solution of smallest norm: the posterior mean for w ~ N(0, I)."""
    return predict_least_squares(represent(xs, n_layers, seed), ys, represent(query, n_layers, seed))


@cache
def _weights(n_dims: int, n_layers: int, seed: int) -> torch.Tensor:
    """Weights `(n_layers, n_dims, n_dims)` that keep the mean square of what they are applied to, about."""
    generator = torch.Generator().manual_seed(seed)
    return (2 / n_dims) ** 0.5 * draw_normal((n_layers, n_dims, n_dims), generator)


@cache
def _mean_square(n_dims: int, n_layers: int, seed: int) -> float:
    """Mean of |phi(x)|² over standard normal x."""
    xs = draw_normal((N_MEASURED, n_dims), torch.Generator().manual_seed(seed))
    return represent(xs.double(), n_layers, seed).square().sum(dim=1).mean().item()
