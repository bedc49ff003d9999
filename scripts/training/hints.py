"""Learning from hints: the states of a model are asked, while it trains, for what the function itself would tell."""

from collections.abc import Sequence

import torch
from torch import nn


class HintReader(nn.Module):
    """
    Reads the hint at every point from the states: one linear map for the tokens of x, another for those of y.

    The token of x is to tell what the examples before it say, the token of y what they and its own example say. A
    prediction is one number a point and says little about how to get it; a hint says it in as many numbers as it has.

    Source: Abu-Mostafa, "Learning from hints in neural networks" (Journal of Complexity, 1990).

    Args:
        n_embd (`int`):
            Width E of the states.
        n_hints (`int`):
            Numbers H of a hint.
    """

    def __init__(self, n_embd: int, n_hints: int):
        super().__init__()
        self.of_x = nn.Linear(n_embd, n_hints)
        self.of_y = nn.Linear(n_embd, n_hints)

    def forward(self, states: Sequence[torch.Tensor], hints: torch.Tensor) -> torch.Tensor:
        """
        Squared distance of the hints that are read from the true ones, a mean over prompts.

        Args:
            states (sequence of L `torch.Tensor` of shape `(B, 2 P - 1, E)`):
                State after each loop, at the tokens x_1 y_1 ... x_P.
            hints (`torch.Tensor` of shape `(B, P, H)`):
                The true ones at each point.

        Returns:
            `torch.Tensor` of shape `(L, 2 P - 1)`, float32: first those read at the P xs, then at the P - 1 ys.
        """
        states = torch.stack(tuple(states), dim=1).float()
        hints = hints.unsqueeze(1)
        differences = torch.cat(
            (self.of_x(states[:, :, ::2]) - hints, self.of_y(states[:, :, 1::2]) - hints[:, :, :-1]), dim=2
        )
        return differences.square().sum(dim=-1).mean(dim=0)
