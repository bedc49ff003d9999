"""Unique set: the different letters of a word."""

from dataclasses import dataclass

import torch

from ..common import draw_uniform
from .positions import leaping
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
        gaps (`bool`, defaults to `False`):
            Let the positions of each row leap at a letter that was not there before, and at its slot: those from
            there on add the whole offset of the row, those before a part of it. So a slot meets letters that are far
            from it in short words. Without a `max_offset` there are none.
    """

    name = "unique_set"
    description = "sets of letters"

    n_letters: int = 32
    even_sets: bool = False
    gaps: bool = False

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

    def draw_offsets(self, questions: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        offsets = super().draw_offsets(questions, generator)
        if not self.gaps:
            return offsets
        is_new = _is_new(questions)
        letter = draw_uniform(questions.shape, generator).where(is_new, -1).argmax(dim=1, keepdim=True)
        slot = is_new.cumsum(dim=1).gather(1, letter) - 1
        places = torch.arange(questions.shape[1], device=questions.device)
        return leaping(offsets, places < torch.stack((letter, slot), dim=1), generator)

    def answer(self, questions: torch.Tensor) -> torch.Tensor:
        is_new = _is_new(questions)
        letters = moved_left(questions.where(is_new, self.slot), is_new)
        return letters.where(is_within(self.lengths(questions), questions.shape[1]), ABSENT)


def _is_new(questions: torch.Tensor) -> torch.BoolTensor:
    """Which letters of `questions` `(B, Q)` come there for the first time."""
    is_same = questions[:, :, None] == questions[:, None, :]
    return ~is_same.tril(diagonal=-1).any(dim=2) & (questions != ABSENT)
