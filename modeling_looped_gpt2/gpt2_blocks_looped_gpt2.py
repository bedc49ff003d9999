"""What a looped model takes from a GPT-2: which of its blocks, and what blocks that are shared make of several."""

import os
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from numbers import Integral
from typing import Any

import torch
from torch import nn
from transformers.models.gpt2.configuration_gpt2 import GPT2Config
from transformers.models.gpt2.modeling_gpt2 import GPT2LMHeadModel

from .arguments_looped_gpt2 import check_loops
from .loop_weights_looped_gpt2 import LoopAdapters


# which of all blocks in the loops a shared block starts as the mean of: (its place, shared blocks, all blocks)
SHARED = {
    "average": lambda place, n_layer, n_blocks: range(place, n_blocks, n_layer),
    "step": lambda place, n_layer, n_blocks: [round(place * (n_blocks - 1) / max(n_layer - 1, 1))],
    "first": lambda place, n_layer, n_blocks: [place],
}
# how the blocks of a GPT-2 follow each other, in fields of a looped model
RUN_OF_BLOCKS = {"input_injection": "none", "residual_loops": True, "block_loops": None}


def as_gpt2(model: GPT2LMHeadModel | str | os.PathLike) -> GPT2LMHeadModel:
    """Return the model, or load the one of that name; refuse other types, whose weights a GPT-2 may not have."""
    is_name = isinstance(model, str | os.PathLike)
    model_type = type(model).__name__
    if is_name:
        model_type = GPT2Config.get_config_dict(model)[0].get("model_type")
    elif isinstance(model, GPT2LMHeadModel):
        model_type = model.config.model_type
    if model_type != "gpt2":
        name = f" of {str(model)!r}" if is_name else ""
        raise ValueError(f"`model` must be a `GPT2LMHeadModel` or the name of one, got the type {model_type!r}{name}.")
    return GPT2LMHeadModel.from_pretrained(model) if is_name else model


def blocks_of_parts(
    n_blocks: int, prelude: Sequence[int], loop: Sequence[int] | None, coda: Sequence[int]
) -> dict[str, list[int]]:
    """Return the blocks of a GPT-2 in each of the three parts; every block must have one place in them."""
    blocks = range(n_blocks)
    parts = {"prelude": prelude, "loop": blocks if loop is None else loop, "coda": coda}
    for name, indices in parts.items():
        if not isinstance(indices, Iterable) or not all(isinstance(i, Integral) and i in blocks for i in indices):
            raise ValueError(f"`{name}` must hold blocks 0 to {n_blocks - 1}, got {indices}.")
    if loop is None:
        parts["loop"] = [index for index in blocks if index not in (*prelude, *coda)]
    parts = {name: list(indices) for name, indices in parts.items()}
    if not parts["loop"]:
        raise ValueError("`loop` must hold at least one block, got none.")
    named = list(chain(*parts.values()))
    if repeated := sorted({index for index in named if named.count(index) > 1}):
        raise ValueError(f"A block has one place in `prelude`, `loop` and `coda`, got {repeated} in more.")
    if left_out := [index for index in blocks if index not in named]:
        raise ValueError(
            f"`prelude`, `loop` and `coda` must hold all blocks together, and {left_out} are in none: name them, or "
            "take them out of the GPT-2 before (`del model.transformer.h[i]`, and lower `model.config.n_layer`)."
        )
    return parts


def shared_blocks(config: GPT2Config, blocks: Sequence[int], n_loops: int | None, shared: str) -> list[list[int]]:
    """
    Return of which of a GPT-2's `blocks` each shared block starts as the mean.

    Args:
        config ([`~transformers.GPT2Config`]):
            That of the GPT-2.
        blocks (`Sequence[int]`):
            Those in the loops, in order.
        n_loops (`int`):
            Loops that they are cut into, >= 1; divides them.
        shared (`str`):
            One of `SHARED`.

    Raises:
        `ValueError`: one of these is not as above, or attention depends on the place of a block.
    """
    if shared not in SHARED:
        raise ValueError(f"`shared` must be one of {tuple(SHARED)}, got {shared!r}.")
    if n_loops is None:
        raise ValueError("`n_loops` must be given with `shared` or `adapter_rank`: the blocks are cut into as many.")
    check_loops(n_loops)
    if isinstance(n_loops, torch.Tensor) or len(blocks) % n_loops:
        raise ValueError(f"`n_loops` must divide the {len(blocks)} blocks of the loop to share them, got {n_loops}.")
    if config.scale_attn_by_inverse_layer_idx:
        raise ValueError(
            "`scale_attn_by_inverse_layer_idx` must be False for blocks to be shared: attention of a shared block has "
            "one scale in all loops."
        )
    n_layer = len(blocks) // n_loops
    return [[blocks[place] for place in SHARED[shared](own, n_layer, len(blocks))] for own in range(n_layer)]


def as_blocks_ran(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return fields of a model whose loops stand for blocks of a GPT-2; refuse `changes` of how these ran."""
    for name, value in RUN_OF_BLOCKS.items():
        if changes.get(name, value) != value:
            raise ValueError(
                f"`{name}` must be {value!r} where loops stand for the blocks of a GPT-2 (`shared`, `adapter_rank`), "
                f"which ran so, got {changes[name]!r}: leave it out."
            )
    return RUN_OF_BLOCKS | changes


@torch.no_grad()
def load_means(blocks: Iterable[nn.Module], layers: Sequence[nn.Module], origins: Iterable[Sequence[int]]):
    """Write into each of `blocks` the mean of the weights of those of `layers` that it stands for."""
    for block, origin in zip(blocks, origins, strict=True):
        for name, weight in block.named_parameters():
            weight.copy_(torch.stack([layers[index].get_parameter(name).float() for index in origin]).mean(0))


@torch.no_grad()
def fit_adapters(adapters: LoopAdapters, shared: Sequence[nn.Module], layers: Sequence[nn.Module]):
    """Make the adapters of every loop what its `layers` have beyond the `shared` blocks, as near as the rank lets."""
    for place, layer in enumerate(layers):
        number, block = divmod(place, len(shared))
        for name, weight in layer.named_parameters():
            adapters.fit(number + 1, block, name, weight.float() - shared[block].get_parameter(name).float())
