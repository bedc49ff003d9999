"""Words of a group: what the product of all elements up to each is."""

from dataclasses import dataclass
from functools import cache
from itertools import permutations

import torch

from ..common import Prompts
from .common import SequenceTask
from .rows import ABSENT, draw_symbols


Permutation = tuple[int, ...]


@dataclass(frozen=True)
class GroupWords(SequenceTask):
    """
    A word g_1 g_2 ... g_n of elements of a group; the answer at every place i is the product g_1 g_2 ... g_i.

    The answer to a letter is asked at the letter itself, so there are no slots. An element is a permutation of five
    things, written as where each goes, from 1; of a product the left factor acts first.

    Args:
        max_length (`int`, defaults to 20), min_length (`int`, defaults to 1):
            Elements n of the word.
        group (`str`, defaults to `"A5"`):
            `"A5"`, the 60 even permutations of five things, or `"S5"`, all 120. Both words are complete for NC1.

    Source: Barrington (1989) for the difficulty; Schoene et al., "Implicit Language Models are RNNs" (ICML 2025), and
    Zhang et al., "When does recurrence become an algorithm?" (arXiv:2607.20594) for looped models.
    """

    name = "group_words"
    description = "words of a group"
    place_name = "elements"

    group: str = "A5"

    def __post_init__(self):
        super().__post_init__()
        if self.group not in list(GROUPS):
            raise ValueError(f"`group` must be one of {', '.join(GROUPS)}, got {self.group!r}.")

    @property
    def symbols(self) -> tuple[str, ...]:
        return tuple("".join(str(place + 1) for place in element) for element in elements_of(self.group))

    def n_slots(self, length: int) -> int:
        return 0

    def draw(self, lengths: torch.Tensor, n_question: int, generator: torch.Generator) -> torch.Tensor:
        return draw_symbols(lengths, n_question, len(self.symbols), generator)

    def answer(self, questions: torch.Tensor) -> torch.Tensor:
        products = product_table(self.group).to(questions.device)
        known = questions.clamp(min=0)
        answers = [known[:, 0]]
        for element in known[:, 1:].unbind(dim=1):
            answers.append(products[answers[-1], element])
        return torch.stack(answers, dim=1).where(questions != ABSENT, ABSENT)

    def columns(self, questions: torch.Tensor) -> Prompts:
        is_there = questions != ABSENT
        return {
            "input_ids": questions.where(is_there, self.slot),
            "attention_mask": is_there.long(),
            "labels": self.answer(questions),
        }


def is_even(element: Permutation) -> bool:
    """Whether a permutation is a product of an even number of transpositions."""
    n_inversions = sum(first > second for place, first in enumerate(element) for second in element[place + 1 :])
    return n_inversions % 2 == 0


GROUPS = {"A5": is_even, "S5": lambda element: True}


@cache
def elements_of(group: str) -> tuple[Permutation, ...]:
    """The elements of a group, in order; the first is the identity."""
    return tuple(filter(GROUPS[group], permutations(range(5))))


@cache
def product_table(group: str) -> torch.Tensor:
    """The products of all pairs of elements, `(n, n)`: entry (i, j) acts as element i and then as element j."""
    elements = elements_of(group)
    number = {element: index for index, element in enumerate(elements)}
    return torch.tensor([[number[tuple(second[i] for i in first)] for second in elements] for first in elements])
