"""Tell the class of every point of a prompt."""

from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.utils import ModelOutput

from modeling_looped_gpt2 import LoopedGPT2ForInContextClassification
from scripts.training.objectives.common import Batch, Means, cross_entropies
from scripts.training.objectives.in_context import InContext


class Classification(InContext):
    """
    The cross-entropy in nats after every loop of the window, logged as `loss`, and as `error_at_last_point` the share
    of prompts whose last point, of a set the last query, is given a wrong class after the last loop.

    Answers are classes `(B, P)`, int64.
    """

    model_class = LoopedGPT2ForInContextClassification

    def arguments(self, batch: Batch) -> dict[str, Any]:
        """The columns alone."""
        return dict(batch)

    def losses(self, outputs: ModelOutput, batch: Batch) -> tuple[torch.Tensor, Means]:
        """The loss, and the share of wrong classes at the last point."""
        loss, means = super().losses(outputs, batch)
        wrong = outputs.logits[:, -1].argmax(dim=-1) != batch["labels"][:, -1]
        return loss, means | {"error_at_last_point": wrong.float().mean()}

    def errors(self, outputs: ModelOutput, batch: Batch) -> tuple[torch.Tensor, torch.BoolTensor]:
        """The cross-entropy of the class of every point."""
        return cross_entropies(outputs.loop_logits, batch["labels"])

    def read(self, model: PreTrainedModel, columns: Batch, n_loops: int | None, every_loop: bool) -> torch.Tensor:
        """The class of the largest score."""
        outputs = model(**columns, n_loops=n_loops, output_loop_logits=every_loop)
        return (outputs.loop_logits if every_loop else outputs.logits).argmax(dim=-1)
