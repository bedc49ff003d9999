"""Sequences of which each vector is a rotation of the one before (von Oswald et al., 2023)."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn.functional import pad

from ..baselines.classical import predict_least_squares
from ..common import FunctionClass, NamedPredictor, Prompts, draw_normal


@dataclass(frozen=True)
class LinearAutoregression(FunctionClass):
    """
    s_1 ~ N(0, I), s_(i + 1) = W s_i with W uniform among the orthogonal matrices; x_i is s_i and y_i is s_(i + 1).

    So the ys are the xs of one point later, and values are vectors of `n_dims` numbers. An orthogonal W keeps the
    length of s: a sequence neither dies nor grows. What W does beyond the span of the xs has the mean 0, so the
    posterior mean is the least squares of smallest norm, exact after `n_dims` examples.
    Source: "Uncovering mesa-optimization algorithms in transformers" (arXiv 2309.05858), whose sequences have noise.

    Args:
        n_dims (`int`, defaults to 20), n_points (`int`, defaults to 41):
            As in every class.
    """

    name = "linear_autoregression"
    description = "linear autoregressive sequences"

    @property
    def n_outputs(self) -> int:
        return self.n_dims

    @property
    def normaliser(self) -> float:
        return float(self.n_dims)

    @property
    def limit(self) -> NamedPredictor:
        return NamedPredictor("minimum-norm least squares", predict_least_squares)

    def draw_functions(
        self, n_prompts: int, n_dims_active: int, generator: torch.Generator
    ) -> Callable[[torch.Tensor], torch.Tensor]:
        factors = torch.linalg.qr(draw_normal((n_prompts, n_dims_active, n_dims_active), generator))
        # these signs make Q uniform: Mezzadri, "How to generate random matrices from the classical compact groups"
        rotations = factors.Q * factors.R.diagonal(dim1=1, dim2=2).sign().unsqueeze(1)
        n_beyond = self.n_dims - n_dims_active
        rotations = pad(rotations, (0, n_beyond, 0, n_beyond))
        return lambda xs: xs @ rotations

    def draw_points(
        self,
        function: Callable[[torch.Tensor], torch.Tensor],
        n_prompts: int,
        n_points: int,
        n_dims_active: int,
        generator: torch.Generator,
    ) -> Prompts:
        states = [self.draw_xs(n_prompts, 1, n_dims_active, generator)]
        for _ in range(n_points):
            states.append(function(states[-1]))
        xs, labels = torch.cat(states[:-1], dim=1), torch.cat(states[1:], dim=1)
        return {"xs": xs, "ys": labels, "labels": labels}
