"""Rows of symbols, each of a length of its own; behind its last symbol a row has `ABSENT`."""

import torch


ABSENT = -100  # as a label it is left out of a loss


def draw_symbols(lengths: torch.Tensor, n_question: int, n_symbols: int, generator: torch.Generator) -> torch.Tensor:
    """Draw words of `lengths` `(B,)`, all of `n_symbols` symbols equally likely: `(B, n_question)`, then `ABSENT`."""
    symbols = torch.randint(n_symbols, (len(lengths), n_question), generator=generator, device=generator.device)
    return symbols.where(is_within(lengths, n_question), ABSENT)


def is_within(lengths: torch.Tensor, n_places: int) -> torch.Tensor:
    """Which of the places 0, 1, ... of rows of `lengths` `(B,)` lie in them: `(B, n_places)`."""
    return torch.arange(n_places, device=lengths.device) < lengths[:, None]


def moved_left(values: torch.Tensor, is_there: torch.BoolTensor) -> torch.Tensor:
    """Values `(B, T)` with those that are there before the others in every row, both in their order."""
    return values.gather(1, (~is_there).long().argsort(dim=1, stable=True))


def part(tokens: torch.Tensor, starts: torch.Tensor, lengths: torch.Tensor, n_places: int) -> torch.Tensor:
    """The parts of rows `(B, T)` from `starts` `(B,)` on, of `lengths` `(B,)`: `(B, n_places)`, then `ABSENT`."""
    places = starts[:, None] + torch.arange(n_places, device=tokens.device)
    found = tokens.gather(1, places.clamp(max=tokens.shape[1] - 1))
    return found.where(is_within(lengths, n_places), ABSENT)


def digits_of(numbers: torch.Tensor, largest: torch.Tensor, base: int, n_digits: int) -> torch.Tensor:
    """Numbers `(B,)`, least significant digit first, in as many as `largest` `(B,)` has: `(B, n_digits)`."""
    powers = base ** torch.arange(n_digits, device=numbers.device)
    return (numbers[:, None] // powers % base).where(largest[:, None] >= powers, ABSENT)


def n_digits_of(number: int, base: int) -> int:
    """Digits of a number >= 1."""
    return 1 if number < base else 1 + n_digits_of(number // base, base)
