"""
When the loops of a row end. A rule looks at the rows that still run and tells which of them are done:

    rule(state before the loop, state after it, number of the loop from 0, rows) -> (R,)

`rows` (R,) are the running rows of the batch; states are `(R, T, E)`, those after a loop layer-normalised. A rule may
remember what it saw in earlier loops, so each call of a model makes rules of its own. Of several rules the first that
says so ends a row. What ends rows by their states sees the last token of each alone, which makes a row independent of
its batch mates and of padding.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import nn

from .arguments_looped_gpt2 import check_share, check_tolerance, last_tokens


StopRule = Callable[[torch.Tensor, torch.Tensor, int, torch.LongTensor], torch.BoolTensor]
# makes the rule of a call from the place `(B,)` of each row's last token
MakeRule = Callable[[torch.LongTensor], StopRule]


class PerRow:
    """
    The stop rule of rows that know their number of loops.

    Args:
        n_loops (`torch.LongTensor` of shape `(B,)`):
            Loops of each row, >= 1.
    """

    def __init__(self, n_loops: torch.LongTensor):
        self.n_loops = n_loops

    def __call__(
        self, before: torch.Tensor, after: torch.Tensor, number: int, rows: torch.LongTensor
    ) -> torch.BoolTensor:
        """Return whether this is the last loop of each of `rows`."""
        return self.n_loops[rows] <= number + 1


class AtLastToken:
    """
    A stop rule that sees the state of each row's last token alone; a subclass defines `is_done`.

    Args:
        last_tokens (`torch.LongTensor` of shape `(B,)`):
            The place of each row's last token.
    """

    def __init__(self, last_tokens: torch.LongTensor):
        self.last_tokens = last_tokens

    @torch.no_grad()
    def __call__(
        self, before: torch.Tensor, after: torch.Tensor, number: int, rows: torch.LongTensor
    ) -> torch.BoolTensor:
        """Return whether each of `rows` is done, from states `(R, T, E)`."""
        tokens = torch.arange(len(rows), device=rows.device), self.last_tokens[rows]
        return self.is_done(before[tokens], after[tokens], rows)

    def is_done(self, before: torch.Tensor, after: torch.Tensor, rows: torch.LongTensor) -> torch.BoolTensor:
        """Return whether each of `rows` `(R,)` is done, from states `(R, E)`."""
        raise NotImplementedError(f"{type(self).__name__} must define `is_done`.")


class Settled(AtLastToken):
    """
    The stop rule of rows that go on until a loop hardly changes the state of their last token.

    Args:
        tolerance (`float`):
            The change, as a share of the norm of that state, below which a row is done, > 0.
        last_tokens (`torch.LongTensor` of shape `(B,)`):
            The place of each row's last token.
    """

    def __init__(self, tolerance: float, last_tokens: torch.LongTensor):
        super().__init__(last_tokens)
        self.tolerance = tolerance

    def is_done(self, before: torch.Tensor, after: torch.Tensor, rows: torch.LongTensor) -> torch.BoolTensor:
        """Return whether each row has settled."""
        return (after - before).norm(dim=-1) < self.tolerance * after.norm(dim=-1)


class Confident(AtLastToken):
    """
    The stop rule of rows that go on until one answer at their last token is likely enough.

    Args:
        confidence (`float`):
            The largest probability at which a row is done, in (0, 1).
        read_out (`Callable`):
            Turns states `(R, E)` into the logits `(R, C)` of C answers.
        last_tokens (`torch.LongTensor` of shape `(B,)`):
            The place of each row's last token.
    """

    def __init__(
        self, confidence: float, read_out: Callable[[torch.Tensor], torch.Tensor], last_tokens: torch.LongTensor
    ):
        super().__init__(last_tokens)
        self.confidence = confidence
        self.read_out = read_out

    def is_done(self, before: torch.Tensor, after: torch.Tensor, rows: torch.LongTensor) -> torch.BoolTensor:
        """Return whether each row is confident."""
        return self.read_out(after).float().softmax(dim=-1).amax(dim=-1) >= self.confidence


class Gated(AtLastToken):
    """
    The stop rule of rows that go on until a learned gate has probably stopped them.

    After loop t the gate stops a row with probability lambda_t = sigmoid(gate(state of the last token)), so it has
    stopped by then with probability 1 - (1 - lambda_1) ... (1 - lambda_t).

    Source: the exit gate of Zhu et al., "Scaling Latent Reasoning via Looped Language Models" (2025), which ends by
    that probability; Banino et al., "PonderNet: Learning to Ponder" (2021), which draws from it.

    Args:
        probability (`float`):
            The probability of having stopped at which a row is done, in (0, 1).
        gate (`Callable`):
            Turns states `(R, E)` into the logits `(R, 1)` of lambda.
        last_tokens (`torch.LongTensor` of shape `(B,)`):
            The place of each row's last token.
    """

    def __init__(self, probability: float, gate: Callable[[torch.Tensor], torch.Tensor], last_tokens: torch.Tensor):
        super().__init__(last_tokens)
        self.probability = probability
        self.gate = gate
        self.has_gone_on = torch.ones(last_tokens.shape, device=last_tokens.device)  # its probability

    def is_done(self, before: torch.Tensor, after: torch.Tensor, rows: torch.LongTensor) -> torch.BoolTensor:
        """Return whether the gate has stopped each row."""
        self.has_gone_on[rows] *= torch.sigmoid(-self.gate(after).squeeze(-1).float())
        return 1 - self.has_gone_on[rows] >= self.probability


def normed(rule: StopRule, norm: nn.Module) -> StopRule:
    """Return the rule for loops that hand on states before the final `norm`: it sees them behind it."""

    @torch.no_grad()
    def run(before: torch.Tensor, after: torch.Tensor, number: int, rows: torch.LongTensor) -> torch.BoolTensor:
        return rule(norm(before), norm(after), number, rows)

    return run


def backbone_exits(
    exit_tolerance: float | None, exit_probability: float | None, gate: nn.Module | None
) -> dict[str, MakeRule]:
    """Return the rules that arguments of the backbone ask for, by argument; raises `ValueError` for a bad one."""
    exits: dict[str, MakeRule] = {}
    if exit_tolerance is not None:
        check_tolerance(exit_tolerance)
        exits["exit_tolerance"] = partial(Settled, float(exit_tolerance))
    if exit_probability is not None:
        check_share("exit_probability", exit_probability)
        if gate is None:
            raise ValueError(
                f"`exit_probability` needs the gate of a model with `exit_gate=True`, got {exit_probability} for a "
                "model without: leave it out, or train such a model."
            )
        exits["exit_probability"] = partial(Gated, float(exit_probability), gate)
    return exits


def confidence_exit(
    exit_confidence: float | None, read_out: Callable[[torch.Tensor], torch.Tensor], n_coda: int
) -> dict[str, MakeRule]:
    """Return the rule of a head whose `read_out` gives logits, by argument; raises `ValueError` for a bad one."""
    if exit_confidence is None:
        return {}
    check_share("exit_confidence", exit_confidence)
    if n_coda:
        raise ValueError(
            f"`exit_confidence` reads an answer after every loop, and the coda runs after the last alone: leave it "
            f"out for a model of `n_coda` = {n_coda}, got {exit_confidence}."
        )
    return {"exit_confidence": partial(Confident, float(exit_confidence), read_out)}


def make_rules(
    n_loops: int | torch.LongTensor,
    exits: Mapping[str, MakeRule],
    prompt: torch.Tensor,
    attention_mask: torch.Tensor | None,
    n_seen: int | torch.Tensor,
) -> tuple[Any, list[StopRule]]:
    """
    Return the loops of each row `(B,)`, and the rules of a call; `n_loops` and no rules where all rows run them.

    `exits` are the rules that end rows before; `prompt` `(B, T, E)` comes after the `n_seen` tokens of a cache.
    """
    if not exits and not isinstance(n_loops, torch.Tensor):
        return n_loops, []
    n_loops = torch.as_tensor(n_loops, device=prompt.device).expand(len(prompt))
    places = last_tokens(prompt, attention_mask, n_seen) if exits else None
    return n_loops, [PerRow(n_loops), *(make(places) for make in exits.values())]
