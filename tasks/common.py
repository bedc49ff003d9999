"""What all function classes share: how prompts are drawn from one.

Example: `LinearRegression(n_dims=5).sample(64, 11, torch.Generator().manual_seed(0))` gives 64 prompts of 11 points.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch


@dataclass(frozen=True)
class Task:
    """
    A class of functions f on standard normal inputs; a prompt is points (x_i, f(x_i)) of one f drawn from it.

    Args:
        n_dims (`int`, defaults to 20):
            Dimension of x, >= 1.
    """

    name: ClassVar[str]
    n_dims: int = 20

    def __post_init__(self):
        check_at_least_one(n_dims=self.n_dims)

    @property
    def normaliser(self) -> float:
        """Mean squared value of f(x), in units of y²: the error of predicting 0, by which errors are divided."""
        raise NotImplementedError(f"{type(self).__name__} must define `normaliser`.")

    @property
    def n_hints(self) -> int:
        """
        Numbers of a hint: what its function would tell about a point, for training alone; 0 where a class has none.

        With hints, the map that `draw_functions` returns has a method `hints` from xs to `(n_prompts, n_points,
        n_hints)`. Source: Abu-Mostafa, "Learning from hints in neural networks" (Journal of Complexity, 1990).
        """
        return 0

    def check_n_dims_active(self, n_dims_active: int):
        """Raise `ValueError` unless functions of that many active dimensions can be drawn."""
        check_at_least_one(n_dims_active=n_dims_active)
        if n_dims_active > self.n_dims:
            raise ValueError(f"`n_dims_active` must be <= `n_dims` = {self.n_dims}, got {n_dims_active}.")

    def draw_functions(
        self, n_prompts: int, n_dims_active: int, generator: torch.Generator
    ) -> Callable[[torch.Tensor], torch.Tensor]:
        """Draw a function a prompt; returns the map from xs `(n_prompts, n_points, n_dims)` to their values."""
        raise NotImplementedError(f"{type(self).__name__} must define `draw_functions`.")

    def observe(self, labels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Return the ys a prompt shows for its noiseless values `labels`, both `(n_prompts, n_points)`."""
        return labels

    def sample(
        self,
        n_prompts: int,
        n_points: int,
        generator: torch.Generator,
        n_dims_active: int | None = None,
        with_hints: bool = False,
    ) -> dict[str, torch.Tensor]:
        """
        Draw prompts on the device of `generator`; its state decides every number.

        Args:
            n_prompts (`int`):
                Prompts, each from a function of its own, >= 1.
            n_points (`int`):
                Points of a prompt, >= 1.
            generator (`torch.Generator`):
                Source of all randomness.
            n_dims_active (`int`, *optional*, defaults to `n_dims`):
                Dimensions in use, in 1 ... `n_dims`; the others are zero in every x (curriculum of Garg et al., 2022).
            with_hints (`bool`, defaults to `False`):
                Also return the hints of the class, which changes nothing else.

        Returns:
            The arguments of the model's `forward`, float32: `xs` of shape `(n_prompts, n_points, n_dims)`, `ys` and
            `labels` of shape `(n_prompts, n_points)`. `labels` are the noiseless values. With hints also `hints` of
            shape `(n_prompts, n_points, n_hints)`.

        Raises:
            `ValueError`: a count is out of its range, or the class has no hints.
        """
        n_dims_active = self.n_dims if n_dims_active is None else n_dims_active
        check_at_least_one(n_prompts=n_prompts, n_points=n_points)
        self.check_n_dims_active(n_dims_active)
        if with_hints:
            self.check_hints()
        function = self.draw_functions(n_prompts, n_dims_active, generator)
        xs = draw_normal((n_prompts, n_points, self.n_dims), generator)
        xs[..., n_dims_active:] = 0
        labels = function(xs)
        prompts = {"xs": xs, "ys": self.observe(labels, generator), "labels": labels}
        return prompts | {"hints": function.hints(xs)} if with_hints else prompts

    def check_hints(self):
        """Raise `ValueError` unless the class has hints."""
        if not self.n_hints:
            raise ValueError(f"the function class {self.name} has no hints.")


def check_at_least_one(**counts: int):
    """Raise `ValueError` naming the first of `counts` that is not an integer >= 1."""
    for name, value in counts.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"`{name}` must be an integer >= 1, got {value!r}.")


def draw_normal(shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    """Standard normal float32 numbers on the generator's device."""
    return torch.randn(shape, generator=generator, device=generator.device)
