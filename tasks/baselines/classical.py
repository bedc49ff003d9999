"""Classical predictors: functions of the examples and of a query."""

import warnings

import numpy as np
import torch

from ..parallel import n_cores
from .prefixes import Predictor


LASSO_ALPHAS = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 0.0003, 0.0001)  # Yang et al. (2024)
RIDGE_ALPHAS = (10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001)


def predict_zero(xs: torch.Tensor, ys: torch.Tensor, query: torch.Tensor) -> torch.Tensor:
    """Predict 0: the trivial level, a normalised error of 1."""
    return query.new_zeros(query.shape[0])


def predict_averaging(xs: torch.Tensor, ys: torch.Tensor, query: torch.Tensor) -> torch.Tensor:
    """Predict w·x with w the mean of y_j x_j, one step of gradient descent (Garg et al., 2022)."""
    weights = (xs * ys.unsqueeze(-1)).mean(dim=1)
    return (weights * query).sum(dim=-1)


def predict_least_squares(
    xs: torch.Tensor, ys: torch.Tensor, query: torch.Tensor, rcond: float | None = None
) -> torch.Tensor:
    """
    Predict w·x, w the least-squares solution of smallest norm: Bayes-optimal for noiseless linear functions.

    Singular values of the xs below `rcond` times the largest, by default those of round-off, count as 0.
    """
    weights = torch.linalg.lstsq(xs, ys.unsqueeze(-1), rcond=rcond, driver="gelsd").solution
    return (weights.squeeze(-1) * query).sum(dim=-1)


def predict_ridge(xs: torch.Tensor, ys: torch.Tensor, query: torch.Tensor, alpha: float = 1.0) -> torch.Tensor:
    """Predict w·x, w minimising |y - Xw|² + alpha |w|²: Bayes-optimal for w ~ N(0, I) and noise variance alpha > 0."""
    # of the two equal forms the one whose matrix is smaller
    if xs.shape[1] < xs.shape[2]:
        gram = xs @ xs.mT + alpha * torch.eye(xs.shape[1], dtype=xs.dtype, device=xs.device)
        weights = xs.mT @ torch.linalg.solve(gram, ys.unsqueeze(-1))
    else:
        gram = xs.mT @ xs + alpha * torch.eye(xs.shape[2], dtype=xs.dtype, device=xs.device)
        weights = torch.linalg.solve(gram, xs.mT @ ys.unsqueeze(-1))
    return (weights.squeeze(-1) * query).sum(dim=-1)


def predict_chosen_ridge(
    xs: torch.Tensor, ys: torch.Tensor, query: torch.Tensor, alphas: tuple[float, ...] = RIDGE_ALPHAS
) -> torch.Tensor:
    """Predict by the ridge whose alpha has the smallest leave-one-out error, as RidgeCV without intercept."""
    if xs.shape[1] == 1:
        alphas = alphas[:1]  # all would predict nothing for the only example, left out
    left, singular, right = torch.linalg.svd(xs, full_matrices=False)
    values, squares = left.mT @ ys.unsqueeze(2), singular.square().unsqueeze(2)  # (B, R, 1)
    kept = squares / (squares + torch.tensor(alphas, dtype=xs.dtype, device=xs.device))  # (B, R, A)
    leverages = left.square() @ kept  # (B, n, A)
    left_out = (ys.unsqueeze(2) - left @ (kept * values)) / (1 - leverages)
    best = left_out.square().mean(dim=1).argmin(dim=1)  # (B,)
    share = kept.gather(2, best[:, None, None].expand(-1, kept.shape[1], 1))
    weights = share * values / singular.unsqueeze(2).clamp(min=torch.finfo(xs.dtype).tiny)
    return ((right @ query.unsqueeze(2)) * weights).sum(dim=(1, 2))


def predict_3_nearest_neighbours(xs: torch.Tensor, ys: torch.Tensor, query: torch.Tensor) -> torch.Tensor:
    """Predict the mean y of the 3 nearest examples in Euclidean distance, or of all when there are fewer."""
    distances = (xs - query.unsqueeze(1)).norm(dim=-1)
    nearest = distances.topk(min(3, xs.shape[1]), dim=1, largest=False).indices
    return ys.gather(1, nearest).mean(dim=1)


def predict_lasso(
    xs: torch.Tensor, ys: torch.Tensor, query: torch.Tensor, alphas: tuple[float, ...] = LASSO_ALPHAS
) -> torch.Tensor:
    """
    Predict w·x, w the minimiser of |y - Xw|² / 2n + alpha |w|₁, for every alpha: `(B, len(alphas))`.

    Runs one path of scikit-learn's coordinate descent per prompt, on all cores, with a hundredth of its default
    tolerance: with the default, a path can stop at the answer of the alpha before. Source: Garg et al. (2022),
    section 3.
    """
    from joblib import Parallel, delayed

    n_jobs = n_cores()
    parts = zip(xs.cpu().tensor_split(n_jobs), ys.cpu().tensor_split(n_jobs), strict=True)
    weights = Parallel(n_jobs)(delayed(_lasso_weights)(x.numpy(), y.numpy(), alphas) for x, y in parts if len(x))
    weights = torch.cat([torch.from_numpy(part) for part in weights])
    return torch.einsum("bda,bd->ba", weights, query.cpu())


def _lasso_weights(xs, ys, alphas):
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import lasso_path

    # noiseless ys and the smallest alphas can take more steps than the paper allows
    warnings.simplefilter("ignore", ConvergenceWarning)

    order = np.argsort(alphas)[::-1]  # from the strongest penalty on, as the path does
    weights = np.empty((len(xs), xs.shape[2], len(alphas)))
    for prompt in range(len(xs)):
        path = lasso_path(xs[prompt], ys[prompt], alphas=np.array(alphas)[order], max_iter=100_000, tol=1e-6)
        weights[prompt][:, order] = path[1]
    return weights


def predict_boosted_trees(
    xs: torch.Tensor, ys: torch.Tensor, query: torch.Tensor, **settings: float | bool
) -> torch.Tensor:
    """Predict as XGBoost does: [`tasks.baselines.boosted_trees.predict_boosted_trees`], imported where it is used."""
    from .boosted_trees import predict_boosted_trees as predict

    return predict(xs, ys, query, **settings)


def predict_greedy_tree(
    xs: torch.Tensor, ys: torch.Tensor, query: torch.Tensor, depth: int, signs: bool = False
) -> torch.Tensor:
    """Predict by one regression tree (CART) of at most `depth` questions, each the best one on its own."""
    one_tree = {"n_trees": 1, "depth": depth, "learning_rate": 1.0, "l2": 0.0, "base_score": None}
    return predict_boosted_trees(xs, ys, query, **one_tree, signs=signs)


def predict_relu_network(xs: torch.Tensor, ys: torch.Tensor, query: torch.Tensor, **settings: float) -> torch.Tensor:
    """Predict by a network trained by Adam: `relu_network.predict_relu_network`, imported where it is used."""
    from .relu_network import predict_relu_network as predict

    return predict(xs, ys, query, **settings)


# baselines for every class of functions
GENERIC_BASELINES: dict[str, Predictor] = {
    "zero": predict_zero,
    "averaging": predict_averaging,
    "least squares": predict_least_squares,
    "3-nearest neighbours": predict_3_nearest_neighbours,
}
