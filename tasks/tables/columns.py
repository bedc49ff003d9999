"""
The columns of made-up tables: correlated numbers, and the kinds of column that people have.

B tables, P rows, D columns.
"""

import torch

from ..common import draw_normal, draw_uniform
from .draws import standardise


def draw_columns(n_tables: int, n_rows: int, n_columns: int, generator: torch.Generator) -> torch.Tensor:
    """
    Draw tables of correlated columns, dressed by [`dress`], `(B, P, D)`.

    A column is a mixture of a few factors and of noise of its own, whose share differs from column to column; the
    factors of some tables come in clusters of rows.
    """
    n_factors = 1 + n_columns // 3
    factors = draw_normal((n_tables, n_rows, n_factors), generator)
    n_clusters = 4
    centres = 2 * draw_normal((n_tables, n_clusters, n_factors), generator)
    clustered = draw_uniform((n_tables, 1, 1), generator) < 0.3
    member = torch.randint(n_clusters, (n_tables, n_rows, 1), generator=generator).expand(-1, -1, n_factors)
    factors = factors + clustered * centres.gather(1, member)
    loadings = draw_normal((n_tables, n_factors, n_columns), generator)
    shared = draw_uniform((n_tables, 1, n_columns), generator) * draw_uniform((n_tables, 1, 1), generator)
    own = draw_normal((n_tables, n_rows, n_columns), generator)
    return dress(shared.sqrt() * standardise(factors @ loadings) + (1 - shared).sqrt() * own, generator)


def dress(columns: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """
    Give every column `(B, P, D)` of about unit variance the look of a kind of data; standardised.

    A third of the columns on average, another share in every table, have 2 to 10 levels, in order or as categories,
    whose codes have none. Of the numbers somewhat more than half stay as they are; the others become skewed (an
    exponential), heavy-tailed (a sinh) or bounded (a tanh). In a third of the tables some columns are the levels of
    one category.
    """
    n_tables, _, n_columns = columns.shape
    shape = (n_tables, 1, n_columns)
    strength = 0.3 + draw_uniform(shape, generator)
    has_levels = draw_uniform(shape, generator) < draw_uniform((n_tables, 1, 1), generator).square()
    kind = draw_uniform(shape, generator)
    numbers = torch.where(kind < 0.2, torch.exp(strength * columns.clamp(-4, 4)), columns)
    numbers = torch.where((kind >= 0.2) & (kind < 0.3), torch.sinh(strength * columns.clamp(-4, 4)), numbers)
    numbers = torch.where((kind >= 0.3) & (kind < 0.45), torch.tanh(2 * strength * columns), numbers)
    dressed = torch.where(has_levels, levels(columns, generator), numbers)
    return standardise(join_levels(columns, dressed, generator))


def join_levels(columns: torch.Tensor, dressed: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """
    Make of the first 3 to 15 columns of a third of tables `(B, P, D)` the levels of a category; others are `dressed`.

    Such a column is 1 in the rows where it is the largest of these and 0 elsewhere. Some levels are rarer than others.
    """
    n_tables, _, n_columns = columns.shape
    size = torch.randint(3, 16, (n_tables, 1, 1), generator=generator)
    size = size * (draw_uniform((n_tables, 1, 1), generator) < 1 / 3) * (size <= n_columns)
    is_level = torch.arange(n_columns) < size
    lean = draw_normal((n_tables, 1, n_columns), generator)
    largest = (columns + lean).masked_fill(~is_level, -torch.inf).argmax(dim=2)
    return torch.where(is_level, torch.nn.functional.one_hot(largest, n_columns), dressed)


def levels(columns: torch.Tensor, generator: torch.Generator, most: int = 10) -> torch.Tensor:
    """Cut every column `(B, P, D)` at random points into 2 ... `most` levels, in order or, of half of them, not."""
    n_tables, _, n_columns = columns.shape
    shape = (n_tables, most - 1, n_columns)
    share = draw_uniform((n_tables, 1, n_columns), generator).square()
    in_use = torch.arange(most - 1).view(1, -1, 1) < 1 + (share * (most - 1)).floor()
    cuts = torch.where(in_use, 0.9 * draw_normal(shape, generator), torch.inf)
    level = (columns.unsqueeze(2) > cuts.unsqueeze(1)).sum(dim=2)  # (B, P, D)
    codes = draw_uniform((n_tables, most, n_columns), generator).argsort(dim=1)
    is_ordered = draw_uniform((n_tables, 1, n_columns), generator) < 0.5
    return torch.where(is_ordered, level, codes.gather(1, level)).float()


def lose_values(columns: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """
    Replace cells of columns `(B, P, D)` by NaN, in about a quarter of the tables.

    There a third of the columns loses 0 to 40% of its values, large ones more often, or small ones, or all alike.
    """
    n_tables, _, n_columns = columns.shape
    shape = (n_tables, 1, n_columns)
    loses = (draw_uniform((n_tables, 1, 1), generator) < 0.25) & (draw_uniform(shape, generator) < 1 / 3)
    share = 0.4 * draw_uniform(shape, generator)
    lean = draw_normal(shape, generator) * (draw_uniform(shape, generator) < 0.3)
    chance = torch.sigmoid(torch.logit(share, eps=1e-3) + lean * columns)
    return columns.masked_fill(loses & (draw_uniform(columns.shape, generator) < chance), torch.nan)
