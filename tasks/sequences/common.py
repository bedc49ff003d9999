"""The base of tasks that ask a question in symbols and give slots for the symbols of its answer."""

import string
from dataclasses import dataclass, fields
from typing import ClassVar

import numpy as np
import torch

from ..common import Prompts, Task, check_at_least_one
from .positions import POSITIONS
from .rows import ABSENT, moved_left


LETTERS = string.ascii_letters
LARGEST = 1_000_000  # of every number among the settings: the prompts of more fit nowhere


@dataclass(frozen=True)
class SequenceTask(Task):
    """
    A question of some length, and slots in which its whole answer is given at once.

    A prompt is the question, a slot for each symbol of the answer, and padding that `attention_mask` hides. Slots and
    padding are one token, the last of the vocabulary; the others are the symbols in their order. Every row has its own
    length: `min_length` to `max_length`, all equally likely. The answer follows from the question alone.

    A subclass defines `symbols`, `n_slots`, `draw` and `answer`. Shapes: B rows, Q symbols of the longest question, A
    slots of its answer.

    Args:
        max_length (`int`, defaults to 20), min_length (`int`, defaults to 1):
            Longest and shortest question in the unit of `place_name`, 1 <= `min_length` <= `max_length`.
        positions (`str`, defaults to `"order"`):
            What tells the place of a token, an entry of [`~tasks.sequences.positions.POSITIONS`].
        max_offset (`int`, defaults to 0):
            Each row adds a number from 0 to this, all equally likely, to positions that are `"aligned"`, >= 0: so
            those of longer questions are met in training.
    """

    objective = "answer_slots"
    score_name = "share of wrong answers"
    place_name = "symbols"

    # the symbols between the parts of a question
    separators: ClassVar[tuple[str, ...]] = ()

    max_length: int = 20
    min_length: int = 1
    positions: str = "order"
    max_offset: int = 0

    def __post_init__(self):
        check_at_least_one(max_length=self.max_length, min_length=self.min_length)
        for item in fields(self):
            value = getattr(self, item.name)
            if type(value) is int and value > LARGEST:
                raise ValueError(f"`{item.name}` must be <= {LARGEST}, got {value}.")
            if item.type is bool and type(value) is not bool:
                raise ValueError(f"`{item.name}` must be true or false, got {value!r}.")
        if self.min_length > self.max_length:
            raise ValueError(f"`min_length` must be <= `max_length` = {self.max_length}, got {self.min_length}.")
        if self.positions not in list(POSITIONS):  # whatever it is, even what has no hash
            raise ValueError(f"`positions` must be one of {', '.join(POSITIONS)}, got {self.positions!r}.")
        if type(self.max_offset) is not int or self.max_offset < 0:
            raise ValueError(f"`max_offset` must be an integer >= 0, got {self.max_offset!r}.")
        if self.max_offset and self.positions != "aligned":
            raise ValueError(f"`max_offset` is of positions that are aligned: leave it out, got {self.max_offset}.")

    @property
    def symbols(self) -> tuple[str, ...]:
        """What questions and answers are written in, by token."""
        raise NotImplementedError(f"{type(self).__name__} must define `symbols`.")

    @property
    def letters(self) -> tuple[str, ...]:
        """The symbols that a question may have besides `separators`."""
        return tuple(symbol for symbol in self.symbols if symbol not in self.separators)

    @property
    def _space(self) -> str:
        """What is written between symbols."""
        return " " if len(self.letters[-1]) > 1 else ""

    def n_question(self, length: int) -> int:
        """Symbols of a question of this length."""
        return length

    def n_slots(self, length: int) -> int:
        """Slots after a question of this length."""
        raise NotImplementedError(f"{type(self).__name__} must define `n_slots`.")

    def draw(self, lengths: torch.Tensor, n_question: int, generator: torch.Generator) -> torch.Tensor:
        """Draw a question of each of `lengths` `(B,)`: symbols `(B, Q)`, int64, `ABSENT` behind the last of a row."""
        raise NotImplementedError(f"{type(self).__name__} must define `draw`.")

    def answer(self, questions: torch.Tensor) -> torch.Tensor:
        """Answer questions `(B, Q)`: symbols `(B, A)`, int64, `ABSENT` behind the last of a row."""
        raise NotImplementedError(f"{type(self).__name__} must define `answer`.")

    def lengths(self, questions: torch.Tensor) -> torch.Tensor:
        """The lengths `(B,)` of questions `(B, Q)`."""
        return (questions != ABSENT).sum(dim=1)

    def needed_loops(self, prompts: Prompts) -> torch.Tensor:
        return self.lengths(self.questions(prompts))

    @property
    def slot(self) -> int:
        """The token of a slot."""
        return len(self.symbols)

    @property
    def first_place(self) -> int:
        return self.min_length

    @property
    def sizes(self) -> dict[str, int]:
        return {"max_length": self.max_length}

    @property
    def model_fields(self) -> dict[str, int]:
        return {"vocab_size": self.slot + 1, "n_positions": self.n_positions(**self.sizes)}

    def n_tokens(self, max_length: int) -> int:
        return self.n_question(max_length) + self.n_slots(max_length)

    def n_positions(self, max_length: int) -> int:
        longest_run = max(max_length, self.n_slots(max_length))
        return self.max_offset + POSITIONS[self.positions].n_positions(self.n_tokens(max_length), longest_run)

    def check_sizes(self, max_length: int | None = None):
        if max_length is not None:
            check_at_least_one(max_length=max_length)
            if not self.min_length <= max_length <= self.max_length:
                raise ValueError(
                    f"`max_length` must be in {self.min_length} ... {self.max_length}, the lengths of the task, got "
                    f"{max_length}."
                )

    def sample(
        self, n_prompts: int, generator: torch.Generator, with_hints: bool = False, max_length: int | None = None
    ) -> Prompts:
        """
        Draw prompts, as [`Task.sample`] says, of T tokens.

        Returns:
            int64 of shape `(B, T)`: `input_ids`, `attention_mask`, 0 at padding, and `labels`, the answer at its
            slots and -100 elsewhere.
        """
        max_length = self.checked_sizes(n_prompts, with_hints, max_length=max_length)["max_length"]
        shape, device = (n_prompts,), generator.device
        lengths = torch.randint(self.min_length, max_length + 1, shape, generator=generator, device=device)
        questions = self.draw(lengths, self.n_question(max_length), generator)
        return self.prompts(questions, self.draw_offsets(questions, generator))

    def draw_offsets(self, questions: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Draw what is added to the positions of each of `questions` `(B, Q)`: `(B, R, P)`, by run and place in it."""
        return torch.randint(self.max_offset + 1, (len(questions), 1, 1), generator=generator, device=generator.device)

    def prompts(self, questions: torch.Tensor, offsets: torch.Tensor | None = None) -> Prompts:
        """The columns of `sample` for questions `(B, Q)`; `offsets` as `draw_offsets` returns them, 0 by default."""
        columns = self.columns(questions)
        offsets = torch.zeros_like(questions[:, :1, None]) if offsets is None else offsets
        return columns | self.position_ids(**columns, offsets=offsets)

    def columns(self, questions: torch.Tensor) -> Prompts:
        """The columns of `prompts` without positions."""
        answers = self.answer(questions)
        is_slot = torch.cat((questions == ABSENT, torch.ones_like(answers, dtype=torch.bool)), dim=1)
        tokens = torch.cat((questions, answers), dim=1)
        is_slot = moved_left(is_slot, tokens != ABSENT)
        tokens = moved_left(tokens, tokens != ABSENT)
        return {
            "input_ids": torch.where(is_slot, self.slot, tokens),
            "attention_mask": (tokens != ABSENT).long(),
            "labels": torch.where(is_slot, tokens, ABSENT),
        }

    def position_ids(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, labels: torch.Tensor, offsets: torch.Tensor
    ) -> Prompts:
        """The column of that name, where prompts have positions of their own."""
        separators = torch.tensor([self.symbols.index(each) for each in self.separators], device=input_ids.device)
        # a run is a part of the question, or the answer
        is_in_run = (attention_mask == 1) & ~torch.isin(input_ids, separators)
        kind = is_in_run.long() + (input_ids == self.slot)
        is_start = kind.diff(dim=1, prepend=torch.zeros_like(kind[:, :1])) != 0
        ids = POSITIONS[self.positions].ids(is_start, is_in_run, offsets)
        return {} if ids is None else {"position_ids": ids}

    def questions(self, prompts: Prompts) -> torch.Tensor:
        """The questions of prompts, `(B, T)`."""
        return prompts["input_ids"].masked_fill(prompts["input_ids"] == self.slot, ABSENT)

    def read(self, text: str) -> list[str]:
        """
        The symbols of a question that is written down, with spaces between symbols of several characters.

        Raises:
            `ValueError`: it is no question of this task; the message says what is wrong.
        """
        written = text.split() if self._space else [*"".join(text.split())]
        for place, symbol in enumerate(written, start=1):
            if symbol not in (*self.letters, *self.separators):
                letters = (self.letters[0], "...", self.letters[-1]) if len(self.letters) > 4 else self.letters
                raise ValueError(
                    f"a question of {self.name} is written in {' '.join((*letters, *self.separators))}, got "
                    f"{symbol[:40]!r} as symbol {place}."
                )
        return written

    def write(self, question: torch.Tensor) -> str:
        """Write a question `(Q,)` down, as `read` takes it; `ABSENT` is left out."""
        return self._space.join(self.symbols[symbol] for symbol in question.tolist() if symbol != ABSENT)

    def ask(self, text: str) -> Prompts:
        """
        The prompt of one question, as `sample` returns it.

        Args:
            text (`str`):
                The question, as `read` takes it.

        Raises:
            `ValueError`: it is no question of this task, or shorter or longer than those of the task.
        """
        if not isinstance(text, str):
            raise ValueError(f"a question of {self.name} must be text, got {text!r:.40}.")
        written = self.read(text)
        question = torch.tensor([[self.symbols.index(symbol) for symbol in written]], dtype=torch.long)
        length = int(self.lengths(question)) if written else 0
        if not self.min_length <= length <= self.max_length:
            raise ValueError(
                f"a question of {self.name} must have {self.min_length} to {self.max_length} {self.place_name}, got "
                f"{length}."
            )
        return self.prompts(question)

    def say(self, answers: torch.Tensor, prompts: Prompts) -> list[str]:
        """What `answers` `(B, T)` say in the slots of each prompt, symbols in their order, "_" for an empty slot."""
        written = (*self.symbols, "_")
        return [
            self._space.join(written[symbol] for symbol in answer[labels != ABSENT].tolist())
            for answer, labels in zip(answers, prompts["labels"], strict=True)
        ]

    def score(self, answers: np.ndarray, prompts: Prompts) -> np.ndarray:
        """Whether any symbol of an answer is wrong, `(B, lengths)`: a row counts at its own length alone."""
        lengths, labels = self.lengths(self.questions(prompts)).numpy(), prompts["labels"].numpy()
        is_wrong = ((answers != labels) & (labels != ABSENT)).any(axis=1)
        is_there = lengths[:, None] == np.arange(self.min_length, self.max_length + 1)
        return np.where(is_there, is_wrong[:, None], np.nan)
