"""Learning from hints: the states of a model are asked, while it trains, for what the function itself would tell."""

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from scripts.training.objectives.common import Batch, Means, Objective


class Hints(Objective):
    """
    Another objective and, after every loop of the window, how far the hints read from the states are from true.

    The second loss is weighted by loops and tokens as the first is; after the last loop it is logged as `hint_error`.

    Args:
        objective ([`Objective`]):
            The first loss, whose answers are those of both; of a head that returns `loop_hidden_states`.
        weight (`float`):
            Of the second loss, > 0.
        reader ([`HintReader`]):
            Reads the hints; trained beside the model.
    """

    def __init__(self, objective: Objective, weight: float, reader: "HintReader"):
        self.objective, self.weight, self.module = objective, weight, reader
        self.model_class, self.auto_class = objective.model_class, objective.auto_class
        self.answers = objective.answers

    def __call__(self, model: nn.Module, batch: Batch, loops: Mapping[str, int | None]) -> tuple[torch.Tensor, Means]:
        """As the first objective, of a batch that has `hints` `(B, P, H)` too."""
        prompts = {name: values for name, values in batch.items() if name != "hints"}
        outputs = model(**self.objective.arguments(prompts), **loops, output_loop_hidden_states=True)
        loss, means = self.objective.losses(outputs, prompts)
        errors = self.module(outputs.loop_hidden_states, batch["hints"])
        loss = loss + self.weight * self.objective.mean_of(errors)
        return loss, means | {"hint_error": errors[-1].mean().detach()}


class HintReader(nn.Module):
    """
    Reads the hint at every point from the states: one linear map for the tokens of x, another for those of y.

    The token of x is to tell what the examples before it say, the token of y what they and its own example say. A
    prediction is one number per point and says little about how to get it; a hint says more, in more numbers.

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
