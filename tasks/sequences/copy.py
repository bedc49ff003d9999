"""Copy: say a word again."""

from dataclasses import dataclass

import torch

from .words import WordTask


@dataclass(frozen=True)
class Copy(WordTask):
    """A word; the answer is the same word. Its settings are those of [`WordTask`]."""

    name = "copy"
    description = "copies of words"

    def answer(self, questions: torch.Tensor) -> torch.Tensor:
        return questions
