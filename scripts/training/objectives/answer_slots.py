"""Answer at some positions of a sequence of tokens."""

from typing import Any

import torch
from transformers.utils import ModelOutput

from scripts.training.objectives.common import Batch, Means
from scripts.training.objectives.next_token import NextToken


class AnswerSlots(NextToken):
    """
    The cross-entropy of the answers in nats, of the last loop or a mean over those of the window, logged as `loss`,
    and as `error_rate` the share of answers that are wrong after the last loop.

    A batch has `labels` `(B, T)` beside `input_ids`: the answer at each position itself, -100 where none is asked for.
    Answers are tokens `(B, T)`, int64, one at every position.
    """

    def arguments(self, batch: Batch) -> dict[str, Any]:
        """The tokens and their labels, kept from being shifted."""
        return {**self.inputs(batch), "labels": batch["labels"], "shift_labels": batch["labels"], "use_cache": False}

    def losses(self, outputs: ModelOutput, batch: Batch) -> tuple[torch.Tensor, Means]:
        """The loss, and the share of wrong answers."""
        loss, means = super().losses(outputs, batch)
        labels = batch["labels"]
        wrong = (outputs.logits.argmax(dim=-1) != labels) & (labels != -100)
        return loss, means | {"error_rate": wrong.sum() / (labels != -100).sum()}

    def targets(self, batch: Batch) -> torch.Tensor:
        """The labels themselves."""
        return batch["labels"]
