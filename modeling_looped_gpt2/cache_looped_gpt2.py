"""How the steps of a plan share a stock transformers cache: each brings its own slot."""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import fields

import torch
from torch.utils._python_dispatch import is_traceable_wrapper_subclass
from transformers import PreTrainedConfig
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer, StaticLayer
from transformers.modeling_outputs import BaseModelOutputWithPast

from .plan_looped_gpt2 import Plan, Step


# how outputs and `generate` name a cache: `cache` since transformers 5.24, `past_key_values` before
CACHE_NAME = fields(BaseModelOutputWithPast)[1].name


class CacheByEitherName:
    """
    An output whose cache can be read as `cache`, its name since transformers 5.24, under older versions too.

    Name it after an output class of transformers among the bases: where that class has such a field, the field wins.
    """

    @property
    def cache(self) -> Cache | None:
        return self.past_key_values


def one_cache(cache: Cache | None, past_key_values: Cache | None) -> Cache | None:
    """Return the cache given under either name; the older name is deprecated where transformers deprecates it."""
    if past_key_values is None:
        return cache
    if cache is not None:
        raise ValueError("`cache` and `past_key_values` are two names of one argument: give one of them.")
    if CACHE_NAME == "cache" and not torch.compiler.is_compiling():
        warnings.warn("`past_key_values` is deprecated since transformers 5.24: use `cache`.", FutureWarning, 3)
    return past_key_values


class Slot:
    """
    The slot of one step, given to a stock GPT-2 block in the place of the cache: a block does not know its loop.

    Args:
        cache ([`~transformers.Cache`]):
            Any stock cache with a slot for every step that keeps its keys and values.
        step ([`Step`]):
            The step of the plan.
    """

    def __init__(self, cache: Cache, step: Step):
        self.cache = cache
        self.step = step

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *args, **kwargs
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Add the keys and values `(B, n_head, T, head_dim)` of the step; return all of its slot."""
        slot = self.step.slot
        if self.step.keeps:
            return self.cache.update(key_states, value_states, slot, *args, **kwargs)
        if slot >= len(self.cache.layers):  # a dynamic cache that grows
            return key_states, value_states
        return read_with(self.cache.layers[slot], key_states, value_states)


def read_with(
    layer: DynamicLayer | StaticLayer, key_states: torch.Tensor, value_states: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what updating `layer` would return, and leave it as it is."""
    if isinstance(layer, StaticLayer):
        if not layer.is_initialized:
            layer.lazy_initialization(key_states, value_states)
        places = torch.arange(key_states.shape[-2], device=key_states.device) + layer.cumulative_length
        return layer.keys.index_copy(2, places, key_states), layer.values.index_copy(2, places, value_states)
    if not layer.is_initialized:
        return key_states, value_states
    return torch.cat((layer.keys, key_states), dim=-2), torch.cat((layer.values, value_states), dim=-2)


class RunningRows:
    """
    The slot of one step that only some rows of the batch still run.

    A row that ended earlier leaves the keys and values of its last loop in the slots of all later ones.

    Args:
        slot ([`Slot`]):
            The step's slot, for all rows.
        rows (`torch.LongTensor` of shape `(R,)`):
            Rows that run the step, all of them in the first loop.
        latest (`dict[int, tuple[torch.Tensor, torch.Tensor]]`):
            Keys and values of the new tokens of all rows, as the loop before left them, by the place of a step in its
            loop; updated here.
        place (`int`):
            The place of this step in its loop.
    """

    def __init__(self, slot: Slot, rows: torch.LongTensor, latest: dict, place: int):
        self.slot = slot
        self.rows = rows
        self.latest = latest
        self.place = place

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *args, **kwargs
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """As [`Slot.update`], for keys and values of the running rows `(R, n_head, T, head_dim)`."""
        if self.place in self.latest:
            keys, values = self.latest[self.place]
            key_states = keys.index_copy(0, self.rows, key_states)
            value_states = values.index_copy(0, self.rows, value_states)
        self.latest[self.place] = key_states, value_states
        keys, values = self.slot.update(key_states, value_states, layer_idx, *args, **kwargs)
        return keys[self.rows], values[self.rows]


def slots_of(
    cache: Cache | None, steps: Sequence[Step], rows: torch.LongTensor | None = None, latest: dict | None = None
) -> list[Slot | RunningRows | None]:
    """Return what the block of each of `steps` gets as its cache, for all rows or `rows` (see [`RunningRows`])."""
    if cache is None:
        return [None] * len(steps)
    slots = [Slot(cache, step) for step in steps]
    if rows is None:
        return slots
    return [RunningRows(slot, rows, latest, place) for place, slot in enumerate(slots)]


