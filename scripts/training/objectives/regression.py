"""Predict a value, or a vector of values, at every point of a prompt."""

from dataclasses import dataclass
from typing import Any

import torch
from accelerate.utils import reduce
from transformers import PreTrainedModel
from transformers.utils import ModelOutput

from modeling_looped_gpt2 import LoopedGPT2ForInContextRegression
from modeling_looped_gpt2.modeling_looped_gpt2_regression import pinball_loss
from scripts.training.objectives.common import Batch, Means
from scripts.training.objectives.in_context import InContext


@dataclass
class Regression(InContext):
    """
    The squared error after every loop of the window, of a model of quantiles their pinball loss, logged as `loss`, and
    the squared `error_at_last_point` after the last loop; the last point of a set is its last query.

    Answers are predictions `(B, P)`, float32, or `(B, P, K)` of K values per point.

    Args:
        loss_balance (`float`, defaults to 0.0):
            The loss of every loop and point is divided by this power of its own mean error over the batch of all
            processes, in [0, 1]: 0 is the plain mean, 1 makes relative errors count alike.
    """

    model_class = LoopedGPT2ForInContextRegression
    loop_answers = "loop_predictions"

    loss_balance: float = 0.0

    def arguments(self, batch: Batch) -> dict[str, Any]:
        """The columns, and the predictions after every loop."""
        return {**batch, "output_loop_predictions": True}

    def losses(self, outputs: ModelOutput, batch: Batch) -> tuple[torch.Tensor, Means]:
        """The balanced loss, the plain one and the error at the last point."""
        # (L, P), or (L, P, K): the mean over the prompts alone
        errors = _distances(outputs, batch).mean(dim=0)
        at_last_point = (outputs.predictions[:, -1].float() - batch["labels"][:, -1]).square().mean(dim=0)
        means = {"loss": outputs.loss.detach(), "error_at_last_point": at_last_point.detach().sum()}
        return self.mean_of(errors), means

    def errors(self, outputs: ModelOutput, batch: Batch) -> tuple[torch.Tensor, torch.BoolTensor]:
        """The squared error, a mean over the numbers of a y, or the pinball loss of its quantiles."""
        errors = _distances(outputs, batch)
        errors = errors.flatten(3).mean(dim=-1) if errors.ndim > 3 else errors
        return errors, torch.ones_like(errors[:, 0], dtype=torch.bool)

    def mean_of(self, errors: torch.Tensor) -> torch.Tensor:
        """The mean of errors, each divided by a power of its mean over all processes."""
        if not self.loss_balance:
            return errors.mean()
        scale = reduce(errors.detach(), reduction="mean")
        return (errors / scale.clamp_min(torch.finfo(scale.dtype).tiny) ** self.loss_balance).mean()

    def read(self, model: PreTrainedModel, columns: Batch, n_loops: int | None, every_loop: bool) -> torch.Tensor:
        """Predictions, float32."""
        outputs = model(**columns, n_loops=n_loops, output_loop_predictions=every_loop)
        return (outputs.loop_predictions if every_loop else outputs.predictions).float()


def _distances(outputs: ModelOutput, batch: Batch) -> torch.Tensor:
    """How far the answers after every loop are from the labels, `(B, L, P)`, or `(B, L, P, K)` of K numbers."""
    labels = batch["labels"].unsqueeze(1)
    if outputs.loop_quantiles is not None:
        return pinball_loss(outputs.loop_quantiles.float(), labels)
    return (outputs.loop_predictions.float() - labels).square()
