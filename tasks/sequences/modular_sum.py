"""Addition of many numbers modulo another."""

from dataclasses import dataclass

import torch

from ..common import check_at_least_one
from .common import SequenceTask
from .rows import draw_symbols


@dataclass(frozen=True)
class ModularSum(SequenceTask):
    """
    n numbers, a token each; the answer is their sum modulo m, a token too.

    Args:
        max_length (`int`, defaults to 20), min_length (`int`, defaults to 1):
            Numbers n.
        modulus (`int`, defaults to 1000):
            m >= 1; the numbers are 0 ... m - 1.

    Source: Saunshi et al., "Reasoning with Latent Thoughts" (ICLR 2025), whose operands have three digits.
    """

    name = "modular_sum"
    description = "sums of many numbers"
    place_name = "numbers"

    modulus: int = 1000

    def __post_init__(self):
        super().__post_init__()
        check_at_least_one(modulus=self.modulus)

    @property
    def symbols(self) -> tuple[str, ...]:
        return tuple(map(str, range(self.modulus)))

    def n_slots(self, length: int) -> int:
        return 1

    def draw(self, lengths: torch.Tensor, n_question: int, generator: torch.Generator) -> torch.Tensor:
        return draw_symbols(lengths, n_question, self.modulus, generator)

    def answer(self, questions: torch.Tensor) -> torch.Tensor:
        return questions.clamp(min=0).sum(dim=1, keepdim=True) % self.modulus
