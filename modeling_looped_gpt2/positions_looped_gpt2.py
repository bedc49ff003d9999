"""What tells a token its place: the position embeddings, and the positions of a call."""

import torch
from torch import nn
from transformers import initialization as init
from transformers.models.gpt2.configuration_gpt2 import GPT2Config

from .arguments_looped_gpt2 import check_indices


class LearnedPositions(nn.Embedding):
    """
    A learned vector for each of `n_positions` positions.

    Args:
        config ([`LoopedGPT2Config`]):
            The model's configuration.
    """

    # whether a sequence can have no more tokens than there are positions
    is_limited = True

    def __init__(self, config: GPT2Config):
        super().__init__(config.n_positions, config.n_embd)

    def init_weights(self, std: float):
        """Set the weights that training starts from, of standard deviation `std`."""
        init.normal_(self.weight, mean=0.0, std=std)


class SinusoidalPositions(nn.Module):
    """
    Sines and cosines of the position, each by a learned gain; wavelengths are 2 pi to almost 2 pi `sinusoidal_base`.

    Positions have no end, and a step from one to the next is the same rotation everywhere: what is learned of places
    that are met in training holds for others (Vaswani et al. 2017, section 3.5).

    Args:
        config ([`LoopedGPT2Config`]):
            The model's configuration.
    """

    is_limited = False

    def __init__(self, config: GPT2Config):
        super().__init__()
        self.base = config.sinusoidal_base
        self.gain = nn.Parameter(torch.empty(config.n_embd))

    def init_weights(self, std: float):
        """Set the gains that training starts from, for waves whose mean square is `std` squared."""
        init.constant_(self.gain, std * 2**0.5)

    def frequencies(self, n_waves: int, device: torch.device) -> torch.Tensor:
        """Angles `(n_waves,)` per position, float32: powers of 1 / `sinusoidal_base`, from 1 down."""
        return self.base ** -(torch.arange(n_waves, device=device) / n_waves)

    def forward(self, position_ids: torch.LongTensor) -> torch.Tensor:
        """Return the waves `(B, T, E)` at positions `(B, T)`, computed in float32 and of the dtype of the gains."""
        n_waves = (len(self.gain) + 1) // 2
        angles = position_ids.unsqueeze(-1) * self.frequencies(n_waves, position_ids.device)
        waves = torch.cat((angles.sin(), angles.cos()), dim=-1)[..., : len(self.gain)]
        return waves.to(self.gain.dtype) * self.gain


class FourierPositions(SinusoidalPositions):
    """
    Sines and cosines of the position, of evenly spaced frequencies from 0 to pi per token, each by a learned gain.

    The first `n_embd` positions are orthogonal at first, so that no distance between them looks like another, and a
    step is the same rotation everywhere still. Positions further than `n_embd` apart look alike again.

    Args:
        config ([`LoopedGPT2Config`]):
            The model's configuration.
    """

    def frequencies(self, n_waves: int, device: torch.device) -> torch.Tensor:
        """Angles `(n_waves,)` per position, float32: the odd multiples of pi / (2 n_waves)."""
        return (torch.arange(n_waves, device=device) + 0.5) * (torch.pi / n_waves)


class NoPositions(nn.Module):
    """Nothing: a token knows its place by the tokens that it sees, which causal attention counts."""

    is_limited = False

    def __init__(self, config: GPT2Config):
        super().__init__()

    def init_weights(self, std: float):
        """There are no weights."""

    def forward(self, position_ids: torch.LongTensor) -> torch.Tensor:
        """Return zeros `(1, 1, 1)`, to be added to the embedded tokens at any positions."""
        return torch.zeros((1, 1, 1), device=position_ids.device)


POSITION_EMBEDDINGS = {
    "learned": LearnedPositions,
    "sinusoidal": SinusoidalPositions,
    "fourier": FourierPositions,
    "none": NoPositions,
}


def check_positions(position_ids: torch.LongTensor | None, batch_size: int, n_tokens: int, max_tokens: int):
    """Refuse positions without one entry for each token of the call."""
    if position_ids is None:
        return
    check_indices("position_ids", position_ids, max_tokens)
    if tuple(position_ids.shape) not in ((batch_size, n_tokens), (1, n_tokens)):
        raise ValueError(
            f"`position_ids` must have shape {(batch_size, n_tokens)} or {(1, n_tokens)}, got "
            f"{tuple(position_ids.shape)}."
        )


def next_positions(inputs_embeds: torch.Tensor, n_seen: int | torch.Tensor, max_tokens: int) -> torch.LongTensor:
    """Return the positions `(1, T)` of T tokens after the `n_seen` of a cache; refuse more than the model has."""
    n_tokens = inputs_embeds.shape[1]
    # a static cache keeps its length in a tensor, which a check would have to wait for
    if isinstance(n_seen, int) and n_seen + n_tokens > max_tokens:
        raise ValueError(
            f"`n_positions` is {max_tokens} tokens, got a sequence of {n_seen + n_tokens}: shorten it, or give "
            "`position_ids` if the model was trained with them."
        )
    return (torch.arange(n_tokens, device=inputs_embeds.device) + n_seen).unsqueeze(0)
