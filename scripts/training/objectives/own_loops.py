"""Loops that each row of a batch has of its own: the answer is to come in time, and to stay."""

from collections.abc import Mapping

import torch
from torch import nn

from scripts.training.objectives.common import Batch, Means, Objective


class OwnLoops(Objective):
    """
    Another objective, of batches whose rows say how many loops they need and how many they run.

    A row is scored after every loop from the one that it needs to the last that it runs, so that an answer stays when
    loops go on; a row counts as much as another, whatever its loops. Before, it cannot know its answer: with a
    `doubt_weight` its last place is asked to hold all answers alike until then, so that its confidence, by which
    `exit_confidence` stops, tells when a row is done. `doubt` is how far it is from that, the divergence from equal
    probabilities in nats; `error_rate` is of the last loop of each row.

    Source: Fan et al., "Looped Transformers for Length Generalization" (ICLR 2025), who score the needed loop alone.

    Args:
        objective ([`Objective`]):
            Whose errors count, of a head that returns `loop_logits`, and whose answers are those of both.
        doubt_weight (`float`):
            >= 0, in units of the error.
    """

    def __init__(self, objective: Objective, doubt_weight: float):
        self.objective, self.doubt_weight = objective, doubt_weight
        self.model_class, self.auto_class = objective.model_class, objective.auto_class
        self.answers = objective.answers

    def __call__(self, model: nn.Module, batch: Batch, loops: Mapping[str, int | None]) -> tuple[torch.Tensor, Means]:
        """As the other objective, of a batch that has `needed_loops` and `n_loops`, both `(B,)`, too."""
        needed, last = batch["needed_loops"], batch["n_loops"]
        arguments = self.objective.arguments(batch) | {"n_loops": int(last.max()), "output_loop_logits": True}
        outputs = model(**arguments)
        # (B, T, V) of the last loop of each row: those after it are none of its own
        outputs.logits = torch.stack([outputs.loop_logits[n - 1][row] for row, n in enumerate(last.tolist())])
        _, means = self.objective.losses(outputs, batch)
        errors, is_scored = self.objective.errors(outputs, batch)  # (B, L, T), (B, T)
        numbers = torch.arange(1, errors.shape[1] + 1, device=errors.device)
        is_answered = (numbers >= needed[:, None]) & (numbers <= last[:, None])  # (B, L)
        loss = mean_by_row(errors, is_answered, is_scored)
        means["loss"] = loss.detach()
        if not self.doubt_weight:
            return loss, means
        logits = torch.stack(outputs.loop_logits, dim=1).float()
        doubt = -logits.log_softmax(dim=-1).mean(dim=-1) - torch.tensor(logits.shape[-1]).log()
        is_last = is_scored & (is_scored.flip(1).cumsum(dim=1).flip(1) == 1)
        doubt = mean_by_row(doubt, numbers < needed[:, None], is_last)
        return loss + self.doubt_weight * doubt, means | {"doubt": doubt.detach()}


def mean_by_row(values: torch.Tensor, loops: torch.BoolTensor, places: torch.BoolTensor) -> torch.Tensor:
    """The mean `()` over rows of their mean values, of `(B, L, T)`, at some loops `(B, L)` and places `(B, T)`."""
    chosen = loops[:, :, None] & places[:, None]
    return ((values * chosen).sum(dim=(1, 2)) / chosen.sum(dim=(1, 2)).clamp(min=1)).mean()
