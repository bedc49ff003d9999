"""
In which order the examples of a prompt come: one after another, or in none.

    causal   x_1 y_1 x_2 y_2 ... x_P                      a token sees those before it; an answer at every x
    set      x_1+y_1 ... x_C+y_C x_{C+1} ... x_P          C examples that see each other, and P - C queries, which see
                                                          the examples and themselves; an answer at every query
    cells    x_11 ... x_1D y_1 ... x_P1 ... x_PD ?        a set as a table, each of its cells a token, which sees in
                                                          turns its column of the examples, and its row

A set has one token per point, so it is half as long, and an example is one thing that others attend to at once: there
is no order by which a token of y could find the one of its x. The cells of a table are of any number of columns, which
have no order either, and may be missing.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig
from transformers.cache_utils import Cache

from .cache_looped_gpt2 import TableCache
from .masks_looped_gpt2 import make_mask, see_context


class ExampleOrder:
    """
    How an in-context head lays out a prompt. A new order is a subclass and an entry of `EXAMPLE_ORDERS`.

    B batch, P points, C examples, E `n_embd`.

    Class attributes:
        tokens_per_example (`int`):
            Tokens of an example; a query has one.
        is_split (`bool`):
            Whether each point is either an example or a query; else it is a query and then an example.
        counted (`str`):
            How tokens are counted, for messages.
        queries_per_row (`int`):
            Queries to a context in one row, which attend to each other: that costs the square of their number, and
            its result is masked out.
        queries_at_a_time (`int`):
            Queries to all contexts that run together, in such rows: more need more memory and are no faster.
    """

    tokens_per_example: int
    is_split: bool
    counted: str
    queries_per_row = 64
    queries_at_a_time = 1024

    def max_examples(self, n_tokens: int) -> int:
        """Most examples that fit into `n_tokens` (>= 1) before a query."""
        return (n_tokens - 1) // self.tokens_per_example

    def check(self, config: PreTrainedConfig):
        """Refuse fields of a configuration that exclude this order."""

    def n_features(self, config: PreTrainedConfig) -> int:
        """Numbers that an x, or of a table a cell, is read in from."""
        return config.n_dims

    def query_cell(self, config: PreTrainedConfig) -> nn.Parameter | None:
        """What stands where the y of a query would, `(E,)`, to be learned; `None` where nothing does."""
        return None

    def n_columns(self, config: PreTrainedConfig) -> int | None:
        """Numbers D of an x; `None`: any."""
        return config.n_dims

    def features(self, xs: torch.Tensor) -> torch.Tensor:
        """These numbers of points xs `(B, P, D)`."""
        return xs

    def known(self, xs: torch.Tensor) -> torch.Tensor:
        """The xs with a number in the place of every missing value, where any may be missing."""
        return xs

    def n_tokens(self, n_in_turn: int) -> int:
        """Tokens of a prompt whose points take `n_in_turn` tokens as x_1 y_1 x_2 y_2 ..., with or without a last y."""
        raise NotImplementedError(f"{type(self).__name__} must define `n_tokens`.")

    def lengths(self, n_tokens: int, n_columns: int) -> tuple[int, ...]:
        """Tokens of the sequences that blocks see in turns, of a prompt of `n_tokens`, of a table so many rows."""
        return (n_tokens,)

    def numbers_of_ys(self, n_points: int) -> Sequence[int]:
        """How many ys a prompt of P points may have."""
        raise NotImplementedError(f"{type(self).__name__} must define `numbers_of_ys`.")

    def expected_ys(self, first: tuple[int, ...], last: tuple[int, ...]) -> str:
        """The shapes of such ys in words, given those of the first and the last of these numbers."""
        raise NotImplementedError(f"{type(self).__name__} must define `expected_ys`.")

    def asked(self, xs: torch.Tensor, ys: torch.Tensor) -> torch.Tensor:
        """Those of the points xs `(B, P, ...)` that are answered."""
        raise NotImplementedError(f"{type(self).__name__} must define `asked`.")

    def embed(self, head: nn.Module, xs: torch.Tensor, ys: torch.Tensor) -> torch.Tensor:
        """Tokens `(B, T, E)` of points xs `(B, P, D)`, the first of which have the ys."""
        raise NotImplementedError(f"{type(self).__name__} must define `embed`.")

    def answering(self, states: torch.Tensor, n_points: int, n_ys: int) -> torch.Tensor:
        """Those of the states `(B, T, E)` of a prompt of P points that hold answers."""
        raise NotImplementedError(f"{type(self).__name__} must define `answering`.")

    def sight(
        self, config: PreTrainedConfig, inputs_embeds: torch.Tensor, n_points: int, n_examples: int
    ) -> dict[str, Any]:
        """Arguments of the backbone that say what tokens see and where they stand; none: as in any text."""
        raise NotImplementedError(f"{type(self).__name__} must define `sight`.")

    def new_context(self, config: PreTrainedConfig, xs: torch.Tensor) -> Cache | None:
        """What the keys and values of the examples xs are kept in; `None`: what the backbone makes by itself."""
        return None

    def embed_queries(self, head: nn.Module, xs: torch.Tensor) -> torch.Tensor:
        """Tokens `(B, T, E)` of queries xs `(B, Q, D)` to a context."""
        return head._read_in(xs)

    def query_sight(self, n_tokens: int, n_queries: int) -> dict[str, Any]:
        """As [`sight`], of Q queries to a context of these tokens, besides their mask and positions."""
        return {}

    def query_states(self, states: torch.Tensor, n_queries: int) -> torch.Tensor:
        """Those of the states `(B, T, E)` of these tokens that hold the answers `(B, Q, E)`."""
        return states

    def check_context(self, context: Cache, xs: torch.Tensor):
        """Refuse a context of other points than xs `(B, P, D)` are."""

    def query_position(self, n_seen: int) -> int:
        """Position of a query behind a context of `n_seen` tokens."""
        raise NotImplementedError(f"{type(self).__name__} must define `query_position`.")


class InTurn(ExampleOrder):
    """One example after another, each a token of x and one of y; a point does not see later ones."""

    tokens_per_example = 2
    is_split = False
    counted = "two per example and one for the query"

    def n_tokens(self, n_in_turn: int) -> int:
        """As many."""
        return n_in_turn

    def numbers_of_ys(self, n_points: int) -> Sequence[int]:
        """One for each point; that of the last one may be left out."""
        return (n_points, n_points - 1)

    def expected_ys(self, first: tuple[int, ...], last: tuple[int, ...]) -> str:
        """Both of them."""
        return f"{first}, or {last} when the last x is the query"

    def asked(self, xs: torch.Tensor, ys: torch.Tensor) -> torch.Tensor:
        """All points."""
        return xs

    def embed(self, head: nn.Module, xs: torch.Tensor, ys: torch.Tensor) -> torch.Tensor:
        """The tokens x_1 y_1 x_2 y_2 ... `(B, P + C, E)`."""
        return head._embed_examples(xs, ys)

    def answering(self, states: torch.Tensor, n_points: int, n_ys: int) -> torch.Tensor:
        """Those at the tokens of xs."""
        return states[:, ::2]

    def sight(
        self, config: PreTrainedConfig, inputs_embeds: torch.Tensor, n_points: int, n_examples: int
    ) -> dict[str, Any]:
        """None."""
        return {}

    def query_position(self, n_seen: int) -> int:
        """The next one."""
        return n_seen


class AsSet(ExampleOrder):
    """Examples that all see each other and queries that see them, each a single token at no place of its own."""

    tokens_per_example = 1
    is_split = True
    counted = "one per point"

    def check(self, config: PreTrainedConfig):
        """Refuse a window."""
        if config.attention_window is not None:
            raise ValueError(
                f"`attention_window` has no meaning with `example_order={config.example_order!r}`, whose examples "
                f"have no order: leave it out, got {config.attention_window}."
            )

    def n_tokens(self, n_in_turn: int) -> int:
        """One per point."""
        return (n_in_turn + 1) // 2

    def numbers_of_ys(self, n_points: int) -> Sequence[int]:
        """One for each example; at least one point is a query."""
        return range(n_points)

    def expected_ys(self, first: tuple[int, ...], last: tuple[int, ...]) -> str:
        """From one to the other."""
        return f"{first} to {last}, a y for each example and none for a query"

    def asked(self, xs: torch.Tensor, ys: torch.Tensor) -> torch.Tensor:
        """The queries: an example sees its own y."""
        return xs[:, ys.shape[1] :]

    def embed(self, head: nn.Module, xs: torch.Tensor, ys: torch.Tensor) -> torch.Tensor:
        """The sum of x and y for each example, x for each query `(B, P, E)`."""
        n_queries = xs.shape[1] - ys.shape[1]
        return head._read_in(xs) + nn.functional.pad(head._embed_ys(ys), (0, 0, 0, n_queries))

    def answering(self, states: torch.Tensor, n_points: int, n_ys: int) -> torch.Tensor:
        """Those at the queries."""
        return states[:, n_ys:]

    def sight(
        self, config: PreTrainedConfig, inputs_embeds: torch.Tensor, n_points: int, n_examples: int
    ) -> dict[str, Any]:
        """
        The examples and oneself are seen, by later and by earlier tokens; all tokens share a position, and the queries
        tell together when a prompt is done.
        """
        tokens = inputs_embeds[:1]  # the same for all rows
        places = torch.arange(n_points, device=tokens.device)
        return {
            "attention_mask": make_mask(config, tokens, rule=see_context(n_examples), looks_ahead=True),
            "position_ids": torch.zeros(tokens.shape[:2], dtype=torch.long, device=tokens.device),
            "judged_tokens": places[n_examples:],
        }

    def query_position(self, n_seen: int) -> int:
        """That of all tokens."""
        return 0


class AsTable(AsSet):
    """
    A set whose points are the rows of a table: D cells of x, and the target cell, which holds y or asks for it.

    Blocks see in turns the columns, where a cell sees those of the examples and itself, and the rows, whose cells all
    see each other. Neither rows nor columns have an order, and D is any number.
    """

    counted = "one per row"
    queries_per_row = 128
    queries_at_a_time = 128

    def check(self, config: PreTrainedConfig):
        """Refuse what gives cells a place, and blocks that leave out a turn."""
        super().check(config)
        if config.position_embedding != "none":
            raise ValueError(
                f"`position_embedding` must be 'none' with `example_order={config.example_order!r}`, whose rows and "
                f"columns have no order, got {config.position_embedding!r}."
            )
        if config.n_layer % 2:
            raise ValueError(
                f"`n_layer` must be even with `example_order={config.example_order!r}`, whose blocks see columns and "
                f"rows in turns, got {config.n_layer}."
            )

    def n_features(self, config: PreTrainedConfig) -> int:
        """The value, and whether it is missing."""
        return 2

    def query_cell(self, config: PreTrainedConfig) -> nn.Parameter | None:
        """The target cell that asks for y."""
        return nn.Parameter(torch.empty(config.n_embd))

    def n_columns(self, config: PreTrainedConfig) -> int | None:
        """Any number."""
        return None

    def lengths(self, n_tokens: int, n_columns: int) -> tuple[int, ...]:
        """Cells of a column, and of a row."""
        return n_tokens, n_columns + 1

    def features(self, xs: torch.Tensor) -> torch.Tensor:
        """Two for each cell `(B, P, D, 2)`."""
        is_missing = xs.isnan()
        return torch.stack((xs.masked_fill(is_missing, 0), is_missing.to(xs.dtype)), dim=-1)

    def known(self, xs: torch.Tensor) -> torch.Tensor:
        """0 in the place of NaN."""
        return xs.masked_fill(xs.isnan(), 0)

    def embed(self, head: nn.Module, xs: torch.Tensor, ys: torch.Tensor) -> torch.Tensor:
        """Row after row, each with the cells of x and then the target cell `(B, P * (D + 1), E)`."""
        asked = head.query_cell.expand(len(xs), xs.shape[1] - ys.shape[1], -1)
        return self._join(head._read_in(xs), torch.cat((head._embed_ys(ys), asked), dim=1))

    def embed_queries(self, head: nn.Module, xs: torch.Tensor) -> torch.Tensor:
        """Row after row, as in a prompt."""
        return self._join(head._read_in(xs), head.query_cell.expand(*xs.shape[:2], -1))

    def _join(self, cells: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Tokens `(B, P * (D + 1), E)` of cells `(B, P, D, E)` and target cells `(B, P, E)`."""
        return torch.cat((cells, targets.unsqueeze(2)), dim=2).flatten(1, 2)

    def answering(self, states: torch.Tensor, n_points: int, n_ys: int) -> torch.Tensor:
        """Those at the target cells of the queries."""
        return states.unflatten(1, (n_points, -1))[:, n_ys:, -1]

    def sight(
        self, config: PreTrainedConfig, inputs_embeds: torch.Tensor, n_points: int, n_examples: int
    ) -> dict[str, Any]:
        """What a cell sees of its column, and the target cells of the queries, which tell when a table is done."""
        n_tokens = inputs_embeds.shape[1]
        n_cells = n_tokens // n_points
        column = inputs_embeds[:1, ::n_cells]  # the same for all
        mask = make_mask(config, column, rule=see_context(n_examples), looks_ahead=True)
        targets = torch.arange(n_cells - 1, n_tokens, n_cells, device=mask.device)
        return {"attention_mask": mask, "n_cells": n_cells, "judged_tokens": targets[n_examples:]}

    def new_context(self, config: PreTrainedConfig, xs: torch.Tensor) -> Cache | None:
        """One that knows how many columns its tables have."""
        return TableCache(config, xs.shape[2])

    def query_sight(self, n_tokens: int, n_queries: int) -> dict[str, Any]:
        """The cells of a row."""
        return {"n_cells": n_tokens // n_queries}

    def query_states(self, states: torch.Tensor, n_queries: int) -> torch.Tensor:
        """Those at the target cells."""
        return self.answering(states, n_queries, 0)

    def check_context(self, context: Cache, xs: torch.Tensor):
        """Refuse tables of another number of columns."""
        if not isinstance(context, TableCache):
            raise ValueError(f"`context` must be what `encode_context` returned, got {context!r:.80}.")
        if context.n_columns != xs.shape[2]:
            raise ValueError(f"`context` is of tables of {context.n_columns} columns, got queries of {xs.shape[2]}.")


EXAMPLE_ORDERS = {"causal": InTurn(), "set": AsSet(), "cells": AsTable()}


def order_of(config: PreTrainedConfig) -> ExampleOrder:
    """Return the order of examples of a model, whose code may be of a version that had one order only."""
    return EXAMPLE_ORDERS[getattr(config, "example_order", "causal")]


def whole_prompts(
    xs: torch.Tensor, ys: torch.Tensor, xs_query: torch.Tensor
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield prompts xs, ys that ask, one after another, query i of `(B, P, D)` after the points before x_i."""
    for n in range(xs.shape[1]):
        yield torch.cat((xs[:, :n], xs_query[:, n : n + 1]), dim=1), ys[:, :n]
