"""What every loop computes, and what all loops of one call share; compiled, it serves any number of loops."""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import nn
from transformers.cache_utils import Cache

from .cache_looped_gpt2 import Slot
from .loop_weights_looped_gpt2 import Changes
from .plan_looped_gpt2 import Plan, Step
from .views_looped_gpt2 import View


class Call(NamedTuple):
    """What all loops of one call of the backbone share; tensors have B rows, or one row for all."""

    plan: Plan
    body: Callable  # `run_body`, or that compiled
    cache: Cache | None  # to be filled
    prompt: torch.Tensor  # (B, T, E)
    position_embeds: torch.Tensor | None
    causal_mask: torch.Tensor | None
    position_ids: torch.LongTensor
    views: tuple[View, ...]  # that blocks take in turns
    latest: dict  # keys and values of rows that have ended, see `RunningRows`
    kwargs: dict

    def select_rows(self, rows: torch.LongTensor | None) -> "Call":
        """Return the call for these rows of the batch, all for `None`; `rows` are in ascending order."""
        batch_size = len(self.prompt)
        if rows is None or len(rows) == batch_size:
            return self
        tensors = {name: getattr(self, name) for name in ("prompt", "position_embeds", "causal_mask", "position_ids")}
        own = {
            name: tensor for name, tensor in tensors.items() if tensor is not None and tensor.shape[0] == batch_size
        }
        return self._replace(**{name: tensor[rows] for name, tensor in own.items()})


def run_body(
    model: nn.Module,
    state: torch.Tensor,
    steps: Sequence[Step],
    slots: Sequence[Slot | None],
    call: Call,
    changes: Changes,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the output of the blocks of one loop, and the next state: what is the same in every loop."""
    hidden_states = model.injection(state, call.prompt)
    if call.position_embeds is not None:
        hidden_states = model.drop(hidden_states + call.position_embeds)
    output = run_steps(model, steps, hidden_states, call, slots, changes)
    return output, output if model.config.residual_loops else model.ln_f(output)


@functools.cache
def compiled_body(mode: str) -> Callable:
    """Return [`run_body`] compiled; all models share it."""
    # GELU is a tenth of a step on a CPU, and half of that with a tanh made of exponentials
    options = {**torch._inductor.list_mode_options(mode), "cpp.use_decompose_tanh": True}
    return torch.compile(run_body, dynamic=True, options=options)


def run_steps(
    model: nn.Module,
    steps: Sequence[Step],
    hidden_states: torch.Tensor,
    call: Call,
    slots: Sequence[Slot | None],
    changes: Changes | None = None,
) -> torch.Tensor:
    """Run the blocks of some steps one after another, with `changes` of the weights of each block."""
    for step, slot in zip(steps, slots, strict=True):
        block, view = getattr(model, step.part)[step.block], call.views[step.block % len(call.views)]
        own = changes[step.block] if changes else {}
        mask, kwargs = view.sight(call.causal_mask, call.position_ids)
        kwargs |= {"names": tuple(own), "view": view, **call.kwargs}
        hidden_states = block(hidden_states, slot if view.keeps else None, mask, *own.values(), **kwargs)
    return hidden_states
