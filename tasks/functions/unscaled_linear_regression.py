"""Linear functions with noise of unknown strength, in unknown units of x and y."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import torch

from ..baselines.classical import predict_chosen_ridge, predict_ridge
from ..baselines.prefixes import Predictor
from ..common import FunctionClass, NamedPredictor, Prompts, draw_normal
from ..limits.unscaled_posterior import predict_unscaled_posterior
from .linear_functions import LinearFunctions


@dataclass(frozen=True)
class UnscaledLinearRegression(FunctionClass):
    """
    Noisy linear functions as people measure them: nobody says how strong the noise is, nor in which units x and y are.

    A prompt is one of y = w·x + noise with w ~ N(0, I) and standard normal x, of which x is then multiplied by one
    number and y by another. These and the strength of the noise are drawn for each prompt, log-uniformly; `labels` are
    the noiseless values. The best ridge for one prompt has the penalty (noise · unit of x)².

    Args:
        max_unit (`float`, defaults to 3.0):
            The units of x and of y are in 1 / `max_unit` ... `max_unit`, > 1.
        min_noise_std (`float`, defaults to 0.1), max_noise_std (`float`, defaults to 1.0):
            The standard deviation of the noise, in the unit of y, is between these, > 0.
    """

    name = "unscaled_linear_regression"
    description = "linear functions in unknown units, seen through noise of unknown strength"
    max_unit: float = 3.0
    min_noise_std: float = 0.1
    max_noise_std: float = 1.0

    def __post_init__(self):
        super().__post_init__()
        if not 1 < self.max_unit < math.inf:
            raise ValueError(f"`max_unit` must be a finite number > 1, got {self.max_unit}.")
        if not 0 < self.min_noise_std <= self.max_noise_std < math.inf:
            raise ValueError(
                "`min_noise_std` must be > 0 and `max_noise_std` finite and not smaller, got "
                f"{self.min_noise_std} and {self.max_noise_std}."
            )

    @property
    def normaliser(self) -> float:
        spread = 2 * math.log(self.max_unit)
        return self.n_dims * math.sinh(spread) / spread  # times the mean square of the unit of y

    @property
    def n_hints(self) -> int:
        return self.n_dims

    @property
    def baselines(self) -> Mapping[str, Predictor]:
        return {**super().baselines, "ridge": predict_ridge, "ridge, penalty chosen": predict_chosen_ridge}

    @property
    def limit(self) -> NamedPredictor:
        """The posterior mean: the ridges of all strengths and units, each by its probability given the prompt."""
        settings = {name: getattr(self, name) for name in ("max_unit", "min_noise_std", "max_noise_std")}
        return NamedPredictor("posterior over noise and units", partial(predict_unscaled_posterior, **settings))

    @property
    def solver(self) -> NamedPredictor:
        return NamedPredictor("ridge, penalty chosen", predict_chosen_ridge)

    def draw_functions(self, n_prompts: int, n_dims_active: int, generator: torch.Generator) -> "MeasuredFunctions":
        weights = draw_normal((n_prompts, self.n_dims), generator)
        weights[:, n_dims_active:] = 0
        x_units, y_units = (_draw(n_prompts, 1 / self.max_unit, self.max_unit, generator) for _ in range(2))
        noise_stds = _draw(n_prompts, self.min_noise_std, self.max_noise_std, generator)
        return MeasuredFunctions(weights * y_units / x_units, x_units, y_units, noise_stds * y_units)

    def draw_points(
        self,
        function: "MeasuredFunctions",
        n_prompts: int,
        n_points: int,
        n_dims_active: int,
        generator: torch.Generator,
    ) -> Prompts:
        xs = self.draw_xs(n_prompts, n_points, n_dims_active, generator) * function.x_units.unsqueeze(2)
        labels = function(xs)
        noise = function.noise_stds * draw_normal((n_prompts, n_points), generator)
        return {"xs": xs, "ys": labels + noise, "labels": labels}


class MeasuredFunctions(LinearFunctions):
    """
    A function y = w·x per prompt, with what it is measured in.

    Args:
        weights (`torch.Tensor` of shape `(n_prompts, n_dims)`):
            The w of each prompt, in its units.
        x_units, y_units, noise_stds (`torch.Tensor` of shape `(n_prompts, 1)`):
            What standard normal x and standard y were multiplied by, and the standard deviation of the noise in ys.
    """

    def __init__(self, weights: torch.Tensor, x_units: torch.Tensor, y_units: torch.Tensor, noise_stds: torch.Tensor):
        super().__init__(weights)
        self.x_units, self.y_units, self.noise_stds = x_units, y_units, noise_stds


def _draw(n_prompts: int, low: float, high: float, generator: torch.Generator) -> torch.Tensor:
    """Log-uniform numbers `(n_prompts, 1)`."""
    return low * (high / low) ** torch.rand((n_prompts, 1), generator=generator, device=generator.device)
