import numpy as np
import pytest
import torch
import xgboost
from sklearn.linear_model import Lasso, RidgeCV

from tasks import TASKS, FunctionClass, make_task
from tasks.baselines.classical import LASSO_ALPHAS, RIDGE_ALPHAS, predict_least_squares
from tasks.baselines.prefixes import predict_prefixes


CLASSES = [kind for kind in TASKS.values() if issubclass(kind, FunctionClass)]
BASELINES = {name: predictor for kind in reversed(CLASSES) for name, predictor in kind().baselines.items()}


@pytest.fixture
def prompts():
    return make_task("linear_regression", n_dims=4).sample(8, torch.Generator().manual_seed(0), n_points=10)


def nearest(xs, ys, query):
    return ys[np.argsort([np.linalg.norm(x - query) for x in xs])[:3]].mean()


def ridge(xs, ys, query):
    return np.linalg.solve(xs.T @ xs + np.eye(xs.shape[1]), xs.T @ ys) @ query


def chosen_ridge(xs, ys, query):
    alphas = RIDGE_ALPHAS if len(xs) > 1 else RIDGE_ALPHAS[:1]  # all leave the same error if there is one example
    return RidgeCV(list(alphas), fit_intercept=False).fit(xs, ys).predict(query[None])[0]


def lasso(xs, ys, query):
    models = [Lasso(alpha=alpha, fit_intercept=False, max_iter=100_000, tol=1e-9) for alpha in LASSO_ALPHAS[:5]]
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
    "ridge, penalty chosen": chosen_ridge,
    "Lasso": lasso,
    "XGBoost": boosting,
    "XGBoost, signs": lambda xs, ys, query: boosting(np.sign(xs), ys, np.sign(query)),
}
# coordinate descent stops where it is about so close; the smallest alphas, left out, stop earlier
TOLERANCE = {"Lasso": 3e-4, "XGBoost": 1e-5, "XGBoost, signs": 1e-5}


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


@pytest.mark.parametrize("name", [name for name in BASELINES if name != "2-layer network"])
def test_prediction_i_uses_earlier_examples_only(name, prompts):
    before = predict_prefixes(BASELINES[name], prompts["xs"], prompts["ys"])
    changed = prompts["ys"].clone()
    changed[:, 6:] = 100
    after = predict_prefixes(BASELINES[name], prompts["xs"], changed)
    assert torch.equal(before[:, :7], after[:, :7])
    assert torch.equal(before, predict_prefixes(BASELINES[name], prompts["xs"], prompts["ys"][:, :-1]))


def test_inactive_dimensions_do_not_disturb_least_squares():
    prompts = make_task("linear_regression", n_dims=8).sample(
        20, torch.Generator().manual_seed(0), n_points=8, n_dims_active=3
    )
    predictions = predict_prefixes(predict_least_squares, prompts["xs"], prompts["ys"])
    torch.testing.assert_close(predictions[:, 4:].float(), prompts["labels"][:, 4:], rtol=1e-3, atol=1e-3)
