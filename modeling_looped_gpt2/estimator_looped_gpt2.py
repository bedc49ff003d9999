"""A scikit-learn regressor that fits by showing examples to a looped GPT-2; no weight changes.

It lives beside the model because it is installed with it, and is no part of it: nothing here imports this file, so no
checkpoint carries it, and scikit-learn is needed by those alone who import it.
"""

import copy

import numpy as np
import torch
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from .modeling_looped_gpt2_in_context import LoopedGPT2ForInContextRegression


class InContextRegressor(RegressorMixin, BaseEstimator):
    """
    In-context regression with scikit-learn's interface: `fit` encodes the examples once, `predict` asks all queries.

    Features are standardised, and padded with zeros to the model's `n_dims`; y is brought to the scale the model was
    trained on and back. More examples than the model has positions for are shuffled and dealt into contexts of equal
    size, whose predictions are averaged: every example is used, up to `max_contexts` of them.

    Args:
        model (`str`, `Path` or [`LoopedGPT2ForInContextRegression`]):
            Folder or Hub repository of a model, or the model itself, of which a copy is used. The code of the
            repository is not run: the classes of this package load it.
        n_loops (`int`, *optional*, defaults to the model's):
            Loops, >= 1.
        y_std (`float`, *optional*, defaults to the square root of the number of features):
            Standard deviation to which y is scaled, > 0. The default is that of linear functions of standardised
            features with standard normal weights; sparse ones of the paper have 3 ** 0.5, trees 1.
        max_contexts (`int`, defaults to 16):
            Most contexts that are encoded, >= 1. Examples beyond `max_contexts` full ones are left out at random.
        revision (`str`, *optional*):
            Branch, tag or commit of a Hub repository.
        device (`str`, *optional*, defaults to where the model is, the CPU for one that is loaded):
            Device to compute on.
        random_state (`int`, `RandomState`, *optional*):
            Decides the shuffle, where there is one.

    Attributes:
        model_ ([`LoopedGPT2ForInContextRegression`]):
            The model.
        context_ ([`~transformers.DynamicCache`]):
            The encoded examples, one row a context.
        n_contexts_ (`int`), n_examples_ (`int`):
            Contexts, and examples in each.
        n_features_in_ (`int`), feature_names_in_ (`ndarray`):
            As everywhere in scikit-learn.

    Example:

    ```python
    >>> from modeling_looped_gpt2.estimator_looped_gpt2 import InContextRegressor

    >>> regressor = InContextRegressor("runs/quickstart").fit(xs, ys)
    >>> regressor.predict(queries)
    ```"""

    def __init__(
        self,
        model,
        n_loops: int | None = None,
        y_std: float | None = None,
        max_contexts: int = 16,
        revision: str | None = None,
        device: str | None = None,
        random_state=None,
    ):
        self.model = model
        self.n_loops = n_loops
        self.y_std = y_std
        self.max_contexts = max_contexts
        self.revision = revision
        self.device = device
        self.random_state = random_state

    def fit(self, X, y) -> "InContextRegressor":
        """
        Standardise the examples and encode them.

        Args:
            X (array-like of shape `(n_examples, n_features)`), y (array-like of shape `(n_examples,)`):
                Finite numbers; at most `n_dims` features.

        Raises:
            `ValueError`: X, y or an argument of the estimator is not as above.
        """
        X, y = validate_data(self, X, y, y_numeric=True, dtype=np.float64)
        if self.max_contexts < 1:
            raise ValueError(f"`max_contexts` must be >= 1, got {self.max_contexts}.")
        if self.y_std is not None and not 0 < self.y_std < np.inf:
            raise ValueError(f"`y_std` must be a finite number > 0, got {self.y_std}.")
        self.model_ = self._load()
        n_dims, n_features = self.model_.config.n_dims, X.shape[1]
        if n_features > n_dims:
            raise ValueError(
                f"X must have at most `n_dims` = {n_dims} features for this model, got {n_features}: select or "
                "project them, e.g. with sklearn.decomposition.PCA."
            )
        self.x_mean_, self.x_std_ = X.mean(axis=0), _std(X)
        y_std = n_features**0.5 if self.y_std is None else self.y_std
        self.y_mean_, self.y_scale_ = y.mean(), _std(y) / y_std
        order = self._deal(len(X))
        self.n_contexts_, self.n_examples_ = order.shape
        xs, ys = self._to_tensor(X), torch.as_tensor((y - self.y_mean_) / self.y_scale_, dtype=torch.float32)
        with torch.inference_mode():
            contexts = (part[order].to(self.model_.device) for part in (xs, ys))
            self.context_ = self.model_.encode_context(*contexts, n_loops=self.n_loops)
        return self

    def predict(self, X) -> np.ndarray:
        """
        Predict y at every row of X, each as if it were the next point after the examples.

        Args:
            X (array-like of shape `(n_queries, n_features)`):
                Finite numbers.

        Returns:
            `np.ndarray` of shape `(n_queries,)`, float64, in units of y.
        """
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=np.float64)
        queries = self._to_tensor(X).to(self.model_.device)
        with torch.inference_mode():
            predictions = self.model_.predict(queries.expand(self.n_contexts_, -1, -1), self.context_)
        return predictions.double().mean(dim=0).cpu().numpy() * self.y_scale_ + self.y_mean_

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.regressor_tags.poor_score = True  # how well it does depends on the model, which may be any
        return tags

    def _load(self) -> LoopedGPT2ForInContextRegression:
        if isinstance(self.model, torch.nn.Module):
            model = copy.deepcopy(self.model)  # which the estimator may move and the caller may train on
        else:
            hub_arguments = {"revision": self.revision} if self.revision else {}
            model = LoopedGPT2ForInContextRegression.from_pretrained(self.model, **hub_arguments)
        return model.eval().to(self.device or model.device)

    def _deal(self, n: int) -> np.ndarray:
        """Indices `(contexts, examples in each)`: all examples in their order where they fit into one context."""
        max_examples = (self.model_.config.n_positions - 1) // 2
        if n <= max_examples:
            return np.arange(n)[None]
        n_contexts = min(-(-n // max_examples), self.max_contexts)
        n_examples = min(-(-n // n_contexts), max_examples)
        # the last context is filled up with examples of the first
        return np.resize(check_random_state(self.random_state).permutation(n), (n_contexts, n_examples))

    def _to_tensor(self, X: np.ndarray) -> torch.Tensor:
        """Standardised and padded rows `(n, n_dims)`."""
        xs = torch.as_tensor((X - self.x_mean_) / self.x_std_, dtype=torch.float32)
        return torch.nn.functional.pad(xs, (0, self.model_.config.n_dims - xs.shape[1]))


def _std(values: np.ndarray) -> np.ndarray:
    """Standard deviation over rows, 1 where nothing varies."""
    std = values.std(axis=0)
    return np.where(std > 1e-12 * np.abs(values).max(axis=0), std, 1.0)


__all__ = ["InContextRegressor"]
