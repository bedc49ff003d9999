import numpy as np
import pytest
import torch
import xgboost
from sklearn.linear_model import Lasso
from sklearn.tree import DecisionTreeRegressor
from tasks.network_baseline import _train_networks, predict_relu_network

from tasks import TASKS, make_task
from tasks.baselines import BASELINES, LASSO_ALPHAS, baselines_of, predict_boosted_trees, predict_prefixes


@pytest.fixture
def prompts():
    return make_task("linear_regression", n_dims=4).sample(8, torch.Generator().manual_seed(0), n_points=10)


def nearest(xs, ys, query):
    return ys[np.argsort([np.linalg.norm(x - query) for x in xs])[:3]].mean()


def ridge(xs, ys, query):
    return np.linalg.solve(xs.T @ xs + np.eye(xs.shape[1]), xs.T @ ys) @ query


def lasso(xs, ys, query):
    models = [Lasso(alpha=alpha, fit_intercept=False, max_iter=100_000, tol=1e-7) for alpha in LASSO_ALPHAS[:5]]
    return [model.fit(xs, ys).predict(query[None])[0] for model in models]


def boosting(xs, ys, query):
    settings = {"max_depth": 4, "eta": 0.1, "tree_method": "exact", "base_score": 0.5, "verbosity": 0, "nthread": 1}
    model = xgboost.train(settings, xgboost.DMatrix(xs, ys), 50)
    return model.predict(xgboost.DMatrix(query[None]))[0]


NAIVE = {
    "zero": lambda xs, ys, query: 0.0,
    "averaging": lambda xs, ys, query: np.mean([y * x for x, y in zip(xs, ys, strict=True)], axis=0) @ query,
    "least squares": lambda xs, ys, query: np.linalg.pinv(xs) @ ys @ query,
    "3-nearest neighbours": nearest,
    "ridge": ridge,
    "Lasso": lasso,
    "XGBoost": boosting,
    "XGBoost, signs": lambda xs, ys, query: boosting(np.sign(xs), ys, np.sign(query)),
}
TOLERANCE = {"Lasso": 2e-2, "XGBoost": 1e-5, "XGBoost, signs": 1e-5}


@pytest.mark.parametrize("name", NAIVE)
def test_each_prefix_equals_the_naive_prediction(name, prompts):
    predictions = predict_prefixes(BASELINES[name], prompts["xs"], prompts["ys"])
    xs, ys = prompts["xs"].double().numpy(), prompts["ys"].double().numpy()
    assert not predictions[:, 0].any()
    for prompt in range(8):
        for n in (1, 2, 5, 9):
            expected = NAIVE[name](xs[prompt, :n], ys[prompt, :n], xs[prompt, n])
            ours = predictions[prompt, n][:5] if name == "Lasso" else predictions[prompt, n]
            np.testing.assert_allclose(ours, expected, rtol=1e-6, atol=TOLERANCE.get(name, 1e-6))


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_the_greedy_tree_fits_as_well_as_that_of_scikit_learn(depth):
    # of equally good splits either may take another, so the answers may differ but not the error
    xs, ys = torch.randn(20, 25, 5), torch.randn(20, 25)
    settings = {"n_trees": 1, "depth": depth, "learning_rate": 1.0, "l2": 0.0, "base_score": None}
    fitted = torch.stack([predict_boosted_trees(xs, ys, xs[:, i], **settings) for i in range(25)], dim=1)
    for x, y, values in zip(xs, ys.double(), fitted, strict=True):
        tree = DecisionTreeRegressor(max_depth=depth, random_state=0).fit(x.numpy(), y.numpy())
        expected = np.square(tree.predict(x.numpy()) - y.numpy()).sum()
        assert (values - y).square().sum().item() == pytest.approx(expected, rel=1e-5)


def test_a_deep_greedy_tree_remembers_every_example(prompts):
    xs, ys = prompts["xs"], prompts["ys"]
    remembered = predict_boosted_trees(
        xs, ys, xs[:, 3], n_trees=1, depth=9, learning_rate=1.0, l2=0.0, base_score=None
    )
    torch.testing.assert_close(remembered.float(), ys[:, 3], rtol=1e-5, atol=1e-5)


