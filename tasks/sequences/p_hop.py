"""p-hop induction: look back for the last time that a letter was there, p times over."""

from dataclasses import dataclass
from itertools import pairwise

import torch

from ..common import Prompts, check_at_least_one
from .common import LETTERS, SequenceTask
from .rows import ABSENT, is_within
from .words import check_letters


@dataclass(frozen=True)
class PHop(SequenceTask):
    """
    A text, and a mark ">" for each hop; the answer is the letter that p hops lead to.

    A hop goes from a letter to the one that came after it when it was there the last time before; where it never was,
    it stays. The first hop starts at the last letter. No letter of a text is like its neighbour.

    Args:
        max_length (`int`, defaults to 8), min_length (`int`, defaults to 1):
            Hops p.
        n_text (`int`, defaults to 64):
            Letters of the text.
        n_letters (`int`, defaults to 4):
            Letters of the alphabet, 2 ... 52.
        every_letter (`bool`, defaults to `False`):
            Whether each letter of the text is asked too, for the letter that p hops from there lead to; an answer is
            then right if all of these are.

    Source: Sanford, Hsu and Telgarsky, "Transformers, parallel computation, and logarithmic depth" (ICML 2024).
    """

    name = "p_hop"
    description = "p-hop inductions"
    place_name = "hops"
    separators = (">",)

    max_length: int = 8
    n_text: int = 64
    n_letters: int = 4
    every_letter: bool = False

    def __post_init__(self):
        super().__post_init__()
        check_at_least_one(n_text=self.n_text)
        check_letters(self.n_letters)
        if self.n_letters < 2:
            raise ValueError(f"`n_letters` must be >= 2, got {self.n_letters}.")

    @property
    def symbols(self) -> tuple[str, ...]:
        return (*LETTERS[: self.n_letters], ">")

    def n_question(self, length: int) -> int:
        return self.n_text + length

    def n_slots(self, length: int) -> int:
        return 1

    def lengths(self, questions: torch.Tensor) -> torch.Tensor:
        return super().lengths(questions) - self.n_text

    def read(self, text: str) -> list[str]:
        """As elsewhere, of a text and its marks like "abcab>>"."""
        written = super().read(text)
        words = "".join(written).rstrip(">")
        if len(words) != self.n_text or ">" in words:
            raise ValueError(
                f'a question of {self.name} must be {self.n_text} letters and a ">" for each hop behind them, got '
                f"{text!r:.80}."
            )
        if any(letter == following for letter, following in pairwise(words)):
            raise ValueError(f"a question of {self.name} must have no letter beside its like, got {text!r:.80}.")
        return written

    def draw(self, lengths: torch.Tensor, n_question: int, generator: torch.Generator) -> torch.Tensor:
        shape, options = (len(lengths), self.n_text), {"generator": generator, "device": generator.device}
        steps = torch.randint(1, self.n_letters, shape, **options)
        steps[:, 0] = torch.randint(self.n_letters, shape[:1], **options)
        marks = torch.full((len(lengths), n_question - self.n_text), self.n_letters, device=generator.device)
        marks = marks.where(is_within(lengths, marks.shape[1]), ABSENT)
        return torch.cat((steps.cumsum(dim=1) % self.n_letters, marks), dim=1)

    def answer(self, questions: torch.Tensor) -> torch.Tensor:
        return self._reached(questions)[:, -1:]

    def columns(self, questions: torch.Tensor) -> Prompts:
        columns = super().columns(questions)
        if self.every_letter:
            columns["labels"][:, : self.n_text] = self._reached(questions)
        return columns

    def _reached(self, questions: torch.Tensor) -> torch.Tensor:
        """The letters `(B, n_text)` that the hops of a question lead to from each letter of its text."""
        text, hops = questions[:, : self.n_text], self.lengths(questions)[:, None]
        places = torch.arange(self.n_text, device=text.device)
        is_before = (text[:, :, None] == text[:, None, :]) & (places < places[:, None])
        target = torch.where(is_before.any(dim=2), (is_before * (places + 1)).amax(dim=2), places)
        reached = places.expand_as(text)
        for hop in range(questions.shape[1] - self.n_text):
            reached = torch.where(hop < hops, target.gather(1, reached), reached)
        return text.gather(1, reached)
