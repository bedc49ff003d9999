import itertools

import numpy as np
import pytest
import torch

from tasks.functions.decision_tree import DecisionTree
from tasks.limits.tree_posterior import predict_tree_posterior


def all_trees(n_dims, depth):
    """Every choice of coordinates at the inner nodes, level by level."""
    return itertools.product(range(n_dims), repeat=2**depth - 1)


def leaf_of(tree, x, depth):
    node = 0
    for _ in range(depth):
        node = 2 * node + 1 + int(x[tree[node]] > 0)
    return node


def brute_force_tree(xs, ys, query, depth):
    """Mean over all trees that put two examples into one leaf if and only if their y is the same."""
    answers = []
    for tree in all_trees(xs.shape[1], depth):
        value_of_leaf, leaf_of_value = {}, {}
        agrees = True
        for x, y in zip(xs, ys.tolist(), strict=True):
            leaf = leaf_of(tree, x, depth)
            agrees &= value_of_leaf.setdefault(leaf, y) == y and leaf_of_value.setdefault(y, leaf) == leaf
        if agrees:
            answers.append(value_of_leaf.get(leaf_of(tree, query, depth), 0.0))
    return np.mean(answers)


@pytest.mark.parametrize(("n_dims", "depth"), [(3, 1), (4, 2), (3, 3)])
def test_the_posterior_over_trees_equals_a_walk_through_all_trees(n_dims, depth):
    prompts = DecisionTree(n_dims=n_dims, depth=depth).sample(4, torch.Generator().manual_seed(1), n_points=7)
    xs, ys = prompts["xs"], prompts["ys"]
    for n in (2, 6):
        means = predict_tree_posterior(xs[:, :n], ys[:, :n], xs[:, n], depth=depth)
        for prompt in range(4):
            expected = brute_force_tree(xs[prompt, :n], ys[prompt, :n], xs[prompt, n], depth)
            assert means[prompt].item() == pytest.approx(expected, abs=1e-12)


def test_values_no_tree_explains_are_refused():
    xs, ys = torch.randn(1, 5, 3), torch.randn(1, 5)
    with pytest.raises(ValueError, match="`ys` must be values of decision trees of depth 1"):
        predict_tree_posterior(xs, ys, xs[:, 0], depth=1)
    with pytest.raises(ValueError, match=r"`depth` must be in 1 \.\.\. 5, got 6"):
        predict_tree_posterior(xs, ys, xs[:, 0], depth=6)