def fill(cache: Cache, loops: Sequence[Sequence[Step]], latest: dict[int, tuple[torch.Tensor, torch.Tensor]]):
    """Write the latest keys and values of every step of a loop into the slots of `loops`, which no row has run."""
    for steps in loops:
        for place, step in enumerate(steps):
            if step.keeps:
                cache.update(*latest[place], step.slot)


def check_cache(cache: Cache | None, plan: Plan, loops_per_slot: int):
    """Refuse anything but a cache that fits calls of `plan`."""
    if cache is None:
        return
    if not hasattr(cache, "layers"):
        raise ValueError(
            f"`cache` must be a cache of transformers for a decoder, e.g. `DynamicCache`, got {type(cache).__name__}."
        )
    n_slots, n_loops, n_steps = len(cache.layers), len(plan.loops), len(plan.loops[0])
    grows = cache.layer_class_to_replicate is not None and not cache.get_seq_length()
    if n_slots != plan.n_slots and not grows:
        n_loops_held = (n_slots - len(plan.prelude) - len(plan.coda)) / n_steps
        raise ValueError(
            f"`cache` has {n_slots} slots, {n_loops_held:g} loops of {n_steps} block(s), and this call needs "
            f"{plan.n_slots} for `n_loops` = {n_loops}: go on with as many loops as the cache was filled with, or "
            f"start a new one for `config.with_loops({n_loops}, {loops_per_slot})`."
        )
    if loops_per_slot > 1 and (cache.offloading or not has_plain_layers(cache)):
        raise ValueError(
            "`loops_per_slot` > 1 needs a `DynamicCache` or `StaticCache` that stays on its device, got "
            f"{type(cache).__name__} (offloading={cache.offloading})."
        )


class TableCache(DynamicCache):
    """
    A dynamic cache of the columns of tables.

    Args:
        config ([`LoopedGPT2Config`]):
            Of the model, with the loops of the calls.
        n_columns (`int`):
            Columns of a table without the target, >= 1.
    """

    def __init__(self, config: PreTrainedConfig, n_columns: int):
        super().__init__(config=config)
        self.n_columns = n_columns


class FrozenLayer(DynamicLayer):
    """
    A slot that shows its tokens to new ones and does not keep the new ones.

    Args:
        layer ([`~transformers.cache_utils.DynamicLayer`]):
            The filled slot; it is shared, not copied.
        repeats (`int`, defaults to 1):
            Rows of new tokens, one after another, that see one row of the slot, >= 1.
    """

    def __init__(self, layer: DynamicLayer, repeats: int = 1):
        super().__init__()
        self.lazy_initialization(layer.keys, layer.values)
        self.keys, self.values = layer.keys, layer.values
        self.repeats = repeats

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args, **kwargs
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the slot's keys and values followed by the new ones."""
        return self._follow(self.keys, key_states), self._follow(self.values, value_states)

    def _follow(self, seen: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
        new = new.unflatten(0, (-1, self.repeats))
        # a view, so that what is seen is copied once only
        seen = seen.unsqueeze(1).expand(-1, self.repeats, -1, -1, -1)
        return torch.cat((seen, new), dim=-2).flatten(0, 1)


def has_plain_layers(cache: Cache) -> bool:
    """Whether the cache's slots hold plain tensors, which can be read without adding to them."""
    return all(type(layer) in (DynamicLayer, StaticLayer) for layer in cache.layers)


def freeze(cache: Cache, repeats: int = 1) -> Cache:
    """Return a cache that reads the slots of the dynamic `cache`, each row `repeats` times, and leaves it as it is."""
    return Cache(layers=[FrozenLayer(layer, repeats) if layer.is_initialized else layer for layer in cache.layers])


def cache_bytes(cache: Cache) -> int:
    """Bytes of the tensors that a stock cache holds, on any device: what it reserves, not only what is filled."""
    storages = {}
    for layer in cache.layers:
        for tensor in _plain_tensors(vars(layer)):
            storage = tensor.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())


def _plain_tensors(value: object) -> Iterator[torch.Tensor]:
    """The tensors in a value, those that a quantised tensor consists of in its place."""
    if isinstance(value, torch.Tensor) and not is_traceable_wrapper_subclass(value):
        yield value
        return
    parts = ()
    if isinstance(value, torch.Tensor):
        parts = [getattr(value, name) for name in value.__tensor_flatten__()[0]]
    elif isinstance(value, dict):
        parts = value.values()
    elif isinstance(value, tuple | list):
        parts = value
    for part in parts:
        yield from _plain_tensors(part)
