import itertools

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from tasks.decision_tree import DecisionTree
from tasks.relu_2nn_regression import Relu2nnRegression
from tasks.sparse_linear_regression import SparseLinearRegression
from tasks.tree_posterior import predict_tree_posterior

from tasks import TASKS, make_task
from tasks.baselines import baselines_of, predict_prefixes
from tasks.common import Task
from tasks.limits import _arc_cosine, expected_limit, limit_of, predict_sparse_posterior
from tasks.metrics import bootstrap_interval


def errors(predictor, prompts, task):
    predictions = predict_prefixes(predictor, prompts["xs"], prompts["ys"])
    return (predictions - prompts["labels"]).square().numpy() / task.normaliser


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


def brute_force_sparse(xs, ys, query, sparsity):
    """The same posterior by the densities of scipy."""
    log_densities, answers = [], []
    for support in itertools.combinations(range(xs.shape[1]), sparsity):
        x = xs[:, support]
        covariance = x @ x.T + 1e-12 * np.eye(len(x))
        log_densities.append(multivariate_normal(np.zeros(len(x)), covariance).logpdf(ys))
        answers.append(np.linalg.pinv(x) @ ys @ query[list(support)])
    densities = np.exp(np.array(log_densities) - max(log_densities))
    return densities @ np.array(answers) / densities.sum()


def test_the_posterior_over_supports_equals_the_sum_over_densities():
    prompts = SparseLinearRegression(n_dims=5, sparsity=2).sample(10, torch.Generator().manual_seed(0), n_points=6)
    xs, ys = prompts["xs"].double(), prompts["ys"].double()
    for n in (1, 2):
        means = predict_sparse_posterior(xs[:, :n], ys[:, :n], xs[:, n], sparsity=2)
        for prompt in range(10):
            expected = brute_force_sparse(*(values[prompt].numpy() for values in (xs[:, :n], ys[:, :n], xs[:, n])), 2)
            assert means[prompt].item() == pytest.approx(expected, rel=1e-5, abs=1e-5)
    for n in (3, 5):  # more examples than weights: exact
        means = predict_sparse_posterior(xs[:, :n], ys[:, :n], xs[:, n], sparsity=2)
        torch.testing.assert_close(means, prompts["labels"][:, n].double(), rtol=1e-4, atol=1e-4)


def test_the_kernel_is_the_covariance_of_the_networks():
    task = Relu2nnRegression(n_dims=3)
    xs = torch.randn(1, 4, 3)
    values = task.draw_functions(40_000, 3, torch.Generator().manual_seed(0))(xs.expand(40_000, 4, 3))
    torch.testing.assert_close(values.mT @ values / 40_000, _arc_cosine(xs, xs)[0], rtol=0.03, atol=0.1)


def test_the_limit_follows_its_closed_form():
    task = make_task("linear_regression", n_dims=5)
    prompts = task.sample(4000, torch.Generator().manual_seed(0), n_points=9)
    _, predictor = limit_of(task)
    expected = expected_limit(task, 9)
    assert expected.tolist() == pytest.approx([1, 0.8, 0.6, 0.4, 0.2, 0, 0, 0, 0])
    limit = errors(predictor, prompts, task)
    low, high = bootstrap_interval(limit, confidence=0.999)
    assert ((low <= expected + 1e-6) & (expected <= high)).all()
    assert limit[:, 6:].mean(axis=0).max() < 1e-6


@pytest.mark.parametrize("name", TASKS)
def test_no_baseline_is_better_than_the_limit(name):
    task = make_task(name, n_dims=4)
    prompts = task.sample(300, torch.Generator().manual_seed(0), n_points=8)
    _, predictor = limit_of(task)
    limit = errors(predictor, prompts, task)
    baselines = {key: value for key, value in baselines_of(name).items() if key not in ("Lasso", "2-layer network")}
    for key, baseline in baselines.items():
        excess = errors(baseline, prompts, task) - limit
        assert excess.mean() > -0.02, key
        assert (bootstrap_interval(excess, confidence=0.998)[1] > -1e-6).all(), key


def test_a_class_of_the_users_has_no_known_limit():
    assert limit_of(Task()) is None
    assert expected_limit(make_task("decision_tree", n_dims=3), 5) is None
