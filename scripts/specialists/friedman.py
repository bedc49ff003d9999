"""A table of numbers that no model was trained on: Friedman's first function, as scikit-learn draws it."""

import warnings
from collections.abc import Mapping
from statistics import fmean
from typing import Any

import numpy as np
from sklearn.base import RegressorMixin
from sklearn.datasets import make_friedman1
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
from sklearn.linear_model import RidgeCV
from sklearn.metrics import r2_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tqdm import tqdm
from transformers import PreTrainedModel

from modeling_looped_gpt2.estimator_looped_gpt2 import InContextRegressor
from scripts.evaluation.metrics_record import Interval
from scripts.specialists.record import Row
from tasks.metrics import bootstrap_interval


N_COLUMNS, N_EXAMPLES, N_QUERIES, NOISE = 10, 40, 200, 1.0
TARGET = 0.66


def classical_methods() -> dict[str, RegressorMixin]:
    """The classical methods by name; their settings are chosen by the examples."""

    def process(scales: Any) -> RegressorMixin:
        kernel = ConstantKernel() * RBF(scales) + WhiteKernel()
        return make_pipeline(StandardScaler(), GaussianProcessRegressor(kernel, normalize_y=True))

    return {
        "ridge": make_pipeline(StandardScaler(), RidgeCV(np.logspace(-3, 3, 25))),
        "Gaussian process": process(1.0),
        "Gaussian process, a scale per column": process(np.ones(N_COLUMNS)),
    }


def measure_friedman(
    model: PreTrainedModel, specialists: Mapping[str, PreTrainedModel], n_draws: int, seed: int, n_estimators: int = 1
) -> Row:
    """
    Return the row of mean R² over draws of 40 examples and 200 queries of ten columns, five of which say nothing.

    All learned models answer behind `n_estimators` of their estimators each. The limit is the function itself: the
    noise is left.

    Source: Friedman, "Multivariate adaptive regression splines" (Annals of Statistics 1991).
    """
    learned = {"model": model, **specialists}
    options = {"n_estimators": n_estimators, "random_state": seed, "verbose": False}
    methods = {name: InContextRegressor(each, **options) for name, each in learned.items()} | classical_methods()
    scores: dict[str, list[float]] = {name: [] for name in (*methods, "limit")}
    for draw in tqdm(range(n_draws), desc="friedman1"):
        size = {"n_samples": N_EXAMPLES + N_QUERIES, "n_features": N_COLUMNS, "random_state": seed * n_draws + draw}
        (xs, ys), (_, exact) = make_friedman1(**size, noise=NOISE), make_friedman1(**size)
        for name, method in methods.items():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)  # a scale at the end of its range is an answer
                method.fit(xs[:N_EXAMPLES], ys[:N_EXAMPLES])
            scores[name].append(r2_score(ys[N_EXAMPLES:], method.predict(xs[N_EXAMPLES:])))
        scores["limit"].append(r2_score(ys[N_EXAMPLES:], exact[N_EXAMPLES:]))
    means = {name: fmean(values) for name, values in scores.items()}
    best = max(specialists, key=means.__getitem__)
    differences = np.array(scores["model"]) - np.array(scores[best])
    low, high = bootstrap_interval(differences)
    averaged = f", mean of {n_estimators} estimators" if n_estimators > 1 else ""
    return Row(
        figure=f"friedman1 of scikit-learn, R²{averaged}",
        examples=str(N_EXAMPLES),
        more_is_better=True,
        target=TARGET,
        limit=means["limit"],
        solvers={name: means[name] for name in classical_methods()},
        specialists={name: means[name] for name in specialists},
        model=means["model"],
        difference=Interval(float(differences.mean()), float(low), float(high)),
    )
