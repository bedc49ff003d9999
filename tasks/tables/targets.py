"""
What decides the target of a made-up table: laws that go from columns to targets, or from causes to both.

A law draws columns `(B, P, D)`, as [`dress`] leaves them, and S signals `(B, P, S)` of unit variance that depend on
them: the first is the target of a regression, the largest or the first tells the class. A new law is a function and an
entry of `LAWS`.

B tables, P rows, D columns, S signals.
"""

from collections.abc import Callable

import torch

from ..common import draw_normal, draw_uniform
from .columns import draw_columns, dress
from .draws import draw_kinds, standardise


Table = tuple[torch.Tensor, torch.Tensor]
Law = Callable[[int, int, int, int, torch.Generator], Table]

ACTIVATIONS = (torch.tanh, torch.relu, torch.sin, torch.abs, torch.square, lambda values: values, torch.sigmoid)


def draw_relevance(n_tables: int, n_columns: int, n_signals: int, generator: torch.Generator) -> torch.Tensor:
    """Weights `(B, D, S)`: of every table a share of the columns counts, and some of these much more than others."""
    shape = (n_tables, n_columns, 1)
    counts = draw_uniform(shape, generator) < 0.2 + 0.8 * draw_uniform((n_tables, 1, 1), generator)
    spread = 1.5 * draw_uniform((n_tables, 1, 1), generator)
    size = torch.exp(spread * draw_normal(shape, generator)) * counts
    return size * draw_normal((n_tables, n_columns, n_signals), generator)


def additive_law(n_tables: int, n_rows: int, n_columns: int, n_signals: int, generator: torch.Generator) -> Table:
    """A sum of one effect per column; all effects are straight in half of the tables, else some are not."""
    columns = draw_columns(n_tables, n_rows, n_columns, generator)
    shape = (n_tables, 1, n_columns)
    slope, shift = 0.5 + 2 * draw_uniform(shape, generator), draw_normal(shape, generator)
    argument = slope * columns + shift
    kind = draw_uniform(shape, generator) + (draw_uniform((n_tables, 1, 1), generator) < 0.5)
    effects = columns
    for number, bend in enumerate((torch.tanh, torch.square, torch.sin, torch.relu, lambda values: values.gt(0))):
        effects = torch.where((kind >= number / 10) & (kind < (number + 1) / 10), bend(argument), effects)
    effects = effects.clamp(-10, 10)
    return columns, standardise(effects @ draw_relevance(n_tables, n_columns, n_signals, generator))


def tree_law(n_tables: int, n_rows: int, n_columns: int, n_signals: int, generator: torch.Generator) -> Table:
    """A sum of one to four trees whose levels each ask one question, with a straight part in half of the tables."""
    columns = draw_columns(n_tables, n_rows, n_columns, generator)
    signals = torch.zeros(n_tables, n_rows, n_signals)
    for number in range(4):
        depth = int(torch.randint(1, 5, (), generator=generator))
        asked = torch.randint(n_columns, (n_tables, 1, depth), generator=generator)
        answers = columns.gather(2, asked.expand(-1, n_rows, -1)) > 0.8 * draw_normal((n_tables, 1, depth), generator)
        leaf = (answers * 2 ** torch.arange(depth)).sum(dim=2, keepdim=True)
        values = draw_normal((n_tables, 2**depth, n_signals), generator)
        grows = draw_uniform((n_tables, 1, 1), generator) < 1 - number / 4
        signals = signals + grows * values.gather(1, leaf.expand(-1, -1, n_signals))
    line = standardise(columns @ draw_relevance(n_tables, n_columns, n_signals, generator))
    weight = draw_uniform((n_tables, 1, 1), generator) * (draw_uniform((n_tables, 1, 1), generator) < 0.5)
    return columns, standardise(standardise(signals) + 1.5 * weight * line)


def interaction_law(n_tables: int, n_rows: int, n_columns: int, n_signals: int, generator: torch.Generator) -> Table:
    """A small random network of the columns."""
    columns = draw_columns(n_tables, n_rows, n_columns, generator)
    hidden = standardise(columns @ draw_relevance(n_tables, n_columns, 12, generator))
    hidden = activate(hidden + 0.5 * draw_normal((n_tables, 1, 12), generator), generator)
    return columns, standardise(hidden @ draw_normal((n_tables, 12, n_signals), generator))


