"""Linear effects of regressors that the noise depends on, with instruments (Liang et al., 2024)."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import torch

from ..baselines.instruments import (
    instruments,
    predict_control_function,
    predict_from_regressors,
    predict_two_stage,
    regressors,
)
from ..baselines.prefixes import Predictor
from ..common import FunctionClass, NamedPredictor, Prompts, draw_normal
from .linear_functions import LinearFunctions


@dataclass(frozen=True)
class EndogenousLinearRegression(FunctionClass):
    """
    The effect beta·r of regressors r on y, where what else moves y moves r too; instruments z move r alone.

    Every third coordinate of x, from the first on, is a regressor and the others are instruments. For each prompt
    beta ~ N(0, I), phi ~ N(0, I) and the entries N(0, 1 / instruments) of Theta are drawn, and for each point z ~
    N(0, I), u ~ N(0, I) and e ~ N(0, `noise_std`²):

        r = (Theta z + u) / sqrt(2)        y = beta·r + phi·u + e        label = beta·r

    So the label is what y would be, on average, had somebody else set r. Least squares on r does not find beta, as u
    is in both r and y; two-stage least squares does. The posterior mean has no closed form, so there is no limit; the
    best baseline is the control function. Source: "Transformers handle endogeneity in in-context linear regression"
    (arXiv 2410.01265), section 2.

    Args:
        n_dims (`int`, defaults to 15), n_points (`int`, defaults to 41):
            As in every class; 15 dimensions are 5 regressors and 10 instruments. `n_dims` and active dimensions >= 2.
        noise_std (`float`, defaults to 0.1):
            Standard deviation of e, in units of y, >= 0.
    """

    name = "endogenous_linear_regression"
    description = "linear effects of endogenous regressors"
    n_dims: int = 15
    noise_std: float = 0.1

    def __post_init__(self):
        super().__post_init__()
        self.check_sizes(n_dims_active=self.n_dims)
        if not 0 <= self.noise_std < float("inf"):
            raise ValueError(f"`noise_std` must be a finite number >= 0, got {self.noise_std}.")

    @property
    def normaliser(self) -> float:
        return float(_n_regressors(self.n_dims))

    @property
    def n_hints(self) -> int:
        return self.n_dims

    @property
    def baselines(self) -> Mapping[str, Predictor]:
        return {
            **super().baselines,
            "least squares on regressors": predict_from_regressors,
            "two-stage least squares": predict_two_stage,
            "control function": partial(predict_control_function, noise_std=self.noise_std),
        }

    @property
    def solver(self) -> NamedPredictor:
        return NamedPredictor("two-stage least squares", predict_two_stage)

    def check_sizes(self, n_points: int | None = None, n_dims_active: int | None = None):
        super().check_sizes(n_points, n_dims_active)
        if n_dims_active is not None and n_dims_active < 2:
            raise ValueError(f"`n_dims_active` must be >= 2, a regressor and an instrument, got {n_dims_active}.")

    def draw_functions(self, n_prompts: int, n_dims_active: int, generator: torch.Generator) -> "DrawnEffects":
        n_regressors, n_active = _n_regressors(self.n_dims), _n_regressors(n_dims_active)
        effects, confounding = (draw_normal((n_prompts, n_regressors), generator) for _ in range(2))
        first_stage = draw_normal((n_prompts, self.n_dims - n_regressors, n_regressors), generator)
        first_stage = first_stage / (n_dims_active - n_active) ** 0.5
        effects[:, n_active:], first_stage[..., n_active:] = 0, 0
        weights = effects.new_zeros((n_prompts, self.n_dims))
        regressors(weights)[:] = effects
        return DrawnEffects(weights, first_stage, confounding)

    def draw_points(
        self, function: "DrawnEffects", n_prompts: int, n_points: int, n_dims_active: int, generator: torch.Generator
    ) -> Prompts:
        xs = self.draw_xs(n_prompts, n_points, n_dims_active, generator)
        common = regressors(xs).clone()  # what moves both regressors and y: u
        regressors(xs)[:] = (instruments(xs) @ function.first_stage + common) / 2**0.5
        labels = function(xs)
        noise = self.noise_std * draw_normal((n_prompts, n_points), generator)
        return {
            "xs": xs,
            "ys": labels + (common @ function.confounding.unsqueeze(2)).squeeze(2) + noise,
            "labels": labels,
        }


class DrawnEffects(LinearFunctions):
    """
    A function beta·r per prompt, with what its regressors depend on.

    Args:
        weights (`torch.Tensor` of shape `(n_prompts, n_dims)`):
            beta at the regressors of x, 0 at the instruments.
        first_stage (`torch.Tensor` of shape `(n_prompts, n_instruments, n_regressors)`):
            Theta, transposed.
        confounding (`torch.Tensor` of shape `(n_prompts, n_regressors)`):
            phi.
    """

    def __init__(self, weights: torch.Tensor, first_stage: torch.Tensor, confounding: torch.Tensor):
        super().__init__(weights)
        self.first_stage, self.confounding = first_stage, confounding


def _n_regressors(n_dims: int) -> int:
    """How many of so many coordinates are regressors."""
    return len(range(n_dims)[::3])
