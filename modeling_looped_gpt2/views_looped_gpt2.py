"""How blocks see the tokens of a call: as the sequence that they are, or as a table, in turns down and along it."""

from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class View:
    """
    The tokens as one sequence. A subclass shows a block other sequences, which do not see each other.

    B batch, T tokens, E `n_embd`, P rows and N cells of each row of a table.
    """

    @property
    def keeps(self) -> bool:
        """Whether a cache keeps the keys and values of these sequences, for tokens to come."""
        return True

    def part(self, states: torch.Tensor) -> torch.Tensor:
        """The sequences that a block sees of states `(B, T, E)`."""
        return states

    def join(self, sequences: torch.Tensor, shape: torch.Size) -> torch.Tensor:
        """The states of this `shape` that [`part`] makes these sequences of."""
        return sequences

    def sight(
        self, mask: torch.Tensor | None, position_ids: torch.LongTensor
    ) -> tuple[torch.Tensor | None, dict[str, Any]]:
        """The mask and the further arguments of a block, given those of the call."""
        return mask, {"position_ids": position_ids}


@dataclass(frozen=True)
class DownColumns(View):
    """
    Each column of a table, its P cells one below the other: sequences `(B * N, P, E)` under the mask of the call.

    Args:
        n_cells (`int`):
            Cells N of a row, >= 1; the tokens are row after row.
    """

    n_cells: int

    def part(self, states: torch.Tensor) -> torch.Tensor:
        """The columns."""
        return states.unflatten(1, (-1, self.n_cells)).transpose(1, 2).flatten(0, 1)

    def join(self, sequences: torch.Tensor, shape: torch.Size) -> torch.Tensor:
        """The rows again."""
        return sequences.unflatten(0, (-1, self.n_cells)).transpose(1, 2).reshape(shape)

    def sight(
        self, mask: torch.Tensor | None, position_ids: torch.LongTensor
    ) -> tuple[torch.Tensor | None, dict[str, Any]]:
        """The mask alone, which is of a column."""
        return mask, {}


@dataclass(frozen=True)
class AlongRows(View):
    """
    Each row of a table, whose N cells all see each other: sequences `(B * P, N, E)`.

    Args:
        n_cells (`int`):
            Cells N of a row, >= 1; the tokens are row after row.
    """

    n_cells: int

    @property
    def keeps(self) -> bool:
        """No: a row is complete, and no other sees it."""
        return False

    def part(self, states: torch.Tensor) -> torch.Tensor:
        """The rows."""
        return states.reshape(-1, self.n_cells, states.shape[-1])

    def join(self, sequences: torch.Tensor, shape: torch.Size) -> torch.Tensor:
        """The rows one after another."""
        return sequences.view(shape)

    def sight(
        self, mask: torch.Tensor | None, position_ids: torch.LongTensor
    ) -> tuple[torch.Tensor | None, dict[str, Any]]:
        """Nothing is hidden."""
        return None, {"is_causal": False}


WHOLE = View()


def views_of(n_cells: int | None) -> tuple[View, ...]:
    """The views that blocks take in turns: of a table with `n_cells` in a row, or for `None` of a sequence."""
    return (WHOLE,) if n_cells is None else (DownColumns(n_cells), AlongRows(n_cells))
