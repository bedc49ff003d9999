"""What one loop does besides its blocks: how the embedded prompt enters the state."""

import torch
from torch import nn
from transformers.models.gpt2.configuration_gpt2 import GPT2Config


class InputInjection(nn.Module):
    """
    How the embedded prompt e enters the state z before a loop. A new way is a subclass and an entry of `INJECTIONS`.

    Args:
        config ([`~transformers.GPT2Config`]):
            The model's configuration.
    """

    # whether e enters every loop; else it is the state before the first alone
    enters_every_loop = True

    def __init__(self, config: GPT2Config):
        super().__init__()

    def initial_state(self, prompt: torch.Tensor) -> torch.Tensor:
        """Return the state before the first loop, of the shape of `prompt` `(B, T, E)`."""
        raise NotImplementedError(f"{type(self).__name__} must say which state the loops start from.")

    def forward(self, state: torch.Tensor, prompt: torch.Tensor) -> torch.Tensor:
        """Return what a loop makes of the state after the loop before and of the prompt, all `(B, T, E)`."""
        raise NotImplementedError(f"{type(self).__name__} must say how the prompt enters the state.")


class NoInjection(InputInjection):
    """z alone, and z starts at e: blocks with tied weights."""

    enters_every_loop = False

    def initial_state(self, prompt: torch.Tensor) -> torch.Tensor:
        """Return e."""
        return prompt

    def forward(self, state: torch.Tensor, prompt: torch.Tensor) -> torch.Tensor:
        """Return z."""
        return state


class Addition(InputInjection):
    """z + e, and z starts at 0."""

    def initial_state(self, prompt: torch.Tensor) -> torch.Tensor:
        """Return 0."""
        return torch.zeros_like(prompt)

    def forward(self, state: torch.Tensor, prompt: torch.Tensor) -> torch.Tensor:
        """Return z + e."""
        return state + prompt


class Multiplication(InputInjection):
    """z * e, and z starts at 1."""

    def initial_state(self, prompt: torch.Tensor) -> torch.Tensor:
        """Return 1."""
        return torch.ones_like(prompt)

    def forward(self, state: torch.Tensor, prompt: torch.Tensor) -> torch.Tensor:
        """Return z * e."""
        return state * prompt


INJECTIONS = {"add": Addition, "multiply": Multiplication, "none": NoInjection}
