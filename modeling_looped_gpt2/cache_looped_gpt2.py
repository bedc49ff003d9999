"""How loops share a stock transformers cache: one slot for every loop and block, in the order in which they run."""

import warnings
from collections.abc import Iterator
from dataclasses import fields

import torch
from torch.utils._python_dispatch import is_traceable_wrapper_subclass
from transformers.cache_utils import Cache, DynamicLayer, StaticLayer
from transformers.modeling_outputs import BaseModelOutputWithPast


# how outputs and `generate` name a cache: `cache` since transformers 5.24, `past_key_values` before
CACHE_NAME = fields(BaseModelOutputWithPast)[1].name


class CacheByEitherName:
    """
    An output whose cache can be read as `cache`, its name since transformers 5.24, under older versions too.

    To be derived from after an output class of transformers, whose own field of that name then comes first.
    """

    @property
    def cache(self) -> Cache | None:
        return self.past_key_values


def one_cache(cache: Cache | None, past_key_values: Cache | None) -> Cache | None:
    """Return the cache that goes by one of two names; the older is deprecated where transformers deprecates it."""
    if past_key_values is None:
        return cache
    if cache is not None:
        raise ValueError("`cache` and `past_key_values` are two names of one argument: give one of them.")
    if CACHE_NAME == "cache" and not torch.compiler.is_compiling():
        warnings.warn("`past_key_values` is deprecated since transformers 5.24: use `cache`.", FutureWarning, 3)
    return past_key_values


class LoopSlots:
    """
    The slots of one loop, as the cache that stock GPT-2 blocks update: they know only their place in the first loop.

    Args:
        cache ([`~transformers.Cache`]):
            Any stock cache with a slot for every loop and block that keeps its keys and values.
        offset (`int`):
            How far the loop's slots lie behind those of the first loop.
        keeps (`bool`, defaults to `True`):
            Whether the loop leaves the new tokens in its slots; else it only reads the tokens that are there.
    """

    def __init__(self, cache: Cache, offset: int, keeps: bool = True):
        self.cache = cache
        self.offset = offset
        self.keeps = keeps

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *args, **kwargs
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Add the keys and values `(B, n_head, T, head_dim)` of block `layer_idx`; return all of its slot."""
        slot = self.offset + layer_idx
        if self.keeps:
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
    The slots of one loop that only some rows of the batch still run.

    A row that ended earlier leaves the keys and values of its last loop in the slots of all later ones.

    Args:
        slots ([`LoopSlots`]):
            The loop's slots, for all rows.
        rows (`torch.LongTensor` of shape `(R,)`):
            Rows that run this loop.
        latest (`dict[int, tuple[torch.Tensor, torch.Tensor]]`):
            Keys and values of the new tokens of all rows by block, as the loop before left them; updated here.
    """

    def __init__(self, slots: LoopSlots, rows: torch.LongTensor, latest: dict):
        self.slots = slots
        self.rows = rows
        self.latest = latest

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *args, **kwargs
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """As [`LoopSlots.update`], for keys and values of the running rows `(R, n_head, T, head_dim)`."""
        if layer_idx in self.latest:
            keys, values = self.latest[layer_idx]
            key_states = keys.index_copy(0, self.rows, key_states)
            value_states = values.index_copy(0, self.rows, value_states)
        self.latest[layer_idx] = key_states, value_states
        keys, values = self.slots.update(key_states, value_states, layer_idx, *args, **kwargs)
        return keys[self.rows], values[self.rows]


def fill(slots: list[LoopSlots], latest: dict[int, tuple[torch.Tensor, torch.Tensor]]):
    """Leave the latest keys and values of every block in the slots of loops that no row runs."""
    for loop_slots in slots:
        if loop_slots.keeps:
            for layer_idx, (keys, values) in latest.items():
                loop_slots.update(keys, values, layer_idx)


class FrozenLayer(DynamicLayer):
    """
    A slot that shows its tokens to new ones and does not keep the new ones.

    Args:
        layer ([`~transformers.cache_utils.DynamicLayer`]):
            The filled slot; it is shared, not copied.
    """

    def __init__(self, layer: DynamicLayer):
        super().__init__()
        self.lazy_initialization(layer.keys, layer.values)
        self.keys, self.values = layer.keys, layer.values

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args, **kwargs
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the slot's keys and values followed by the new ones."""
        return read_with(self, key_states, value_states)


def has_plain_layers(cache: Cache) -> bool:
    """Whether the cache's slots hold plain tensors, which can be read without adding to them."""
    return all(type(layer) in (DynamicLayer, StaticLayer) for layer in cache.layers)


def freeze(cache: Cache) -> Cache:
    """Return a cache that reads the dynamic `cache` and leaves it as it is whatever runs on it."""
    return Cache(layers=[FrozenLayer(layer) for layer in cache.layers])


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