def network_law(n_tables: int, n_rows: int, n_columns: int, n_signals: int, generator: torch.Generator) -> Table:
    """
    A causal graph: layers of a random sparse network with noise at every node; columns and target are nodes of it.

    The target may be a cause of columns as well as their effect. Source: Hollmann et al. (ICLR 2023), section 4.
    """
    width = max(n_signals, n_columns)
    causes = draw_columns(n_tables, n_rows, width, generator)
    nodes, layer = [causes], causes
    for _ in range(int(torch.randint(1, 4, (), generator=generator))):
        weights = draw_normal((n_tables, width, width), generator)
        weights = weights * (
            draw_uniform(weights.shape, generator) < 0.1 + 0.9 * draw_uniform((n_tables, 1, 1), generator)
        )
        noise = draw_uniform((n_tables, 1, 1), generator).square() * draw_normal(layer.shape, generator)
        layer = standardise(activate(standardise(layer @ weights), generator)) + noise
        nodes.append(layer)
    nodes = torch.cat(nodes, dim=2)
    order = draw_uniform((n_tables, nodes.shape[2]), generator).argsort(dim=1)
    chosen = order[:, : n_columns + n_signals].unsqueeze(1).expand(-1, n_rows, -1)
    picked = standardise(nodes.gather(2, chosen))
    return dress(picked[..., n_signals:], generator), picked[..., :n_signals]


def cluster_law(n_tables: int, n_rows: int, n_columns: int, n_signals: int, generator: torch.Generator) -> Table:
    """Rows fall into clouds, one for each signal, and columns tell the clouds apart more or less well."""
    member = torch.randint(n_signals, (n_tables, n_rows, 1), generator=generator)
    member = torch.minimum(member, torch.randint(2, n_signals + 1, (n_tables, 1, 1), generator=generator) - 1)
    tells = draw_relevance(n_tables, n_columns, 1, generator).mT.abs() / n_columns**0.5
    tells = tells * 4 * draw_uniform((n_tables, 1, 1), generator)
    centres = tells * draw_normal((n_tables, n_signals, n_columns), generator)
    mixing = draw_normal((n_tables, n_columns, n_columns), generator) / n_columns**0.5
    mixing = mixing * draw_uniform((n_tables, 1, 1), generator) + torch.eye(n_columns)
    spread = torch.exp(0.4 * draw_normal((n_tables, n_signals, 1), generator)).gather(1, member)
    clouds = centres.gather(1, member.expand(-1, -1, n_columns))
    columns = clouds + spread * (draw_normal((n_tables, n_rows, n_columns), generator) @ mixing)
    values = 3 * draw_normal((n_tables, n_signals, n_signals), generator) + 9 * torch.eye(n_signals)
    return dress(standardise(columns), generator), standardise(values.gather(1, member.expand(-1, -1, n_signals)))


def activate(values: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Apply to every node of `(B, P, H)` an activation drawn for it."""
    kind = torch.randint(len(ACTIVATIONS), (values.shape[0], 1, values.shape[2]), generator=generator)
    activated = torch.zeros_like(values)
    for number, activation in enumerate(ACTIVATIONS):
        activated = torch.where(kind == number, activation(values), activated)
    return activated.clamp(-10, 10)


LAWS: dict[Law, float] = {
    additive_law: 0.45,
    tree_law: 0.1,
    interaction_law: 0.1,
    network_law: 0.2,
    cluster_law: 0.15,
}


def draw_tables(n_tables: int, n_rows: int, n_columns: int, n_signals: int, generator: torch.Generator) -> Table:
    """Draw tables by laws drawn by their weights; returns columns `(B, P, D)` and signals `(B, P, S)`."""
    kind = draw_kinds(n_tables, list(LAWS.values()), generator)
    columns, signals = torch.empty(n_tables, n_rows, n_columns), torch.empty(n_tables, n_rows, n_signals)
    for number, law in enumerate(LAWS):
        chosen = (kind == number).nonzero().squeeze(1)
        if len(chosen):
            columns[chosen], signals[chosen] = law(len(chosen), n_rows, n_columns, n_signals, generator)
    return columns, signals
