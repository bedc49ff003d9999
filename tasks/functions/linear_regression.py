"""Linear functions y = w·x, w ~ N(0, I), and the same seen through noise (Garg et al., 2022; Yang et al., 2024)."""

from dataclasses import dataclass

import torch

from .common import Task, draw_normal
from .linear_functions import LinearFunctions


@dataclass(frozen=True)
class LinearRegression(Task):
    """y = w·x with w ~ N(0, I)."""

    name = "linear_regression"

    @property
    def normaliser(self) -> float:
        return float(self.n_dims)

    @property
    def n_hints(self) -> int:
        return self.n_dims

    def draw_functions(self, n_prompts: int, n_dims_active: int, generator: torch.Generator) -> LinearFunctions:
        weights = draw_normal((n_prompts, self.n_dims), generator)
        weights[:, n_dims_active:] = 0  # x is zero there, so that no value tells them
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
    noise_std: float = 0.1

    def __post_init__(self):
        super().__post_init__()
        if not 0 <= self.noise_std < float("inf"):
            raise ValueError(f"`noise_std` must be a finite number >= 0, got {self.noise_std}.")

    def observe(self, labels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        return labels + self.noise_std * draw_normal(tuple(labels.shape), generator)
