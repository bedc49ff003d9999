"""Addition: the sum of two numbers, digit by digit."""

from dataclasses import dataclass

import torch

from ..common import Prompts, draw_uniform
from .common import SequenceTask
from .positions import leaping
from .rows import ABSENT, draw_symbols, is_within, moved_left, part


@dataclass(frozen=True)
class Addition(SequenceTask):
    """
    Two numbers of n digits, "+" between them; the answer is their sum of n + 1, all least significant digit first.

    Args:
        max_length (`int`, defaults to 20), min_length (`int`, defaults to 1):
            Digits n of each number, leading zeros included.
        base (`int`, defaults to 10):
            Of the digits, in 2 ... 10.
        gaps (`bool`, defaults to `False`):
            Let the positions of each row leap at one place, over which no carry goes: those behind add the whole
            offset of the row, those before a part of it. So digits that are far apart are met in short sums.
            Without a `max_offset` there are none.
    """

    name = "addition"
    description = "sums of two numbers"
    place_name = "digits"
    separators = ("+",)

    base: int = 10
    gaps: bool = False

    def __post_init__(self):
        super().__post_init__()
        if type(self.base) is not int or not 2 <= self.base <= 10:
            raise ValueError(f"`base` must be an integer in 2 ... 10, got {self.base!r}.")

    @property
    def symbols(self) -> tuple[str, ...]:
        return (*map(str, range(self.base)), "+")

    def n_question(self, length: int) -> int:
        return 2 * length + 1

    def n_slots(self, length: int) -> int:
        return length + 1

    def lengths(self, questions: torch.Tensor) -> torch.Tensor:
        return super().lengths(questions) // 2

    def needed_loops(self, prompts: Prompts) -> torch.Tensor:
        return super().needed_loops(prompts) + 1

    def read(self, text: str) -> list[str]:
        """As elsewhere, of a sum like "95+7": numbers are written most significant digit first, and of any length."""
        numbers = "".join(super().read(text)).split("+")
        if len(numbers) != 2 or not all(numbers):
            raise ValueError(f'a question of {self.name} must be two numbers with "+" between them, got {text!r:.80}.')
        n_digits = max(map(len, numbers))
        return [*"+".join(number.zfill(n_digits)[::-1] for number in numbers)]

    def write(self, question: torch.Tensor) -> str:
        """As elsewhere, most significant digits first."""
        return "+".join(number[::-1] for number in super().write(question).split("+"))

    def say(self, answers: torch.Tensor, prompts: Prompts) -> list[str]:
        """As elsewhere, most significant digit first."""
        return [answer[::-1] for answer in super().say(answers, prompts)]

    def draw(self, lengths: torch.Tensor, n_question: int, generator: torch.Generator) -> torch.Tensor:
        first, second = (draw_symbols(lengths, n_question // 2, self.base, generator) for _ in range(2))
        plus = torch.full_like(lengths, self.base)[:, None]
        question = torch.cat((first, plus, second), dim=1)
        return moved_left(question, question != ABSENT)

    def draw_offsets(self, questions: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        offsets = super().draw_offsets(questions, generator)
        if not self.gaps:
            return offsets
        totals = self._totals(questions)[:, :-1]
        # whatever carry comes in, none goes out
        can_end = (totals < self.base - 1) & is_within(self.lengths(questions), totals.shape[1])
        last = draw_uniform(totals.shape, generator).where(can_end, -1).argmax(dim=1, keepdim=True)
        places = torch.arange(totals.shape[1] + 1, device=questions.device)
        is_before = (places <= last) & can_end.any(dim=1, keepdim=True)
        return leaping(offsets, is_before[:, None], generator)

    def _totals(self, questions: torch.Tensor) -> torch.Tensor:
        """The sum of both digits at each place, 0 where there are none, and one place more: `(B, n + 1)`."""
        lengths, n_digits = self.lengths(questions), questions.shape[1] // 2
        starts = torch.stack((torch.zeros_like(lengths), lengths + 1))
        first, second = (part(questions, start, lengths, n_digits + 1).clamp(min=0) for start in starts)
        return first + second

    def answer(self, questions: torch.Tensor) -> torch.Tensor:
        lengths, n_digits = self.lengths(questions), questions.shape[1] // 2
        carry, digits = torch.zeros_like(lengths), []
        for total in self._totals(questions).unbind(dim=1):
            digits.append((total + carry) % self.base)
            carry = (total + carry) // self.base
        return torch.stack(digits, dim=1).where(is_within(lengths + 1, n_digits + 1), ABSENT)
