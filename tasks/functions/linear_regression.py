"""Linear functions y = w·x, w ~ N(0, I), without and with noise (Garg et al., 2022; Yang et al., 2024)."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch

from ..baselines.classical import predict_least_squares, predict_ridge
from ..baselines.prefixes import Predictor
from ..common import FunctionClass, NamedPredictor, draw_normal
from ..published import published
from ..shifts import SHIFTS, Shift
from .linear_functions import LinearFunctions


@dataclass(frozen=True)
class LinearRegression(FunctionClass):
    """y = w·x with w ~ N(0, I)."""

    name = "linear_regression"
    description = "linear functions"
    headline_places: ClassVar = {"20": [20], "40": [40]}
    turns: ClassVar = "rotations"

    @property
    def normaliser(self) -> float:
        return float(self.n_dims)

    @property
    def n_hints(self) -> int:
        return self.n_dims

    @property
    def baselines(self) -> Mapping[str, Predictor]:
        return {**super().baselines, "ridge": predict_ridge}

    @property
    def limit(self) -> NamedPredictor | None:
        return NamedPredictor("minimum-norm least squares", predict_least_squares)

    @property
    def shifts(self) -> Mapping[str, Shift]:
        return SHIFTS

    @property
    def published_shifts(self) -> dict[str, dict[str, list[float | None]]]:
        return published()["shifts"]["curves"] if self.shifts and self.n_dims == 20 else {}

    def draw_functions(self, n_prompts: int, n_dims_active: int, generator: torch.Generator) -> LinearFunctions:
        weights = draw_normal((n_prompts, self.n_dims), generator)
        weights[:, n_dims_active:] = 0  # x is zero there, so no value depends on them
        return LinearFunctions(weights)


@dataclass(frozen=True)
class NoisyLinearRegression(LinearRegression):
    """
    y = w·x + noise; `labels` are the noiseless w·x.

    Args:
        noise_std (`float`, defaults to 0.1):
            Standard deviation of the normal noise in units of y, >= 0 (Yang et al.: 0.1).
    """

    name = "noisy_linear_regression"
    description = "linear functions seen through noise"
    headline_places: ClassVar = {}
    noise_std: float = 0.1

    def __post_init__(self):
        super().__post_init__()
        if not 0 <= self.noise_std < float("inf"):
            raise ValueError(f"`noise_std` must be a finite number >= 0, got {self.noise_std}.")

    @property
    def limit(self) -> NamedPredictor | None:
        if self.noise_std == 0:
            return super().limit
        return NamedPredictor("ridge at the true noise", partial(predict_ridge, alpha=self.noise_std**2))

    @property
    def shifts(self) -> Mapping[str, Shift]:
        return {}

    def observe(self, labels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        return labels + self.noise_std * draw_normal(tuple(labels.shape), generator)
