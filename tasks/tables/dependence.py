"""How much a column tells of the target, and columns in that order."""

import torch


def order_columns(xs: torch.Tensor, ys: torch.Tensor) -> torch.Tensor:
    """
    Put the columns of tables first that tell most of the target, judged by the examples.

    Which order columns come in is an accident of a table. In this order it no longer matters, and a model that reads
    a row as one vector finds what counts at the same place in every table.

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
