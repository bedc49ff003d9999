"""
What the weights of the shared blocks are in one loop. Whatever differs between loops is a change of shared tensors:

    W_t = (W + A_t B_t + d_t) * (1 + f_t)

`A_t B_t` (of a matrix) and `d_t` (of a vector) are the adapters of loop t, `f_t` its encoding: a scale of the
layer-normed input of attention and MLP, or a gate of what they add. The block that runs is a stock one.
"""

import contextlib
import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import torch
from torch import nn
from torch.func import functional_call
from transformers import initialization as init
from transformers.models.gpt2.configuration_gpt2 import GPT2Config
from transformers.models.gpt2.modeling_gpt2 import GPT2Block

from .views_looped_gpt2 import WHOLE, View


class Place(NamedTuple):
    """
    Where a loop stands on the axis that its encoding is a function of.

    Args:
        of (`Callable`):
            (number of the loop, from 1; loops of the call) -> the place.
        by_row (`bool`):
            Whether rows that run different numbers of loops stand at one place.
    """

    of: Callable[[int, int], float]
    by_row: bool


# a share counts hundredths, so that the waves of steps up to a hundred or so tell shares apart too
LOOP_ENCODINGS = {
    "step": Place(lambda number, n_loops: number, by_row=True),
    "share": Place(lambda number, n_loops: 100 * number / n_loops, by_row=False),
}
# of each shared block: tensors by the name of the weight that they change, and how
Changes = list[dict[str, torch.Tensor]]
# modules of a block whose outputs an encoding multiplies: the norms of its inputs, what adds to the residual stream
ENCODED_PARTS = {"scale": ("ln_1", "ln_2"), "gate": ("attn.c_proj", "mlp.c_proj")}
ENCODED_PARTS["both"] = ENCODED_PARTS["scale"] + ENCODED_PARTS["gate"]
# which adapter the loops after the last one with an adapter of its own have, as a share of the last one's
SHARES_BEYOND = {"last": 1, "none": 0}
# cosines, and as many sines, of the encoding of a place
N_WAVES = 128


def check_loop_weights(config: GPT2Config):
    """Refuse fields of a configuration that no weights of a loop can be built from."""
    for name, allowed in (
        ("loop_encoding", (None, *LOOP_ENCODINGS)),
        ("loop_encoding_parts", tuple(ENCODED_PARTS)),
        ("adapter_beyond", tuple(SHARES_BEYOND)),
    ):
        if getattr(config, name) not in allowed:
            raise ValueError(f"`{name}` must be one of {allowed}, got {getattr(config, name)!r}.")
    if config.loop_encoding is None and config.loop_encoding_parts != "both":
        raise ValueError(
            f"`loop_encoding_parts` needs a `loop_encoding`, got {config.loop_encoding_parts!r} without: give one of "
            f"{tuple(LOOP_ENCODINGS)}, or leave it out."
        )
    rank, n_adapters = config.adapter_rank, config.n_adapters
    if not rank and config.adapter_beyond != "last":
        raise ValueError(
            f"`adapter_beyond` needs an `adapter_rank` >= 1, got {config.adapter_beyond!r} without: leave it out."
        )
    if isinstance(rank, bool) or not 0 <= rank <= config.n_embd:
        raise ValueError(f"`adapter_rank` must be in 0 ... `n_embd` = {config.n_embd}, got {rank}.")
    if n_adapters is not None and (isinstance(n_adapters, bool) or n_adapters < 1):
        raise ValueError(f"`n_adapters` must be an integer >= 1, got {n_adapters}.")
    if n_adapters is not None and not rank:
        raise ValueError(f"`n_adapters` needs an `adapter_rank` >= 1, got {n_adapters} adapters of rank 0.")


def depends_on_n_loops(config: GPT2Config) -> bool:
    """Whether a loop depends on the loops of its call: loop t of more is then another than the last of t."""
    name = getattr(config, "loop_encoding", None)  # code beside weights may be of an older version
    return name is not None and not LOOP_ENCODINGS[name].by_row


def waves(place: float, device: torch.device) -> torch.Tensor:
    """Return cosines and sines `(2 * N_WAVES,)` of a place, of wavelengths from 2 pi to 20000 pi, in float32."""
    frequencies = 10000 ** (-torch.arange(N_WAVES, device=device) / N_WAVES)
    angles = place * frequencies
    return torch.cat((angles.cos(), angles.sin()))


