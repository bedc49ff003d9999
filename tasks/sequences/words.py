"""The base of questions that are a word of letters, with a slot for each."""

from dataclasses import dataclass

import torch

from ..common import check_at_least_one
from .common import LETTERS, SequenceTask
from .rows import draw_symbols


@dataclass(frozen=True)
class WordTask(SequenceTask):
    """
    A word of n letters with n slots; a subclass defines its answer.

    Args:
        max_length (`int`, defaults to 20), min_length (`int`, defaults to 1):
            Letters n of the word.
        n_letters (`int`, defaults to 10):
            Letters of the alphabet, 1 ... 52.
    """

    place_name = "letters"

    n_letters: int = 10

    def __post_init__(self):
        super().__post_init__()
        check_letters(self.n_letters)

    @property
    def symbols(self) -> tuple[str, ...]:
        return tuple(LETTERS[: self.n_letters])

    def n_slots(self, length: int) -> int:
        return length

    def draw(self, lengths: torch.Tensor, n_question: int, generator: torch.Generator) -> torch.Tensor:
        return draw_symbols(lengths, n_question, self.n_letters, generator)


def check_letters(n_letters: int):
    """Raise `ValueError` unless there is an alphabet of so many letters."""
    check_at_least_one(n_letters=n_letters)
    if n_letters > len(LETTERS):
        raise ValueError(f"`n_letters` must be <= {len(LETTERS)}, got {n_letters}.")
