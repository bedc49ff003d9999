"""Sum of bits: how many ones a word of bits has, as a binary number."""

from dataclasses import dataclass

import torch

from ..common import Prompts, draw_uniform
from .common import SequenceTask
from .rows import ABSENT, digits_of, draw_symbols, is_within, n_digits_of


@dataclass(frozen=True)
class SumOfBits(SequenceTask):
    """
    A word of n bits; the answer is its number of ones in binary, least significant digit first, as long as n is.

    Args:
        max_length (`int`, defaults to 20), min_length (`int`, defaults to 1):
            Bits n.
        even_counts (`bool`, defaults to `False`):
            Draw words so that all numbers of ones, 0 to n, are equally likely, in place of all words. Words of n fair
            bits have close to n / 2 ones, so the last digit of the answer is seldom met in training without it.
    """

    name = "sum_of_bits"
    description = "sums of bits"
    place_name = "bits"
    symbols = ("0", "1")

    even_counts: bool = False

    def n_slots(self, length: int) -> int:
        return n_digits_of(length, 2)

    def needed_loops(self, prompts: Prompts) -> torch.Tensor:
        """Those in which the first bit gets to the last slot, from token to token."""
        lengths = super().needed_loops(prompts)
        return lengths + (prompts["labels"] != ABSENT).sum(dim=1) - 1

    def draw(self, lengths: torch.Tensor, n_question: int, generator: torch.Generator) -> torch.Tensor:
        if not self.even_counts:
            return draw_symbols(lengths, n_question, 2, generator)
        # a share of ones that is uniform in [0, 1) for each row makes their number uniform in 0 ... n
        uniform = draw_uniform((len(lengths), 1 + n_question), generator)
        ones = (uniform[:, 1:] < uniform[:, :1]).long()
        return ones.where(is_within(lengths, n_question), ABSENT)

    def answer(self, questions: torch.Tensor) -> torch.Tensor:
        ones = questions.clamp(min=0).sum(dim=1)
        return digits_of(ones, self.lengths(questions), 2, self.n_slots(questions.shape[1]))