class LoopEncoding(nn.Module):
    """
    Factors of every block as a function of the loop: waves, Linear, SiLU, Linear. The last layer starts at zero, so
    that the model starts as the loop without an encoding.

    Source: Xu and Sato, "On Expressive Power of Looped Transformers" (ICML 2025). Scales are 1 + s there too; their
    gates are g alone, which makes every loop the identity at the start, and here 1 + g.

    Args:
        config ([`LoopedGPT2Config`]):
            With a `loop_encoding`.
    """

    def __init__(self, config: GPT2Config):
        super().__init__()
        self.name = config.loop_encoding
        self.parts = ENCODED_PARTS[config.loop_encoding_parts]
        self.shape = config.n_layer, len(self.parts), config.n_embd
        self.hidden = nn.Linear(2 * N_WAVES, config.n_embd)
        self.output = nn.Linear(config.n_embd, math.prod(self.shape))

    def reset_parameters(self):
        """Start as no encoding."""
        init.zeros_(self.output.weight)

    def check_by_row(self):
        """Refuse calls whose rows run different numbers of loops where the encoding depends on that number."""
        if not LOOP_ENCODINGS[self.name].by_row:
            raise ValueError(
                f"`n_loops` must be one number with `loop_encoding={self.name!r}`, which would be another in every "
                "row of one loop, got a tensor: call rows of different `n_loops` apart, or train with 'step'."
            )

    def forward(self, number: int, n_loops: int) -> Changes:
        """Return the changes in loop `number`, from 1, of `n_loops`."""
        weight = self.hidden.weight
        place = waves(LOOP_ENCODINGS[self.name].of(number, n_loops), weight.device).to(weight.dtype)
        factors = self.output(nn.functional.silu(self.hidden(place))).view(self.shape)
        names = [[f"{part}.{kind}.factor" for kind in ("weight", "bias")] for part in self.parts]
        return [
            {name: factor for factor, pair in zip(block, names, strict=True) for name in pair} for block in factors
        ]


class LoopAdapters(nn.Module):
    """
    A low-rank adapter of every matrix of every block, and a difference of every vector, for each of the first loops.

    Sources: Hu et al., "LoRA" (ICLR 2022), for the adapters and their start, A random and B zero; Bae et al., "Relaxed
    Recursive Transformers" (ICLR 2025), for one in every loop. The differences of biases and norms, fewer numbers than
    one more rank, are ours: with them adapters of full rank make any blocks of the shared ones.

    Args:
        config ([`LoopedGPT2Config`]):
            With an `adapter_rank`.
        block ([`~transformers.models.gpt2.modeling_gpt2.GPT2Block`]):
            One of the shared blocks, for the shapes of its weights.
    """

    def __init__(self, config: GPT2Config, block: GPT2Block):
        super().__init__()
        self.n_adapters, self.n_blocks = config.n_adapters, config.n_layer
        self.share_beyond = SHARES_BEYOND[config.adapter_beyond]
        self.names = {}  # of a change, by that of the parameter that holds it, which has no dots
        for name, weight in block.named_parameters():
            shapes = {"difference": weight.shape}
            if weight.ndim == 2:
                n_in, n_out = weight.shape
                shapes = {"lora_A": (n_in, config.adapter_rank), "lora_B": (config.adapter_rank, n_out)}
            for kind, shape in shapes.items():
                key = f"{name}.{kind}".replace(".", "_")
                self.names[key] = f"{name}.{kind}"
                self.register_parameter(key, nn.Parameter(torch.empty(self.n_adapters, self.n_blocks, *shape)))

    def reset_parameters(self):
        """Start as no adapters."""
        for name, weight in self.named_parameters():
            if name.endswith("lora_A"):
                init.normal_(weight, mean=0.0, std=weight.shape[-2] ** -0.5)
            else:
                init.zeros_(weight)

    @torch.no_grad()
    def fit(self, number: int, block: int, name: str, missing: torch.Tensor):
        """Make `missing` of a weight of one block in loop `number`, from 1, its adapter, as near as the rank lets."""
        parts = {"difference": missing}
        if missing.ndim == 2:
            left, sizes, right = torch.linalg.svd(missing, full_matrices=False)
            parts = {"lora_A": left, "lora_B": sizes[:, None] * right}
        for kind, tensor in parts.items():
            own = self.get_parameter(f"{name}.{kind}".replace(".", "_"))[number - 1, block]
            region = tuple(map(slice, map(min, own.shape, tensor.shape)))
            own[region] = tensor[region]

    def check_by_row(self):
        """Take rows of different numbers of loops: adapters depend on the loop alone."""

    def forward(self, number: int, n_loops: int) -> Changes:
        """Return the changes in loop `number`, from 1."""
        place = min(number, self.n_adapters) - 1
        share = 1 if number <= self.n_adapters else self.share_beyond
        changes = [{} for _ in range(self.n_blocks)]
        for key, name in self.names.items():
            own = getattr(self, key)[place] * share  # in every loop, whose body is compiled for one kind of tensor
            for change, tensor in zip(changes, own, strict=True):
                change[name] = tensor
        return changes


