"""How loops share a stock transformers cache: loop l (from 0) and block i own slot `l * n_layer + i`."""

import torch
from transformers.cache_utils import Cache, DynamicLayer


class LoopSlots:
    """
    The slots of one loop, as the cache that stock GPT-2 blocks update: they know only their place in the stack.

    Args:
        cache ([`~transformers.Cache`]):
            Any stock cache of `n_layer * n_loops` slots.
        first_slot (`int`):
            Slot of the loop's first block.
    """

    def __init__(self, cache: Cache, first_slot: int):
        self.cache = cache
        self.first_slot = first_slot

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *args, **kwargs
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Add the keys and values `(B, n_head, T, head_dim)` of block `layer_idx`; return all of its slot."""
        return self.cache.update(key_states, value_states, self.first_slot + layer_idx, *args, **kwargs)


class RunningRows(LoopSlots):
    """
    The slots of one loop that only some rows of the batch still run.

    A row that ended earlier leaves the keys and values of its last loop in the slots of all later ones.

    Args:
        rows (`torch.LongTensor` of shape `(R,)`):
            Rows that run this loop.
        latest (`dict[int, tuple[torch.Tensor, torch.Tensor]]`):
            Keys and values of the new tokens of all rows by block, as the loop before left them; updated here.
    """

    def __init__(self, cache: Cache, first_slot: int, rows: torch.LongTensor, latest: dict):
        super().__init__(cache, first_slot)
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
        keys, values = super().update(key_states, value_states, layer_idx, *args, **kwargs)
        return keys[self.rows], values[self.rows]


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
        return torch.cat((self.keys, key_states), dim=-2), torch.cat((self.values, value_states), dim=-2)


def freeze(cache: Cache) -> Cache:
    """Return a cache that reads the dynamic `cache` and leaves it as it is whatever runs on it."""
    return Cache(layers=[FrozenLayer(layer) for layer in cache.layers])
