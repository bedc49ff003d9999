"""What people reach for first: four classical methods for each kind of table, all behind the same preparation."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, clone
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV, KFold, StratifiedKFold, cross_val_predict
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler


N_FOLDS, N_TREES = 5, 100


def as_float(columns: pd.DataFrame) -> pd.DataFrame:
    """Numbers and booleans as float64."""
    return columns.astype(np.float64)


def prepared(model: BaseEstimator) -> Pipeline:
    """
    Put the usual preparation before a model.

    Numbers are imputed by the median, standardised, and those that are missing marked; text is one column per value.
    """
    numbers = make_pipeline(
        FunctionTransformer(as_float),
        SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True),
        StandardScaler(),
    )
    text = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    columns = make_column_transformer(
        (text, make_column_selector(dtype_include=object)),
        (numbers, make_column_selector(dtype_exclude=object)),
    )
    return make_pipeline(columns, model)


def aligned_probabilities(model: BaseEstimator, columns: pd.DataFrame, classes: Sequence[str]) -> np.ndarray:
    """Probabilities `(rows, classes)` of all `classes`, 0 for those that the model was not shown."""
    probabilities = np.zeros((len(columns), len(classes)))
    probabilities[:, np.searchsorted(classes, model.classes_)] = model.predict_proba(columns)
    return probabilities


def negative_log_loss(model: BaseEstimator, columns: np.ndarray, answers: np.ndarray) -> float:
    """How good a fold's probabilities are, also where its training rows lack a class."""
    classes = np.union1d(model.classes_, answers)
    return -log_loss(answers, aligned_probabilities(model, columns, classes), labels=classes)


class ResidualQuantiles(BaseEstimator):
    """
    A regressor whose quantiles are its prediction plus the quantiles of its errors at rows that it was not fitted to.

    Args:
        model:
            A regressor; the errors are those of five-fold cross-validation in the training rows.
    """

    def __init__(self, model: BaseEstimator):
        self.model = model

    def fit(self, columns: pd.DataFrame, answers: np.ndarray) -> "ResidualQuantiles":
        """Fit the model."""
        self.columns_, self.answers_ = columns, answers
        self.model_ = clone(self.model).fit(columns, answers)
        return self

    def predict(self, columns: pd.DataFrame) -> np.ndarray:
        """Predict as the model does, `(rows,)`."""
        return self.model_.predict(columns)

    def predict_quantiles(self, columns: pd.DataFrame, levels: Sequence[float]) -> np.ndarray:
        """Predict the quantiles, `(rows, levels)`."""
        folds = KFold(N_FOLDS, shuffle=True, random_state=0)
        errors = self.answers_ - cross_val_predict(self.model, self.columns_, self.answers_, cv=folds)
        return self.predict(columns)[:, None] + np.quantile(errors, levels)


def make_baselines(kind: str) -> dict[str, BaseEstimator]:
    """The classical methods of a kind, by name."""
    if kind == "classification":
        penalty = GridSearchCV(
            LogisticRegression(max_iter=500),
            {"C": np.logspace(-3, 2, 6)},
            scoring=negative_log_loss,
            cv=StratifiedKFold(N_FOLDS, shuffle=True, random_state=0),
        )
        models = {
            "logistic regression": penalty,
            "7 nearest neighbours": KNeighborsClassifier(7),
            "random forest": RandomForestClassifier(N_TREES, random_state=0),
            "gradient boosting": HistGradientBoostingClassifier(random_state=0),
        }
        return {name: prepared(model) for name, model in models.items()}
    models = {
        "ridge regression": RidgeCV(np.logspace(-3, 4, 15)),
        "7 nearest neighbours": KNeighborsRegressor(7),
        "random forest": RandomForestRegressor(N_TREES, random_state=0),
        "gradient boosting": HistGradientBoostingRegressor(random_state=0),
    }
    return {name: ResidualQuantiles(prepared(model)) for name, model in models.items()}
