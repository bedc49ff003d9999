"""What one loop does besides its blocks: how the embedded prompt enters the state."""

import math

import torch
from torch import nn
from transformers import initialization as init
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
    # whether every loop shrinks what earlier ones left in the state, so that it stays bounded without a norm
    shrinks_state = False
    # matrices of E x E that a token meets on the way into a loop
    n_matrices = 0

    def __init__(self, config: GPT2Config):
        super().__init__()

    def init_weights(self):
        """Set the weights that training starts from by `transformers.initialization`; here there are none."""

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


class Concatenation(Addition):
    """
    W [z; e] + c with a learned matrix W and vector c, and z starts at 0. W starts as [I I], c as 0: as "add".

    Source: Geiping et al., "Scaling up Test-Time Compute with Latent Reasoning" (2025), whose adapter it is.
    """

    n_matrices = 2

    def __init__(self, config: GPT2Config):
        super().__init__(config)
        self.linear = nn.Linear(2 * config.n_embd, config.n_embd)

    def init_weights(self):
        """Start as z + e."""
        eye = torch.eye(self.linear.out_features)
        init.copy_(self.linear.weight, torch.cat((eye, eye), dim=1))
        init.zeros_(self.linear.bias)

    def forward(self, state: torch.Tensor, prompt: torch.Tensor) -> torch.Tensor:
        """Return W [z; e] + c."""
        return self.linear(torch.cat((state, prompt), dim=-1))


class Gate(Addition):
    """
    a * z + b * e with a decay 0 < a < 1 and a gain b, both learned for each coordinate, and z starts at 0.

    Whatever the weights, the entrance shrinks every difference between two states, coordinate by coordinate. Alone it
    would keep each coordinate of the state below |b| max |e| / (1 - a) after any number of loops, where "add" grows
    with every loop. Here the final norm bounds the state after every loop anyway. What a < 1 adds comes before it: the
    input of the blocks forgets earlier states, so that a loop is more of a contraction; the blocks and the norm can
    still stretch what the entrance shrinks, so it does not promise a fixed point. a starts at 0.9, b at 1: near "add".

    Source: "Parcae" (arXiv:2604.12946), there a = exp(-exp(.)); the logistic function is as good a way into (0, 1).
    """

    shrinks_state = True
    initial_decay = 0.9

    def __init__(self, config: GPT2Config):
        super().__init__(config)
        self.decay_logit = nn.Parameter(torch.empty(config.n_embd))
        self.gain = nn.Parameter(torch.empty(config.n_embd))
        self.init_weights()

    def init_weights(self):
        """Start near z + e."""
        init.constant_(self.decay_logit, math.log(self.initial_decay / (1 - self.initial_decay)))
        init.ones_(self.gain)

    def forward(self, state: torch.Tensor, prompt: torch.Tensor) -> torch.Tensor:
        """Return a * z + b * e."""
        return self.decay_logit.sigmoid().to(prompt.dtype) * state + self.gain.to(prompt.dtype) * prompt


INJECTIONS = {
    "add": Addition,
    "multiply": Multiplication,
    "none": NoInjection,
    "concat": Concatenation,
    "gated": Gate,
}
