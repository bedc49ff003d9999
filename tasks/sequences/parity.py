"""Parity: whether a word of bits has an odd number of ones."""

from dataclasses import dataclass

import torch

from .common import SequenceTask
from .rows import draw_symbols


@dataclass(frozen=True)
class Parity(SequenceTask):
    """
    A word of bits; the answer is their sum modulo 2, in one slot.

    Args:
        max_length (`int`, defaults to 20), min_length (`int`, defaults to 1):
            Bits.
    """

    name = "parity"
    description = "parities of bits"
    place_name = "bits"
    symbols = ("0", "1")

    def n_slots(self, length: int) -> int:
        return 1

    def draw(self, lengths, n_question, generator):
        return draw_symbols(lengths, n_question, 2, generator)

    def answer(self, questions: torch.Tensor) -> torch.Tensor:
        return questions.clamp(min=0).sum(dim=1, keepdim=True) % 2