def test_the_network_is_trained_as_torch_trains_it():
    rng = np.random.default_rng(0)
    xs, ys, queries = rng.normal(size=(3, 8, 4)), rng.normal(size=(3, 8)), rng.normal(size=(3, 4))
    weights, biases = rng.uniform(-0.5, 0.5, size=(3, 6, 7)), rng.uniform(-0.5, 0.5, size=3)
    batches = np.array([rng.permutation(8)[:5] for _ in range(60)])
    expected = []
    for x, y, query, initial, bias in zip(xs, ys, queries, weights, biases, strict=True):
        network = torch.nn.Sequential(torch.nn.Linear(4, 7), torch.nn.ReLU(), torch.nn.Linear(7, 1)).double()
        values = (initial[:4].T, initial[4], initial[5:], [bias])
        for parameter, value in zip(network.parameters(), values, strict=True):
            parameter.data = torch.tensor(value)
        optimizer = torch.optim.Adam(network.parameters(), lr=5e-3)
        for batch in batches:
            optimizer.zero_grad()
            (network(torch.tensor(x[batch])).squeeze(1) - torch.tensor(y[batch])).square().mean().backward()
            optimizer.step()
        expected.append(network(torch.tensor(query)).item())
    arrays = (values.astype(np.float32) for values in (xs, ys, queries, weights, biases))
    np.testing.assert_allclose(_train_networks(*arrays, batches, np.float32(5e-3)), expected, rtol=1e-3, atol=1e-3)


def test_the_network_learns_its_examples():
    xs = torch.randn(5, 20, 3)
    ys = xs[..., 0].abs()
    remembered = predict_relu_network(xs, ys, xs[:, 4])
    assert (remembered - ys[:, 4]).abs().max() < 0.3
    assert torch.equal(remembered[:2], predict_relu_network(xs[:2], ys[:2], xs[:2, 4]))


@pytest.mark.parametrize("name", [name for name in BASELINES if name != "2-layer network"])
def test_prediction_i_uses_earlier_examples_only(name, prompts):
    before = predict_prefixes(BASELINES[name], prompts["xs"], prompts["ys"])
    changed = prompts["ys"].clone()
    changed[:, 6:] = 100
    after = predict_prefixes(BASELINES[name], prompts["xs"], changed)
    assert torch.equal(before[:, :7], after[:, :7])
    assert torch.equal(before, predict_prefixes(BASELINES[name], prompts["xs"], prompts["ys"][:, :-1]))


def test_queries_take_the_place_of_the_points(prompts):
    xs, ys = prompts["xs"], prompts["ys"]
    queries = torch.randn(xs.shape)
    predictions = predict_prefixes(BASELINES["least squares"], xs, ys, queries)
    for n in (1, 5, 9):
        swapped = torch.cat((xs[:, :n], queries[:, n : n + 1]), dim=1)
        expected = predict_prefixes(BASELINES["least squares"], swapped, ys[:, :n])[:, n]
        torch.testing.assert_close(predictions[:, n], expected)


def test_inactive_dimensions_do_not_disturb_least_squares():
    prompts = make_task("linear_regression", n_dims=8).sample(
        20, torch.Generator().manual_seed(0), n_points=8, n_dims_active=3
    )
    predictions = predict_prefixes(BASELINES["least squares"], prompts["xs"], prompts["ys"])
    torch.testing.assert_close(predictions[:, 4:].float(), prompts["labels"][:, 4:], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("task", TASKS)
def test_every_task_has_its_baselines(task):
    assert baselines_of(task).items() <= BASELINES.items()


BAD_PROMPTS = {
    "empty": ((0, 3, 2), (0, 3), "`xs` must have shape .*, none of them 0, got"),
    "two axes": ((3, 2), (3, 2), "`xs` must have shape"),
    "ys": ((4, 3, 2), (4, 5), r"`ys` must have shape \(4, 3\) or \(4, 2\), got \(4, 5\)"),
}


@pytest.mark.parametrize("name", BAD_PROMPTS)
def test_wrong_shapes_are_refused(name):
    xs, ys, message = BAD_PROMPTS[name]
    with pytest.raises(ValueError, match=message):
        predict_prefixes(BASELINES["zero"], torch.zeros(xs), torch.zeros(ys))


def test_values_that_are_not_finite_and_strange_queries_are_refused(prompts):
    xs, ys = prompts["xs"], prompts["ys"].clone()
    with pytest.raises(ValueError, match="`queries` must have the shape"):
        predict_prefixes(BASELINES["zero"], xs, ys, xs[:, 1:])
    ys[0, 0] = torch.nan
    with pytest.raises(ValueError, match="`ys` must be finite"):
        predict_prefixes(BASELINES["zero"], xs, ys)
