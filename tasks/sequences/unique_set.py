"""Unique set: the different letters of a word."""

from dataclasses import dataclass

import torch

from .rows import ABSENT, is_within, moved_left
from .words import WordTask


@dataclass(frozen=True)
class UniqueSet(WordTask):
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

    n_letters: int = 32

    def answer(self, questions: torch.Tensor) -> torch.Tensor:
        is_same = questions[:, :, None] == questions[:, None, :]
        is_new = ~is_same.tril(diagonal=-1).any(dim=2) & (questions != ABSENT)
        letters = moved_left(questions.where(is_new, self.slot), is_new)
        return letters.where(is_within(self.lengths(questions), questions.shape[1]), ABSENT)
