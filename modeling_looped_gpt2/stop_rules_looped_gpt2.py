"""
When the loops of a row end. A rule looks at the rows that still run and tells which of them are done:

    rule(state before the loop, state after it, number of the loop from 0, rows) -> (R,)

`rows` (R,) are the running rows of the batch; states are `(R, T, E)`, those after a loop layer-normalised. A rule may
remember what it saw in earlier loops, so each call of a model makes rules of its own. Of several rules the first that
says so ends a row. What ends rows by their states sees some tokens of each alone, the last one unless a call says
otherwise, which makes a row independent of its batch mates and of padding.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import nn

from .arguments_looped_gpt2 import check_share, check_tolerance, last_tokens


StopRule = Callable[[torch.Tensor, torch.Tensor, int, torch.LongTensor], torch.BoolTensor]
# makes the rule of a call from the places `(B, A)` of the tokens that each row is judged by
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


class AtTokens:
    """
    A stop rule that sees the states of some tokens of each row alone; a subclass defines `is_done`.

    Args:
        places (`torch.LongTensor` of shape `(B, A)`):
            Those of the tokens, A of each row.
    """

    def __init__(self, places: torch.LongTensor):
        self.places = places

    @torch.no_grad()
    def __call__(
        self, before: torch.Tensor, after: torch.Tensor, number: int, rows: torch.LongTensor
    ) -> torch.BoolTensor:
        """Return whether each of `rows` is done, from states `(R, T, E)`."""
        tokens = torch.arange(len(rows), device=rows.device).unsqueeze(1), self.places[rows]
        return self.is_done(before[tokens], after[tokens], rows)

    def is_done(self, before: torch.Tensor, after: torch.Tensor, rows: torch.LongTensor) -> torch.BoolTensor:
        """Return whether each of `rows` `(R,)` is done, from states `(R, A, E)`."""
        raise NotImplementedError(f"{type(self).__name__} must define `is_done`.")


class Settled(AtTokens):
    """
    The stop rule of rows that go on until a loop hardly changes the states of the tokens that they are judged by.

    Args:
        tolerance (`float`):
            The change, as a share of the norm of these states, below which a row is done, > 0.
        places (`torch.LongTensor` of shape `(B, A)`):
            Those of the tokens.
    """

    def __init__(self, tolerance: float, places: torch.LongTensor):
        super().__init__(places)
        self.tolerance = tolerance

    def is_done(self, before: torch.Tensor, after: torch.Tensor, rows: torch.LongTensor) -> torch.BoolTensor:
        """Return whether each row has settled."""
        return (after - before).flatten(1).norm(dim=-1) < self.tolerance * after.flatten(1).norm(dim=-1)


class Confident(AtTokens):
    """
    The stop rule of rows that go on until one answer is likely enough, in the mean over the tokens that are judged.

    Args:
        confidence (`float`):
            The largest probability at which a row is done, in (0, 1).
        read_out (`Callable`):
            Turns states `(R, A, E)` into the logits `(R, A, C)` of C answers.
        places (`torch.LongTensor` of shape `(B, A)`):
            Those of the tokens.
    """

    def __init__(self, confidence: float, read_out: Callable[[torch.Tensor], torch.Tensor], places: torch.LongTensor):
        super().__init__(places)
        self.confidence = confidence
        self.read_out = read_out

    def is_done(self, before: torch.Tensor, after: torch.Tensor, rows: torch.LongTensor) -> torch.BoolTensor:
        """Return whether each row is confident."""
        return self.read_out(after).float().softmax(dim=-1).amax(dim=-1).mean(dim=-1) >= self.confidence


class Gated(AtTokens):
    """
    The stop rule of rows that go on until a learned gate has probably stopped them.

    After loop t the gate stops a token with probability lambda_t = sigmoid(gate(its state)), so it has stopped by then
    with probability 1 - (1 - lambda_1) ... (1 - lambda_t); of several tokens the mean counts.

    Source: the exit gate of Zhu et al., "Scaling Latent Reasoning via Looped Language Models" (2025), which ends by
    that probability; Banino et al., "PonderNet: Learning to Ponder" (2021), which draws from it.

    Args:
        probability (`float`):
            The probability of having stopped at which a row is done, in (0, 1).
        gate (`Callable`):
            Turns states `(R, A, E)` into the logits `(R, A, 1)` of lambda.
        places (`torch.LongTensor` of shape `(B, A)`):
            Those of the tokens.
    """

    def __init__(self, probability: float, gate: Callable[[torch.Tensor], torch.Tensor], places: torch.Tensor):
        super().__init__(places)
        self.probability = probability
        self.gate = gate
        self.has_gone_on = torch.ones(places.shape, device=places.device)  # its probability

    def is_done(self, before: torch.Tensor, after: torch.Tensor, rows: torch.LongTensor) -> torch.BoolTensor:
        """Return whether the gate has stopped each row."""
        self.has_gone_on[rows] *= torch.sigmoid(-self.gate(after).squeeze(-1).float())
        return 1 - self.has_gone_on[rows].mean(dim=-1) >= self.probability


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
    judged_tokens: torch.LongTensor | None = None,
) -> tuple[Any, list[StopRule]]:
    """
    Return the loops of each row `(B,)`, and the rules of a call; `n_loops` and no rules where all rows run them.

    `exits` are the rules that end rows before; `prompt` `(B, T, E)` comes after the `n_seen` tokens of a cache. They
    judge by `judged_tokens` `(A,)`, or else by the last token that the mask shows.
    """
    if not exits and not isinstance(n_loops, torch.Tensor):
        return n_loops, []
    n_loops = torch.as_tensor(n_loops, device=prompt.device).expand(len(prompt))
    rules = [PerRow(n_loops)]
    if exits and judged_tokens is None:
        places = last_tokens(prompt, attention_mask, n_seen).unsqueeze(1)
    elif exits:
        places = judged_tokens.expand(len(prompt), -1)
    return n_loops, rules + [make(places) for make in exits.values()]
