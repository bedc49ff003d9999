"""Greedy and gradient-boosted regression trees, one model per prompt, thousands of prompts at once."""

import numba
import numpy as np
import torch

from ..parallel import map_prompts


MIN_GAIN = 1e-6  # a split must lower the loss by more than this, as in XGBoost


def predict_boosted_trees(
    xs: torch.Tensor,
    ys: torch.Tensor,
    query: torch.Tensor,
    n_trees: int = 50,
    depth: int = 4,
    learning_rate: float = 0.1,
    l2: float = 1.0,
    base_score: float | None = 0.5,
    signs: bool = False,
) -> torch.Tensor:
    """
    Predict by gradient boosting of the squared error: what `xgboost.XGBRegressor(tree_method="exact")` predicts.

    XGBoost itself spends most of its time on setting up a model, and one model per prefix is needed here. One tree
    with `learning_rate=1, l2=0` is a greedy regression tree (CART).

    Args:
        xs (`torch.Tensor` of shape `(B, n, D)`), ys (`torch.Tensor` of shape `(B, n)`):
            Examples, n >= 1.
        query (`torch.Tensor` of shape `(B, D)`):
            Where to predict.
        n_trees (`int`, defaults to 50), depth (`int`, defaults to 4), learning_rate (`float`, defaults to 0.1):
            Trees, the questions each asks of an x, and the share of its answer that is added (the paper's settings).
        l2 (`float`, defaults to 1):
            Penalty of squared leaf values, >= 0 (XGBoost's `lambda`).
        base_score (`float`, *optional*, defaults to 0.5):
            Where the prediction starts, in units of y; `None`: at the mean of the ys. 0.5 is the default of the
            releases of XGBoost before 2.0, with which the published errors agree; later ones start at the mean.
        signs (`bool`, defaults to `False`):
            Look at the signs of the coordinates only.

    Returns:
        `torch.Tensor` of shape `(B,)`, float64.

    Source: Chen and Guestrin, "XGBoost: A Scalable Tree Boosting System" (2016), algorithm 1.
    """
    if signs:
        xs, query = xs.sign(), query.sign()
    xs, ys, query = (values.cpu().numpy().astype(np.float64) for values in (xs, ys, query))
    features = np.ascontiguousarray(xs.swapaxes(1, 2))  # feature by feature, as the search for splits reads them
    order = features.argsort(axis=2, kind="stable")
    start = ys.mean(axis=1) if base_score is None else np.full(len(ys), float(base_score))
    settings = (n_trees, depth, learning_rate, float(l2))
    return torch.from_numpy(map_prompts(_boost_prompts, features, order, ys, query, start, settings=settings))


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _boost_prompts(features, order, ys, query, start, n_trees, depth, learning_rate, l2):
    predictions = np.empty(len(ys))
    for prompt in range(len(ys)):
        predictions[prompt] = _boost(
            features[prompt],
            order[prompt],
            ys[prompt],
            query[prompt],
            start[prompt],
            n_trees,
            depth,
            learning_rate,
            l2,
        )
    return predictions


@numba.njit(cache=True, error_model="numpy")
def _boost(x, order, y, query, prediction, n_trees, depth, learning_rate, l2):
    residuals = y - prediction
    for _ in range(n_trees):
        node, query_node = _grow(x, order, residuals, query, depth, l2)
        sums, counts = _sum_by_node(residuals, node, 2**depth)
        values = learning_rate * sums / np.maximum(counts + l2, 1e-300)
        residuals -= values[node]
        prediction += values[query_node]
    return prediction


@numba.njit(cache=True, error_model="numpy")
def _grow(x, order, residuals, query, depth, l2):
    """Grow a tree; returns the leaf of every example and of the query. Where no split helps, all go to the left."""
    node = np.zeros(len(residuals), np.int64)
    query_node = 0
    for level in range(depth):
        feature, threshold = _best_splits(x, order, residuals, node, 2**level, l2)
        for example in range(len(node)):
            at = node[example]
            node[example] = 2 * at + (x[feature[at], example] >= threshold[at])
        query_node = 2 * query_node + (query[feature[query_node]] >= threshold[query_node])
    return node, query_node


@numba.njit(cache=True, error_model="numpy")
def _best_splits(x, order, residuals, node, n_nodes, l2):
    """
    Feature and threshold of the best split of every node, the threshold infinite where no split lowers the loss.

    Walks down each feature's sorted values with a running sum of the residuals on the upper side for every node. Of
    equally good splits the first wins, in single precision and in this order, as in XGBoost.
    """
    sums, counts = _sum_by_node(residuals, node, n_nodes)
    weights = 1 / (np.arange(len(residuals) + 1) + max(l2, 1e-300))
    parents = sums**2 * weights[counts]
    best_gain = np.full(n_nodes, np.float32(MIN_GAIN))
    best_feature, best_threshold = np.zeros(n_nodes, np.int64), np.full(n_nodes, np.inf)
    above, n_above, last = np.empty(n_nodes), np.empty(n_nodes, np.int64), np.empty(n_nodes)
    for feature in range(len(x)):
        above[:], n_above[:] = 0, 0
        for place in range(len(residuals) - 1, -1, -1):
            example = order[feature, place]
            at, value = node[example], x[feature, example]
            if n_above[at] > 0 and value != last[at]:
                below, n_below = sums[at] - above[at], counts[at] - n_above[at]
                children = above[at] ** 2 * weights[n_above[at]] + below**2 * weights[n_below]
                gain = np.float32(children - parents[at])
                if gain > best_gain[at]:
                    best_gain[at], best_feature[at] = gain, feature
                    best_threshold[at] = (value + last[at]) / 2
            above[at] += residuals[example]
            n_above[at] += 1
            last[at] = value
    return best_feature, best_threshold


@numba.njit(cache=True, error_model="numpy")
def _sum_by_node(values, node, n_nodes):
    sums, counts = np.zeros(n_nodes), np.zeros(n_nodes, np.int64)
    for example in range(len(node)):
        sums[node[example]] += values[example]
        counts[node[example]] += 1
    return sums, counts
