"""The most memory that tensors take at one moment."""

import weakref

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary


class PeakMemory(TorchDispatchMode):
    """
    Context manager that sums the bytes of all live storages that operations inside it read or write.

    `peak` holds the largest sum. Memory that a kernel takes for itself or the allocator keeps is not counted.
    """

    def __init__(self):
        super().__init__()
        self.peak = 0
        self._live = 0
        self._known = WeakIdKeyDictionary()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for leaf in tree_leaves((args, kwargs, result)):
            if isinstance(leaf, torch.Tensor) and leaf.untyped_storage() not in self._known:
                storage = leaf.untyped_storage()
                self._known[storage] = True
                self._live += storage.nbytes()
                weakref.finalize(storage, self._release, storage.nbytes())
        self.peak = max(self.peak, self._live)
        return result

    def _release(self, n_bytes: int):
        self._live -= n_bytes
