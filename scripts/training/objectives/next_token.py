"""Predict the next token of a text."""

from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.utils import ModelOutput

from modeling_looped_gpt2 import LoopedGPT2LMHeadModel
from scripts.training.objectives.common import Batch, Objective, cross_entropies


class NextToken(Objective):
    """
    The cross-entropy of the next token in nats, of the last loop or a mean over those of the window; `loss` is logged.

    A batch may have `position_ids` `(B, T)` of its own: with an `attention_mask` `(B, T)` where they do not count
    tokens, without where they start again with every packed text.

    Answers are tokens `(B, T)`, int64: at every position the one that is held most likely to come next.
    """

    model_class = LoopedGPT2LMHeadModel
    auto_class = "AutoModelForCausalLM"
    answer_columns = ("input_ids",)
    optional_columns = ("position_ids", "attention_mask")
    scores_all_loops = False

    def arguments(self, batch: Batch) -> dict[str, Any]:
        """The columns; no cache is kept."""
        return {**batch, "use_cache": False}

    def errors(self, outputs: ModelOutput, batch: Batch) -> tuple[torch.Tensor, torch.BoolTensor]:
        """The cross-entropy of the answer at every position."""
        return cross_entropies(torch.stack(outputs.loop_logits, dim=1), self.targets(batch))

    def targets(self, batch: Batch) -> torch.Tensor:
        """The right answer at every position `(B, T)`, -100 where there is none: here the next token."""
        return nn.functional.pad(batch["labels"][:, 1:], (0, 1), value=-100)

    def read(self, model: PreTrainedModel, columns: Batch, n_loops: int | None, every_loop: bool) -> torch.Tensor:
        """The token of the largest score."""
        outputs = model(**columns, n_loops=n_loops, output_loop_logits=every_loop, use_cache=False)
        if not every_loop:
            return outputs.logits.argmax(dim=-1)
        return torch.stack([logits.argmax(dim=-1) for logits in outputs.loop_logits], dim=1)
