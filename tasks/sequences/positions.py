"""What a model is told of the place of a token in a sequence: the `position_ids` of prompts."""

import torch

from ..common import draw_uniform


class Order:
    """The place in the sequence, which a model counts itself: there are no `position_ids`."""

    @staticmethod
    def ids(is_start: torch.BoolTensor, is_in_run: torch.BoolTensor, offsets: torch.Tensor) -> None:
        """
        The positions of tokens.

        Args:
            is_start (`torch.BoolTensor` of shape `(B, T)`):
                The first token of each run, which is a part of the question or the answer, and of what is between.
            is_in_run (`torch.BoolTensor` of shape `(B, T)`):
                Tokens of runs: not separators, and not padding.
            offsets (`torch.Tensor` of shape `(B, R, P)`):
                What is added to the first P places of each of the first R runs; beyond as to the last of them.

        Returns:
            `torch.Tensor` of shape `(B, T)`, int64, or `None`.
        """
        return None

    @staticmethod
    def n_positions(n_tokens: int, longest_run: int) -> int:
        """Positions that prompts of so many tokens may have, without offsets."""
        return n_tokens


class Alternate(Order):
    """
    0 for the first token, then 1, 2, 1, 2, ...: no token is taken for a neighbour, however long the sequence is.

    Made for a model that sees the last two tokens (`attention_window`), which could not tell them apart otherwise.
    """

    @staticmethod
    def ids(is_start, is_in_run, offsets):
        places = torch.arange(is_start.shape[1], device=is_start.device)
        return torch.where(places == 0, 0, 2 - places % 2).expand(is_start.shape).contiguous()

    @staticmethod
    def n_positions(n_tokens, longest_run):
        return 3


class Aligned(Order):
    """
    The place in its own run, from 1, 0 for all others, plus the offset of the row. Digits of equal worth are alike.

    Source: "Abacus" of McLeish et al., "Transformers Can Do Arithmetic with the Right Embeddings" (NeurIPS 2024).
    """

    @staticmethod
    def ids(is_start, is_in_run, offsets):
        places = torch.arange(is_start.shape[1], device=is_start.device)
        place = places - torch.where(is_start, places, 0).cummax(dim=1).values
        run = (is_start & is_in_run).cumsum(dim=1) - 1
        n_runs, n_places = offsets.shape[1:]
        rows = torch.arange(len(place), device=place.device)[:, None]
        added = offsets[rows, run.clamp(max=n_runs - 1), place.clamp(max=n_places - 1)]
        # a separator without the offset is at another distance in each row: some would draw all attention to it
        return torch.where(is_in_run, 1 + place + added, offsets[:, 0, :1])

    @staticmethod
    def n_positions(n_tokens, longest_run):
        return 1 + longest_run


POSITIONS: dict[str, type[Order]] = {"order": Order, "alternate": Alternate, "aligned": Aligned}


def leaping(offsets: torch.Tensor, is_before: torch.BoolTensor, generator: torch.Generator) -> torch.Tensor:
    """Offsets `(B, 1, 1)`, of which places `(B, R, P)` before a leap have a part, drawn for each row: `(B, R, P)`."""
    return torch.where(is_before, (draw_uniform(offsets.shape, generator) * offsets).long(), offsets)
