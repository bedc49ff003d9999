"""Learning when to stop: the gate of a model is trained with the answers that it stops at."""

import math
from typing import Any

import torch
from torch import nn
from transformers.utils import ModelOutput

from scripts.training.objectives.common import Batch, Means, Objective


class ExitGate(Objective):
    """
    The expected error of another objective where a gate stops the loops, and how far the gate is from a prior.

    Wherever an answer is scored, the gate stops after loop t of the window with probability lambda_t if it has not
    stopped before, and certainly after the last: p_t = lambda_t (1 - lambda_1) ... (1 - lambda_{t-1}). The loss is

        sum_t p_t error_t + prior_weight KL(p || prior),    prior_t proportional to (1 - prior_rate) ** t

    a mean over the places. The loops before the window count as gone through, so a gate that is to stop in all of them
    is trained without `loop_window`. `expected_loss` is the first term, `exit_loops` the mean loop of the window, from
    1, that the gate stops after; both are logged beside what the other objective logs.

    Source: Banino et al., "PonderNet: Learning to Ponder" (2021), whose prior is geometric; Zhu et al., "Scaling
    Latent Reasoning via Looped Language Models" (2025, Ouro), whose entropy term is, but for a constant, the
    divergence from the uniform prior.

    Args:
        objective ([`Objective`]):
            Whose errors count, and whose answers are those of both.
        prior_weight (`float`):
            Of the divergence, in units of the error, >= 0 (0.01 in PonderNet, 0.1 and then 0.05 in Ouro).
        prior_rate (`float`):
            In [0, 1): 0 is the uniform prior, above it the prior stops after each loop with this probability.
    """

    def __init__(self, objective: Objective, prior_weight: float, prior_rate: float):
        self.objective, self.prior_weight, self.prior_rate = objective, prior_weight, prior_rate
        self.model_class, self.auto_class = objective.model_class, objective.auto_class
        self.answers = objective.answers

    def arguments(self, batch: Batch) -> dict[str, Any]:
        """Those of the other objective, with the answers after every loop of the window."""
        return self.objective.arguments(batch) | {f"output_{self.objective.loop_answers}": True}

    def losses(self, outputs: ModelOutput, batch: Batch) -> tuple[torch.Tensor, Means]:
        """The loss, and what is logged."""
        _, means = self.objective.losses(outputs, batch)
        errors, is_scored = self.objective.errors(outputs, batch)
        errors, gates = (values.movedim(1, -1)[is_scored] for values in (errors, outputs.loop_exit_logits))  # (N, L)
        log_exits = log_exit_probabilities(gates)
        exits = log_exits.exp()
        loops = torch.arange(gates.shape[-1], device=gates.device)
        log_prior = (loops * math.log1p(-self.prior_rate)).log_softmax(dim=-1)
        expected = (exits * errors).sum(dim=-1).mean()
        divergence = (exits * (log_exits - log_prior)).sum(dim=-1).mean()
        exit_loops = 1 + (exits * loops).sum(dim=-1).mean()
        means |= {"expected_loss": expected.detach(), "exit_loops": exit_loops.detach()}
        return expected + self.prior_weight * divergence, means


def log_exit_probabilities(gates: torch.Tensor) -> torch.Tensor:
    """
    The log-probability `(..., L)` of stopping after each of L loops, certainly after the last.

    Args:
        gates (`torch.Tensor` of shape `(..., L)`):
            Logits of stopping after a loop for what has not stopped before; that of the last is not looked at.
    """
    stops = nn.functional.logsigmoid(gates)
    goes_on = nn.functional.logsigmoid(-gates[..., :-1]).cumsum(dim=-1)
    stops = nn.functional.pad(stops[..., :-1], (0, 1))
    return stops + nn.functional.pad(goes_on, (1, 0))
