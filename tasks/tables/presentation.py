"""How a table is shown to a model that reads a row as one vector: its columns alike, and what tells most first."""

import math

import torch

from .draws import standardise


LEAST_SPREAD = 1e-2  # of a principal component, as a share of the largest: what is less is round-off


def present(xs: torch.Tensor, ys: torch.Tensor, n_dims: int) -> torch.Tensor:
    """
    Show tables as numbers that look alike, whatever their columns are.

    The normal scores of the columns and the principal components of their values, those of both that tell most of the
    target coming first. So neither the order of the columns matters, which is an accident of a table, nor the shape of
    a column, and differences of columns that go together can be seen.

    Args:
        xs (`torch.Tensor` of shape `(B, P, D)`):
            Columns, standardised by the examples; NaN for missing values.
        ys (`torch.Tensor` of shape `(B, C)`):
            Classes of the C <= P examples, which come first, int64 >= 0, or their values, standardised.
        n_dims (`int`):
            Numbers per row, >= 1; zeros fill up where 2 D is less.

    Returns:
        `torch.Tensor` of shape `(B, P, n_dims)`, standardised by the examples; a missing value is 0, the mean.
    """
    n_examples = ys.shape[1]
    scores = normal_scores(xs, n_examples).nan_to_num()
    numbers = torch.cat((scores, principal_components(xs.nan_to_num(), n_examples)), dim=2)
    return torch.nn.functional.pad(order_columns(numbers, ys), (0, max(n_dims - numbers.shape[2], 0)))[..., :n_dims]


def normal_scores(xs: torch.Tensor, n_examples: int) -> torch.Tensor:
    """
    Give every value of columns `(B, P, D)` the normal quantile of its rank among the examples; standardised by these.

    Equal values share the middle of their ranks; NaN has no rank and stays. Source: van der Waerden scores.
    """
    columns = xs.mT.contiguous()  # (B, D, P)
    known = columns[..., :n_examples]
    n_known = (~known.isnan()).sum(dim=2, keepdim=True)
    ordered = known.nan_to_num(nan=torch.inf).sort(dim=2).values
    below, up_to = (torch.searchsorted(ordered, columns, side=side).minimum(n_known) for side in ("left", "right"))
    share = ((below + up_to + 1) / (2 * (n_known + 1))).clamp(0.5 / (n_known + 1), 1 - 0.5 / (n_known + 1))
    scores = math.sqrt(2) * torch.erfinv(2 * share - 1)
    return standardise(scores.masked_fill(columns.isnan(), torch.nan).mT, n_examples)


def principal_components(xs: torch.Tensor, n_examples: int) -> torch.Tensor:
    """
    Return the principal components `(B, P, D)` of columns `(B, P, D)`, found in the examples and standardised by them.

    They come by their spread, largest first, with the sign that makes the largest of their weights positive. Those
    without spread are 0.
    """
    examples = xs[:, :n_examples]
    spreads, weights = torch.linalg.eigh(examples.mT @ examples)
    spreads, weights = spreads.flip(1), weights.flip(2)
    weights = weights * weights.gather(1, weights.abs().argmax(dim=1, keepdim=True)).sign()
    has_spread = spreads > LEAST_SPREAD**2 * spreads[:, :1]
    return standardise(xs @ weights * has_spread.unsqueeze(1), n_examples)


def order_columns(xs: torch.Tensor, ys: torch.Tensor) -> torch.Tensor:
    """
    Put the columns of tables first that tell most of the target, judged by the examples.

    Args:
        xs (`torch.Tensor` of shape `(B, P, D)`):
            Columns, standardised over the first C rows; missing values are 0.
        ys (`torch.Tensor` of shape `(B, C)`):
            Classes of the examples, int64 >= 0, or their values, standardised.

    Returns:
        `torch.Tensor` of shape `(B, P, D)`: by the share of a column's variance that lies between the classes, or that
        it has in common with the values, largest first; equal ones stay in their order.
    """
    order = shares(xs[:, : ys.shape[1]], ys).argsort(dim=1, descending=True, stable=True)
    return xs.gather(2, order.unsqueeze(1).expand_as(xs))


def shares(xs: torch.Tensor, ys: torch.Tensor) -> torch.Tensor:
    """The shares `(B, D)` of [`order_columns`] for examples xs `(B, C, D)`, as multiples of each other."""
    if ys.is_floating_point():
        return (xs * ys.unsqueeze(2)).mean(dim=1).square()
    is_class = torch.nn.functional.one_hot(ys).to(xs.dtype)  # (B, C, K)
    sizes = is_class.sum(dim=1).unsqueeze(2)  # (B, K, 1)
    means = is_class.mT @ xs / sizes.clamp_min(1)
    return (sizes * means.square()).sum(dim=1)
