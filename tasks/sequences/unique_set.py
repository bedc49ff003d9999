"""Unique set: the different letters of a word."""

from dataclasses import dataclass

import torch

from ..common import draw_uniform
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
        even_sets (`bool`, defaults to `False`):
            Draw words so that all numbers of different letters, 1 to n, are equally likely, in place of all words.
            Short words seldom have a letter twice, so there is nothing to learn from them without it.
    """

    name = "unique_set"
    description = "sets of letters"

    n_letters: int = 32
    even_sets: bool = False

    def draw(self, lengths: torch.Tensor, n_question: int, generator: torch.Generator) -> torch.Tensor:
        if not self.even_sets:
            return super().draw(lengths, n_question, generator)

        n_words = len(lengths)
        # a share of new letters that is uniform in [0, 1) for each row makes their number uniform in 1 ... n
        is_new = draw_uniform((n_words, n_question), generator) < draw_uniform((n_words, 1), generator)
        is_new[:, 0] = True
        n_met = is_new.cumsum(dim=1)
        is_new &= n_met <= self.n_letters
        n_met = n_met.clamp(max=self.n_letters)
        place = torch.where(is_new, n_met - 1, (draw_uniform((n_words, n_question), generator) * n_met).long())
        letters = draw_uniform((n_words, self.n_letters), generator).argsort(dim=1).gather(1, place)
        return letters.where(is_within(lengths, n_question), ABSENT)

    def answer(self, questions: torch.Tensor) -> torch.Tensor:
        is_same = questions[:, :, None] == questions[:, None, :]
        is_new = ~is_same.tril(diagonal=-1).any(dim=2) & (questions != ABSENT)
        letters = moved_left(questions.where(is_new, self.slot), is_new)
        return letters.where(is_within(self.lengths(questions), questions.shape[1]), ABSENT)
