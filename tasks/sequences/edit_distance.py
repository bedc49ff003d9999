"""Edit distance: how many letters are to be changed, put in or left out to make one word another."""

import string
from dataclasses import dataclass

import torch

from ..common import Prompts
from .common import LETTERS, SequenceTask
from .rows import ABSENT, digits_of, draw_symbols, is_within, moved_left, n_digits_of, part


@dataclass(frozen=True)
class EditDistance(SequenceTask):
    """
    Two words of n letters, "/" between them; the answer is their distance, in as many
    digits as n has, the least significant first.

    A step of the distance changes, puts in or leaves out a letter (Levenshtein). The second word is the first one with
    a share of its letters drawn anew and all of it turned by up to two places, so that distances of all sizes come.

    Args:
        max_length (`int`, defaults to 20), min_length (`int`, defaults to 1):
            Letters n of each word.
        n_letters (`int`, defaults to 10):
            Letters of the alphabet, 1 ... 26, from "a".
    """

    name = "edit_distance"
    description = "edit distances"
    place_name = "letters"
    separators = ("/",)

    n_letters: int = 10

    def __post_init__(self):
        super().__post_init__()
        if type(self.n_letters) is not int or not 1 <= self.n_letters <= 26:
            raise ValueError(f"`n_letters` must be an integer in 1 ... 26, got {self.n_letters!r}.")

    @property
    def symbols(self) -> tuple[str, ...]:
        return (*string.digits, *LETTERS[: self.n_letters], "/")

    def n_question(self, length: int) -> int:
        return 2 * length + 1

    def n_slots(self, length: int) -> int:
        return n_digits_of(length, 10)

    def lengths(self, questions: torch.Tensor) -> torch.Tensor:
        return super().lengths(questions) // 2

    def needed_loops(self, prompts: Prompts) -> torch.Tensor:
        """The diagonals of the table of distances between beginnings of the words."""
        return 2 * super().needed_loops(prompts)

    @property
    def letters(self) -> tuple[str, ...]:
        return tuple(LETTERS[: self.n_letters])

    def read(self, text: str) -> list[str]:
        """As elsewhere, of words like "stone/tones"."""
        written = super().read(text)
        words = "".join(written).split("/")
        if len(words) != 2 or len(words[0]) != len(words[1]):
            raise ValueError(
                f'a question of {self.name} must be two words of one length with "/" between them, got {text!r:.80}.'
            )
        return written

    def say(self, answers: torch.Tensor, prompts: Prompts) -> list[str]:
        """As elsewhere, most significant digit first."""
        return [answer[::-1] for answer in super().say(answers, prompts)]

    def draw(self, lengths: torch.Tensor, n_question: int, generator: torch.Generator) -> torch.Tensor:
        n_places, options = n_question // 2, {"generator": generator, "device": generator.device}
        first, others = (draw_symbols(lengths, n_places, self.n_letters, generator) + 10 for _ in range(2))
        turns = torch.randint(-2, 3, (len(lengths), 1), **options)
        turned = (torch.arange(n_places, device=generator.device) + turns) % lengths[:, None]
        is_kept = torch.rand(first.shape, **options) < torch.rand(len(lengths), 1, **options)
        second = torch.where(is_kept, first.gather(1, turned), others)
        slash = torch.full((len(lengths), 1), self.slot - 1, device=generator.device)
        question = torch.cat((first, slash, second), dim=1)
        is_there = torch.cat((is_within(lengths, n_places), slash > 0, is_within(lengths, n_places)), dim=1)
        return moved_left(question.where(is_there, ABSENT), is_there)

    def answer(self, questions: torch.Tensor) -> torch.Tensor:
        lengths, n_places = self.lengths(questions), questions.shape[1] // 2
        starts = torch.stack((torch.zeros_like(lengths), lengths + 1))
        first, second = (part(questions, start, lengths, n_places) for start in starts)
        steps = torch.arange(n_places + 1, device=questions.device)
        row = steps.expand(len(questions), -1)  # from nothing to the first letters of the second word
        distances = [row.gather(1, lengths[:, None])]
        for letter in first.unbind(dim=1):
            changed = row[:, :-1] + (letter[:, None] != second)
            row = torch.cat((row[:, :1] + 1, torch.minimum(row[:, 1:] + 1, changed)), dim=1)
            row = (row - steps).cummin(dim=1).values + steps  # letters put in
            distances.append(row.gather(1, lengths[:, None]))
        distance = torch.cat(distances, dim=1).gather(1, lengths[:, None])[:, 0]
        return digits_of(distance, lengths, 10, self.n_slots(n_places))
