"""Drawn linear functions, dense or sparse."""

import torch


class LinearFunctions:
    """
    A function y = w·x per prompt.

    Args:
        weights (`torch.Tensor` of shape `(n_prompts, n_dims)`):
            The w of each prompt.
    """

    def __init__(self, weights: torch.Tensor):
        self.weights = weights

    def __call__(self, xs: torch.Tensor) -> torch.Tensor:
        """Values `(n_prompts, n_points)` at xs `(n_prompts, n_points, n_dims)`."""
        return (xs @ self.weights.unsqueeze(-1)).squeeze(-1)

    def hints(self, xs: torch.Tensor) -> torch.Tensor:
        """The weights, the same at every x: `(n_prompts, n_points, n_dims)`."""
        return self.weights.unsqueeze(1).expand_as(xs)