class LoopWeights(nn.ModuleDict):
    """
    All that makes the weights of a loop differ from the shared ones; empty in a model whose loops are all the same.

    Args:
        config ([`LoopedGPT2Config`]):
            The model's configuration.
        block ([`~transformers.models.gpt2.modeling_gpt2.GPT2Block`]):
            One of the shared blocks.
    """

    def __init__(self, config: GPT2Config, block: GPT2Block):
        super().__init__()
        self.n_blocks = config.n_layer
        if config.loop_encoding is not None:
            self["encoding"] = LoopEncoding(config)
        if config.adapter_rank:
            self["adapters"] = LoopAdapters(config, block)

    def check_by_row(self):
        """Refuse calls whose rows run different numbers of loops where one of the parts cannot take them."""
        for part in self.values():
            part.check_by_row()

    def forward(self, number: int, n_loops: int) -> Changes:
        """Return all changes in loop `number`, from 1, of `n_loops`."""
        changes = [{} for _ in range(self.n_blocks)]
        for part in self.values():
            for change, own in zip(changes, part(number, n_loops), strict=True):
                change |= own
        return changes


def change_output(
    changes: dict[str, torch.Tensor], module: nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor
) -> torch.Tensor:
    """The hook of a matrix or a norm that turns its `output` into that of weights with these `changes`."""
    if "weight.lora_A" in changes:
        output = output + inputs[0] @ changes["weight.lora_A"] @ changes["weight.lora_B"] + changes["bias.difference"]
    if "weight.difference" in changes:
        own = changes["weight.difference"], changes["bias.difference"]
        output = output + nn.functional.layer_norm(inputs[0], module.normalized_shape, *own, module.eps)
    if "weight.factor" in changes:
        output = output * (1 + changes["weight.factor"].to(module.weight.dtype))  # as in `_changed`
    return output


class OwnForward(nn.Module):
    """A block's forward pass as a module, without the block's hooks: they see the call that this one is part of."""

    def __init__(self, block: GPT2Block):
        super().__init__()
        self.block = block

    def forward(self, *args, **kwargs) -> torch.Tensor:
        """Run the block as transformers has it."""
        return GPT2Block.forward(self.block, *args, **kwargs)


class LoopedGPT2Block(GPT2Block):
    """
    A stock GPT-2 block that can be given changes of its weights for one call, and a view of its tokens.

    It changes them itself, where activation checkpointing computes them again and FSDP has gathered them.
    """

    def __init__(self, config: GPT2Config, layer_idx: int):
        super().__init__(config, layer_idx=layer_idx)
        self.__dict__["own_forward"] = OwnForward(self)  # no part of this module: it would contain itself

    def forward(
        self,
        hidden_states: torch.Tensor,
        cache: object | None = None,
        attention_mask: torch.Tensor | None = None,
        *changes: torch.Tensor,
        names: tuple[str, ...] = (),
        view: View = WHOLE,
        **kwargs,
    ) -> torch.Tensor:
        """
        Run the block on what the `view` shows of `hidden_states` `(B, T, E)`; returns states of the same shape.

        It runs with `changes` of its weights of these `names`, tensors that checkpointing can see.
        """
        inputs = view.part(hidden_states), cache, attention_mask
        if not changes:
            return view.join(super().forward(*inputs, **kwargs), hidden_states.shape)
        named = dict(zip(names, changes, strict=True))
        if self._has_few_tokens(hidden_states):
            with self._changed_outputs(named):
                output = super().forward(*inputs, **kwargs)
        else:
            output = functional_call(self.own_forward, self._changed(named), inputs, kwargs, tie_weights=False)
        return view.join(output, hidden_states.shape)

    def _has_few_tokens(self, hidden_states: torch.Tensor) -> bool:
        """Whether what the weights make of the tokens is less to change than the weights, as where texts grow."""
        if torch.is_grad_enabled() or torch.compiler.is_compiling():
            return False
        batch_size, n_tokens, n_embd = hidden_states.shape
        return 2 * batch_size * n_tokens < n_embd

    @contextlib.contextmanager
    def _changed_outputs(self, changes: dict[str, torch.Tensor]) -> Iterator[None]:
        """Let the modules that `changes` are about give what they would give with changed weights."""
        by_module = {}
        for name, tensor in changes.items():
            module, weight, kind = name.rsplit(".", 2)
            by_module.setdefault(module, {})[f"{weight}.{kind}"] = tensor
        with contextlib.ExitStack() as stack:
            for name, own in by_module.items():
                module = self.get_submodule(name)
                stack.enter_context(module.register_forward_hook(partial(change_output, own)))
            yield

    def _changed(self, changes: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return the weights that `changes` are about, changed, by their names in `own_forward`."""
        changed = {}
        for name in dict.fromkeys(change.rsplit(".", 1)[0] for change in changes):
            weight = self.get_parameter(name)
            if f"{name}.lora_A" in changes:
                weight = weight + changes[f"{name}.lora_A"] @ changes[f"{name}.lora_B"]
            if f"{name}.difference" in changes:
                weight = weight + changes[f"{name}.difference"]
            if f"{name}.factor" in changes:  # under autocast f is of fewer bits than 1 + f needs
                weight = weight * (1 + changes[f"{name}.factor"].to(weight.dtype))
            changed[f"block.{name}"] = weight
        return changed
