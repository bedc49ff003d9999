"""Linear functions with many examples that are none: MambaFormer's outliers (Park et al., 2024)."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch.nn.functional import normalize, pad

from ..baselines.classical import predict_least_squares
from ..baselines.prefixes import Predictor
from ..common import NamedPredictor, Prompts, draw_normal
from ..shifts import Shift
from .linear_functions import LinearFunctions
from .linear_regression import LinearRegression


ON_SPHERE = 1e-6  # relative round-off of the squared length of an outlier
FLAT = 1e-5  # above the relative round-off by which outliers leave their plane


@dataclass(frozen=True)
class OutlierRegression(LinearRegression):
    """
    y = w·x, but each point is an outlier with a probability: its x is another, and the y that is shown is wrong.

    `labels` are the values of the function at all xs, those of outliers too, so every point asks for the function.
    Park et al. take the loss at clean points alone; the best predictor is the same.

    Args:
        n_dims (`int`, defaults to 20), n_points (`int`, defaults to 41):
            As in every class.
        outlier_share (`float`, defaults to 0.5):
            The probability of an outlier, in [0, 1).
    """

    headline_places: ClassVar = {}
    turns: ClassVar = None
    outlier_share: float = 0.5

    def __post_init__(self):
        super().__post_init__()
        if not 0 <= self.outlier_share < 1:
            raise ValueError(f"`outlier_share` must be in [0, 1), got {self.outlier_share}.")

    @property
    def shifts(self) -> Mapping[str, Shift]:
        return {}

    def draw_outliers(
        self, function: LinearFunctions, n_prompts: int, n_points: int, n_dims_active: int, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Draw the xs `(B, P, D)` and the shown ys `(B, P)` of outliers, were all points outliers."""
        raise NotImplementedError(f"{type(self).__name__} must define `draw_outliers`.")

    def draw_points(
        self,
        function: LinearFunctions,
        n_prompts: int,
        n_points: int,
        n_dims_active: int,
        generator: torch.Generator,
    ) -> Prompts:
        xs = self.draw_xs(n_prompts, n_points, n_dims_active, generator)
        wrong_xs, wrong_ys = self.draw_outliers(function, n_prompts, n_points, n_dims_active, generator)
        shares = torch.rand((n_prompts, n_points), generator=generator, device=generator.device)
        is_outlier = shares < self.outlier_share
        xs = torch.where(is_outlier.unsqueeze(2), wrong_xs, xs)
        labels = function(xs)
        return {"xs": xs, "ys": torch.where(is_outlier, wrong_ys, labels), "labels": labels}


@dataclass(frozen=True)
class ManyOutlierRegression(OutlierRegression):
    """
    Nine points of ten are the outlier x = (1, ..., 1) with the y 1, which tells nothing. Park et al. have 512 points.

    Args:
        n_dims (`int`, defaults to 20), n_points (`int`, defaults to 41), outlier_share (`float`, defaults to 0.9):
            As in [`OutlierRegression`].
    """

    name = "many_outlier_regression"
    description = "linear functions among many constant outliers"
    outlier_share: float = 0.9

    @property
    def limit(self) -> NamedPredictor:
        return NamedPredictor("least squares on clean examples", predict_without_constants)

    def draw_outliers(
        self, function: LinearFunctions, n_prompts: int, n_points: int, n_dims_active: int, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        xs = torch.ones((n_prompts, n_points, self.n_dims), device=generator.device)
        xs[..., n_dims_active:] = 0
        return xs, xs[..., 0]


@dataclass(frozen=True)
class OrthogonalOutlierRegression(OutlierRegression):
    """
    Half of the points are outliers in a plane orthogonal to w, where the function is 0, with a y as large as others.

    An outlier is x = sqrt(D) (a u + b v) for u and v that are orthonormal and orthogonal to w, drawn for each prompt,
    and (a, b) uniform on the unit circle, drawn for each point; its y is N(0, D). D counts the active dimensions.

    The code of Park et al. (github.com/krafton-ai/mambaformer-icl, `src/filtering_utils.py`) does otherwise. Its u and
    v are orthogonal to a new random w, not to the one that made the ys, and differ between xs and ys. Its a and b are
    drawn for each prompt, so that all outliers of one are the same, and divided by a² + b² instead of its root, so
    that their length has no mean square. Its ys are vectors, of outliers such ones too; ours are numbers.

    Args:
        n_dims (`int`, defaults to 20), n_points (`int`, defaults to 41), outlier_share (`float`, defaults to 0.5):
            As in [`OutlierRegression`]; `n_dims` and active dimensions >= 3.
    """

    name = "orthogonal_outlier_regression"
    description = "linear functions among outliers orthogonal to their weights"

    def __post_init__(self):
        super().__post_init__()
        self.check_sizes(n_dims_active=self.n_dims)

    @property
    def normaliser(self) -> float:
        return (1 - self.outlier_share) * self.n_dims

    @property
    def baselines(self) -> Mapping[str, Predictor]:
        # outliers leave their plane by round-off, which their ys must not be divided by
        return {**super().baselines, "least squares": partial(predict_least_squares, rcond=FLAT)}

    @property
    def limit(self) -> NamedPredictor:
        """The posterior mean: an outlier is known by its length, and says that the function is 0 there."""
        return NamedPredictor("least squares, outliers 0", predict_zero_at_outliers)

    def check_sizes(self, n_points: int | None = None, n_dims_active: int | None = None):
        super().check_sizes(n_points, n_dims_active)
        if n_dims_active is not None and n_dims_active < 3:
            raise ValueError(f"`n_dims_active` must be >= 3 for a plane orthogonal to w, got {n_dims_active}.")

    def draw_outliers(
        self, function: LinearFunctions, n_prompts: int, n_points: int, n_dims_active: int, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        weights = function.weights[:, :n_dims_active].unsqueeze(2)
        others = draw_normal((n_prompts, n_dims_active, 2), generator)
        plane = torch.linalg.qr(torch.cat([weights, others], dim=2)).Q[..., 1:]  # (B, D active, 2)
        xs = draw_normal((n_prompts, n_points, 2), generator) @ plane.mT
        xs = n_dims_active**0.5 * pad(normalize(xs, dim=2), (0, self.n_dims - n_dims_active))
        return xs, n_dims_active**0.5 * draw_normal((n_prompts, n_points), generator)


def predict_without_constants(xs: torch.Tensor, ys: torch.Tensor, query: torch.Tensor) -> torch.Tensor:
    """Predict by least squares on the examples whose x is not (1, ..., 1): the posterior mean for w ~ N(0, I)."""
    is_clean = (xs != 1).any(dim=2)
    return predict_least_squares(xs * is_clean.unsqueeze(2), ys * is_clean, query)


def predict_zero_at_outliers(xs: torch.Tensor, ys: torch.Tensor, query: torch.Tensor) -> torch.Tensor:
    """
    Predict the posterior mean for w ~ N(0, I) where xs of length sqrt(D) are outliers in a plane orthogonal to w.

    The length of w is independent of its direction, so all that an outlier tells is w·x = 0: an example with the y 0.
    What is left of w then has a density that depends on its length alone, and so the mean of smallest norm.
    """
    answers = predict_least_squares(xs, ys * ~_is_outlier(xs), query, rcond=FLAT)
    return answers * ~_is_outlier(query)


def _is_outlier(xs: torch.Tensor) -> torch.Tensor:
    """Whether xs `(..., D)` have the length sqrt(D) of outliers, which the others have with probability 0."""
    return (xs.square().mean(dim=-1) - 1).abs() < ON_SPHERE
