"""Products of a few of many signs (Park et al., 2024; Bhattamishra et al., 2024)."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

from ..baselines.classical import predict_3_nearest_neighbours
from ..common import FunctionClass, NamedPredictor, check_at_least_one


@dataclass(frozen=True)
class SparseParity(FunctionClass):
    """
    y is the product of `sparsity` coordinates, all choices equally likely; coordinates of x are -1 or 1, at random.

    The choice is drawn for each prompt. The code of Park et al. (github.com/krafton-ai/mambaformer-icl,
    `src/tasks.py`) draws one for each batch, so that 64 prompts of a step have one function. A prediction is scored by
    its squared error; theirs, trained by the cross-entropy, by its sign.

    Args:
        n_dims (`int`, defaults to 10), n_points (`int`, defaults to 41):
            As in every class.
        sparsity (`int`, defaults to 2):
            Coordinates in the product, in 1 ... `n_dims_active`.
    """

    name = "sparse_parity"
    description = "parities of a few coordinates"
    n_dims: int = 10
    sparsity: int = 2

    def __post_init__(self):
        super().__post_init__()
        check_at_least_one(sparsity=self.sparsity)
        self.check_sizes(n_dims_active=self.n_dims)

    @property
    def normaliser(self) -> float:
        return 1.0

    @property
    def limit(self) -> NamedPredictor:
        return NamedPredictor("posterior over parities", partial(predict_parity_posterior, sparsity=self.sparsity))

    @property
    def solver(self) -> NamedPredictor:
        return NamedPredictor("3-nearest neighbours", predict_3_nearest_neighbours)

    def check_sizes(self, n_points: int | None = None, n_dims_active: int | None = None):
        super().check_sizes(n_points, n_dims_active)
        if n_dims_active is not None and self.sparsity > n_dims_active:
            raise ValueError(f"`sparsity` must be <= the active dimensions, got {self.sparsity} > {n_dims_active}.")

    def draw_functions(
        self, n_prompts: int, n_dims_active: int, generator: torch.Generator
    ) -> Callable[[torch.Tensor], torch.Tensor]:
        ranks = torch.rand((n_prompts, n_dims_active), generator=generator, device=generator.device)
        chosen = ranks.topk(self.sparsity, dim=1).indices.unsqueeze(1)  # (B, 1, sparsity)
        return lambda xs: xs.gather(2, chosen.expand(-1, xs.shape[1], -1)).prod(dim=2)

    def draw_xs(self, n_prompts: int, n_points: int, n_dims_active: int, generator: torch.Generator) -> torch.Tensor:
        bits = torch.randint(2, (n_prompts, n_points, self.n_dims), generator=generator, device=generator.device)
        xs = 2.0 * bits - 1
        xs[..., n_dims_active:] = 0
        return xs


def predict_parity_posterior(
    xs: torch.Tensor, ys: torch.Tensor, query: torch.Tensor, sparsity: int = 2
) -> torch.Tensor:
    """Predict the mean of y over all choices of coordinates that agree with the examples, 0 where none does."""
    choices = torch.tensor(list(itertools.combinations(range(xs.shape[2]), sparsity)), device=xs.device)

    def products(values: torch.Tensor) -> torch.Tensor:  # (..., D) -> (..., choices)
        result = values[..., choices[:, 0]]
        for column in choices.T[1:]:
            result = result * values[..., column]
        return result

    agrees = (products(xs) == ys.unsqueeze(2)).all(dim=1)
    return (agrees * products(query)).sum(dim=1) / agrees.sum(dim=1).clamp(min=1)
