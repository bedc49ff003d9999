"""The exact posterior mean of random decision trees: no predictor has a smaller expected error."""

import numba
import numpy as np
import torch

from ..parallel import map_prompts


MAX_DEPTH = 5  # the 2**depth leaf values must fit into the bits of a 64-bit integer


def predict_tree_posterior(xs: torch.Tensor, ys: torch.Tensor, query: torch.Tensor, depth: int = 4) -> torch.Tensor:
    """
    Predict the mean of y at the query over all trees that agree with the examples, weighted by their prior.

    Leaf values are continuous, so two examples share a leaf if and only if they share their y, and all structures that
    place them so are equally likely. What is left is to count. Let Z(values, d) be the share of structures of depth d
    that give each of a set of values a leaf of its own. It is the mean, over the coordinate asked at the root, of
    Z(positive side, d - 1) Z(other side, d - 1), or of zero where the question separates examples of one value.

    Args:
        xs (`torch.Tensor` of shape `(B, n, D)`), ys (`torch.Tensor` of shape `(B, n)`):
            Examples of noiseless [`~tasks.functions.decision_tree.DecisionTree`]s, all coordinates active, n >= 1.
        query (`torch.Tensor` of shape `(B, D)`):
            Where to predict.
        depth (`int`, defaults to 4):
            Questions asked of every x, in 1 ... 5.

    Returns:
        `torch.Tensor` of shape `(B,)`, float64.

    Raises:
        `ValueError`: `depth` is out of its range, or no tree of this depth agrees with the examples.

    Source: this project; Garg et al. (2022), section 3.4, define the trees.
    """
    if not 1 <= depth <= MAX_DEPTH:
        raise ValueError(f"`depth` must be in 1 ... {MAX_DEPTH}, got {depth}.")
    values, value_of = _number_values(ys.double().cpu().numpy())
    positive, query_positive = ((values > 0).cpu().numpy() for values in (xs, query))
    means = map_prompts(_posterior_means, positive, query_positive, values, value_of, settings=(depth,))
    if np.isnan(means).any():
        raise ValueError(
            f"`ys` must be values of decision trees of depth {depth}, got a prompt that no tree explains."
        )
    return torch.from_numpy(means)


def _number_values(ys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The distinct ys of each prompt, ascending, `(B, n)` filled up with 0, and for each y its number, `(B, n)`."""
    order = ys.argsort(axis=1)
    ascending = np.take_along_axis(ys, order, axis=1)
    numbers = np.cumsum(np.diff(ascending, axis=1, prepend=ascending[:, :1]) != 0, axis=1)
    values, value_of = np.zeros_like(ys), np.empty(ys.shape, np.int64)
    np.put_along_axis(values, numbers, ascending, axis=1)
    np.put_along_axis(value_of, order, numbers, axis=1)
    return values, value_of


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _posterior_means(positive, query, values, value_of, depth):
    means = np.empty(len(values))
    for prompt in range(len(values)):
        n_values = value_of[prompt].max() + 1
        if n_values > 2**depth:
            means[prompt] = np.nan
            continue
        above, below = _sides(positive[prompt], value_of[prompt])
        all_values = (1 << n_values) - 1
        weighted = _mean(above, below, query[prompt], values[prompt], all_values, depth)
        means[prompt] = weighted / _share(above, below, all_values, depth)
    return means


@numba.njit(cache=True)
def _sides(positive, value_of):
    """For every coordinate two sets of values, as bits: those whose examples are all positive, and all not."""
    n_dims = positive.shape[1]
    above, below = np.empty(n_dims, np.int64), np.empty(n_dims, np.int64)
    for coordinate in range(n_dims):
        some_above = some_below = 0
        for example in range(len(value_of)):
            if positive[example, coordinate]:
                some_above |= 1 << value_of[example]
            else:
                some_below |= 1 << value_of[example]
        above[coordinate], below[coordinate] = some_above & ~some_below, some_below & ~some_above
    return above, below


@numba.njit(cache=True)
def _count(values):
    count = 0
    while values:
        values &= values - 1
        count += 1
    return count


@numba.njit(cache=True)
def _share(above, below, values, depth):
    """Z: share of the structures of this depth that give each of the values, a set of bits, a leaf of its own."""
    if values == 0:
        return 1.0
    if _count(values) > 1 << depth:
        return 0.0
    if depth == 0:
        return 1.0
    total = 0.0
    for coordinate in range(len(above)):
        up, down = values & above[coordinate], values & below[coordinate]
        if up | down == values:
            share = _share(above, below, up, depth - 1)
            if share > 0:
                total += share * _share(above, below, down, depth - 1)
    return total / len(above)


@numba.njit(cache=True)
def _mean(above, below, query, leaf_values, values, depth):
    """Mean over all structures of the value at the query's leaf, 0 where it is empty or the structure disagrees."""
    if values == 0 or _count(values) > 1 << depth:
        return 0.0
    if depth == 0:
        return leaf_values[_count(values - 1)]  # the place of the only bit
    total = 0.0
    for coordinate in range(len(above)):
        up, down = values & above[coordinate], values & below[coordinate]
        if up | down == values:
            same, other = (up, down) if query[coordinate] else (down, up)
            mean = _mean(above, below, query, leaf_values, same, depth - 1)
            if mean != 0:
                total += mean * _share(above, below, other, depth - 1)
    return total / len(above)
