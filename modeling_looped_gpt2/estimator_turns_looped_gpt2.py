"""Columns in another order and with other signs, which the further estimators of an ensemble read."""

from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True)
class Turn:
    """
    What a model is shown, with its columns in another order and with other signs.

    Neither says anything about y, but a model does not know that fully: its answers after several turns differ, and
    their mean is nearer to y. Source: permuted columns in TabPFN (Hollmann et al., Nature 2025).

    Args:
        order (`np.ndarray` of shape `(D,)`), signs (`torch.Tensor` of shape `(D,)`):
            Which column comes where, and -1 where its sign is turned, else 1.
    """

    order: np.ndarray
    signs: torch.Tensor

    @classmethod
    def none(cls, shown: torch.Tensor) -> "Turn":
        """The columns of `shown` `(n, D)` as they are."""
        return cls(np.arange(shown.shape[1]), torch.ones(shown.shape[1]))

    @classmethod
    def draw(cls, shown: torch.Tensor, is_ordered: bool, random_state: np.random.RandomState) -> "Turn":
        """Draw a turn of columns, of their signs alone where a model knows their order; those of zeros stay."""
        order = np.arange(shown.shape[1])
        if not is_ordered:
            in_use = np.flatnonzero((shown != 0).any(dim=0).numpy())
            order[in_use] = random_state.permutation(in_use)
        return cls(order, torch.as_tensor(random_state.choice([-1, 1], len(order)), dtype=torch.float32))

    def __call__(self, shown: torch.Tensor) -> torch.Tensor:
        """Turn `shown` `(n, D)`."""
        return shown[:, self.order] * self.signs
