"""Sum of bits: how many ones a word of bits has, as a binary number."""

from dataclasses import dataclass

import torch

from .common import SequenceTask
from .rows import digits_of, draw_symbols, n_digits_of


@dataclass(frozen=True)
class SumOfBits(SequenceTask):
    """
    A word of n bits; the answer is its number of ones in binary, least significant digit first, as long as n is.

    Args:
        max_length (`int`, defaults to 20), min_length (`int`, defaults to 1):
            Bits n.
    """

    name = "sum_of_bits"
    description = "sums of bits"
    place_name = "bits"
    symbols = ("0", "1")

    def n_slots(self, length: int) -> int:
        return n_digits_of(length, 2)

    def draw(self, lengths: torch.Tensor, n_question: int, generator: torch.Generator) -> torch.Tensor:
        return draw_symbols(lengths, n_question, 2, generator)

    def answer(self, questions: torch.Tensor) -> torch.Tensor:
        ones = questions.clamp(min=0).sum(dim=1)
        return digits_of(ones, self.lengths(questions), 2, self.n_slots(questions.shape[1]))
