"""Unique set: the different letters of a word."""

from dataclasses import dataclass

import torch

from .common import LETTERS, SequenceTask
from .copy import check_letters
from .rows import ABSENT, draw_symbols, is_within, moved_left


@dataclass(frozen=True)
class UniqueSet(SequenceTask):
    """
    A word of n letters; the answer is each of its letters once, in the order in which they come first.

    There are n slots, and those that no letter is left for are to be answered by the token of a slot.

    Args:
        max_length (`int`, defaults to 20), min_length (`int`, defaults to 1):
            Letters n of the word.
        n_letters (`int`, defaults to 32):
            Letters of the alphabet, 1 ... 52.
    """

    name = "unique_set"
    description = "sets of letters"
    place_name = "letters"

    n_letters: int = 32

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

    def answer(self, questions: torch.Tensor) -> torch.Tensor:
        is_same = questions[:, :, None] == questions[:, None, :]
        is_new = ~is_same.tril(diagonal=-1).any(dim=2) & (questions != ABSENT)
        letters = moved_left(questions.where(is_new, self.slot), is_new)
        return letters.where(is_within(self.lengths(questions), questions.shape[1]), ABSENT)
