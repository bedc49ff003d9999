"""scikit-learn estimators that fit by showing examples to a looped GPT-2; no weight changes.

They are installed with the model but are not part of it: no file of the model imports this one, so no checkpoint
contains it, and only its users need scikit-learn.
"""

import copy
import os
from collections.abc import Iterator
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils import check_array, check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data
from transformers.utils.logging import tqdm

from .configuration_looped_gpt2 import LoopedGPT2Config
from .estimator_input_looped_gpt2 import Standardizer, bound_deviations, unpack, unpack_features
from .in_context_looped_gpt2 import LoopedGPT2InContextPreTrainedModel
from .modeling_looped_gpt2_classification import LoopedGPT2ForInContextClassification
from .modeling_looped_gpt2_regression import LoopedGPT2ForInContextRegression


# contexts times queries that are computed together: many make matrix products fast; few need little memory, and the
# queries to one context attend to each other, which costs the square of their number
ANSWERS_AT_A_TIME = 1024
# contexts times queries that are worth a progress bar
MANY_ANSWERS = 4096


class _InContextEstimator(BaseEstimator):
    """Standardised features, padded to the model's `n_dims`, dealt into contexts that are encoded once."""

    model_class: type[LoopedGPT2InContextPreTrainedModel]

    def _validate(self, X: Any, *y: Any, **options) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        """Return X in float64, and y where it is given, after scikit-learn's checks and those that it lacks."""
        data = [unpack_features(X), *(unpack("y", values) for values in y)]
        try:
            # a wider float becomes infinite and is refused as such; scikit-learn's own sum over X may overflow
            with np.errstate(over="ignore", invalid="ignore"):
                return validate_data(self, *data, dtype=np.float64, **options)
        except OverflowError:
            raise ValueError("X and y must be within the range of float64, got an integer beyond 1.8e308.") from None

    def _encode(self, X: np.ndarray, ys: torch.Tensor):
        """Fit the standardisation of X and encode X with ys `(n_examples,)`."""
        n_dims, n_features = self.model_.config.n_dims, X.shape[1]
        if n_features > n_dims:
            raise ValueError(
                f"X must have at most `n_dims` = {n_dims} features for this model, got {n_features}: select or "
                "project them, e.g. with sklearn.decomposition.PCA."
            )
        self.x_standardizer_ = Standardizer(X)
        order = self._deal(len(X))
        self.n_contexts_, self.n_examples_ = order.shape
        with torch.inference_mode():
            contexts = (part[order].to(self.model_.device) for part in (self._to_tensor(X), ys))
            self.context_ = self.model_.encode_context(*contexts, n_loops=self.n_loops)

    def _ask(self, X: Any) -> Iterator[torch.Tensor]:
        """Yield the answers of every context `(n_contexts, n_rows, ...)` in float64, for some rows of X at a time."""
        X = self._validate(X, reset=False)
        n_rows = max(1, ANSWERS_AT_A_TIME // self.n_contexts_)
        takes_long = self.n_contexts_ * len(X) > MANY_ANSWERS
        hidden = None if self.verbose and takes_long else True  # None: where stderr is no terminal
        with tqdm(total=len(X), desc="predict", unit=" rows", disable=hidden) as progress:
            for start in range(0, len(X), n_rows):
                queries = self._to_tensor(X[start : start + n_rows]).to(self.model_.device)
                with torch.inference_mode():
                    answers = self.model_.predict(queries.expand(self.n_contexts_, -1, -1), self.context_)
                yield answers.cpu().double()
                progress.update(len(queries))

    def _load(self) -> LoopedGPT2InContextPreTrainedModel:
        if not isinstance(self.max_contexts, Integral) or self.max_contexts < 1:
            raise ValueError(f"`max_contexts` must be an integer >= 1, got {self.max_contexts!r}.")
        if isinstance(self.model, torch.nn.Module):
            model, names = self.model, _class_names(self.model)
        elif isinstance(self.model, str | os.PathLike):
            path = Path(self.model)
            if not path.exists() and len(path.parts) > 1 and path.parent.is_dir():  # cannot be meant as a repository
                raise ValueError(f"`model` must be a folder, a Hub repository or a model: there is no folder {path}.")
            hub_arguments = {"revision": self.revision} if self.revision else {}
            model = self.model_class.from_pretrained(self.model, **hub_arguments)
            names = model.config.architectures or [None]
        else:
            raise ValueError(f"`model` must be a folder, a Hub repository or a model, got {self.model!r}.")
        if self.model_class.__name__ not in names:
            raise ValueError(
                f"`model` must be a {self.model_class.__name__} for {type(self).__name__}, got a {names[0]}."
            )
        # a copy, which the estimator may move and the caller may train on
        return copy.deepcopy(self._in_own_class(model)).eval().to(self.device or model.device)

    def _in_own_class(self, model: torch.nn.Module) -> LoopedGPT2InContextPreTrainedModel:
        """The model in the class of this package, sharing its weights."""
        if isinstance(model, self.model_class):
            return model
        attention = model.config._attn_implementation
        config = LoopedGPT2Config.from_dict(model.config.to_dict(), attn_implementation=attention)
        with torch.device("meta"):
            own_model = self.model_class(config)
        own_model.load_state_dict(model.state_dict(), assign=True)
        return own_model

    def __getstate__(self) -> dict:
        """Pickle a model in the class of this package: another process does not find that of a checkpoint's code."""
        state = dict(super().__getstate__())
        if isinstance(self.model, torch.nn.Module) and self.model_class.__name__ in _class_names(self.model):
            state["model"] = self._in_own_class(self.model)
        return state

    def _deal(self, n: int) -> np.ndarray:
        """Deal n examples into contexts; returns indices `(n_contexts, n_examples)`, in order where one is enough."""
        max_examples = self.model_.max_examples
        if n <= max_examples:
            return np.arange(n)[None]
        n_contexts = min(-(-n // max_examples), self.max_contexts)
        n_examples = min(-(-n // n_contexts), max_examples)
        # the last context is filled up with examples of the first
        return np.resize(check_random_state(self.random_state).permutation(n), (n_contexts, n_examples))

    def _to_tensor(self, X: np.ndarray) -> torch.Tensor:
        """Standardised and padded rows `(n, n_dims)`."""
        deviations = bound_deviations(self.x_standardizer_.transform(X))
        xs = torch.as_tensor(deviations, dtype=torch.float32)
        return torch.nn.functional.pad(xs, (0, self.model_.config.n_dims - xs.shape[1]))


class InContextRegressor(RegressorMixin, _InContextEstimator):
    """
    In-context regression with scikit-learn's interface: `fit` encodes the examples once, `predict` asks all queries.

    Features are standardised, and padded with zeros to the model's `n_dims`; y is brought to the scale the model was
    trained on and back. More examples than the model has positions for are shuffled and dealt into at most
    `max_contexts` contexts of equal size, whose predictions are averaged.

    No feature can destroy an answer by itself. One that is constant in the examples says nothing. A value more than 5
    standard deviations from the examples' mean counts as 5, which is as far as the models see in training, and one
    more than 20 away says nothing. A constant y is the answer to every query.

    Args:
        model (`str`, `Path` or [`LoopedGPT2ForInContextRegression`]):
            Folder or Hub repository of a model, or the model itself, which is copied. The code of the repository is
            not run: the classes of this package load it.
        n_loops (`int`, *optional*, defaults to the model's):
            Loops, >= 1.
        y_std (`float`, *optional*, defaults to the square root of the number of features):
            Standard deviation to which y is scaled, in 1e-6 ... 1e6. The default is that of linear functions of
            standardised features with standard normal weights; sparse ones of the paper have 3 ** 0.5, trees 1.
        max_contexts (`int`, defaults to 16):
            Largest number of contexts, >= 1. Examples beyond so many full contexts are left out at random.
        revision (`str`, *optional*):
            Branch, tag or commit of a Hub repository.
        device (`str`, *optional*, defaults to where the model is, the CPU for one that is loaded):
            Device to compute on.
        random_state (`int`, `RandomState`, *optional*):
            Decides the shuffle, where there is one.
        verbose (`bool`, defaults to `True`):
            Show the progress of `predict` on stderr, where that is a terminal and queries times contexts are more than
            4,096.

    Attributes:
        model_ ([`LoopedGPT2ForInContextRegression`]):
            The model, in the class of this package whatever was given: a fitted estimator can be pickled and loaded
            wherever the package is installed.
        context_ ([`~transformers.DynamicCache`]):
            The encoded examples, one row per context.
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

    model_class = LoopedGPT2ForInContextRegression

    def __init__(
        self,
        model,
        n_loops: int | None = None,
        y_std: float | None = None,
        max_contexts: int = 16,
        revision: str | None = None,
        device: str | None = None,
        random_state=None,
        verbose: bool = True,
    ):
        self.model = model
        self.n_loops = n_loops
        self.y_std = y_std
        self.max_contexts = max_contexts
        self.revision = revision
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X, y) -> "InContextRegressor":
        """
        Standardise the examples and encode them.

        Args:
            X (array-like of shape `(n_examples, n_features)`), y (array-like of shape `(n_examples,)`):
                Finite numbers of any type and size, scaled in float64; at most `n_dims` features.

        Raises:
            `ValueError`: X, y or an argument of the estimator is not as above.
        """
        X, y = self._validate(X, y, y_numeric=True)
        if y.dtype.kind not in "biuf":
            raise ValueError(f"y must be numbers, got an array of {y.dtype}: InContextClassifier takes labels.")
        with np.errstate(over="ignore", invalid="ignore"):
            y = check_array(y, ensure_2d=False, dtype=np.float64, input_name="y")
        if self.y_std is not None and not (isinstance(self.y_std, Real) and 1e-6 <= self.y_std <= 1e6):
            raise ValueError(f"`y_std` must be a number in 1e-6 ... 1e6, got {self.y_std!r}.")
        self.model_ = self._load()
        n_outputs = self.model_.config.n_outputs
        if n_outputs > 1:
            raise ValueError(
                f"`model` must predict a single number, got one of `n_outputs` = {n_outputs}: ask its `predict`."
            )
        self.y_std_ = X.shape[1] ** 0.5 if self.y_std is None else self.y_std
        self.y_standardizer_ = Standardizer(y)
        ys = self.y_standardizer_.transform(y) * self.y_std_
        self._encode(X, torch.as_tensor(ys, dtype=torch.float32))
        return self

    def predict(self, X) -> np.ndarray:
        """
        Predict y at every row of X, each as if it were the next point after the examples.

        Args:
            X (array-like of shape `(n_queries, n_features)`):
                Finite numbers.

        Returns:
            `np.ndarray` of shape `(n_queries,)`, float64, in units of y.

        Raises:
            `ValueError`: X is not as above, or an answer is not finite.
        """
        check_is_fitted(self)
        answers = torch.cat([part.mean(dim=0) for part in self._ask(X)]).numpy()
        predictions = self.y_standardizer_.inverse_transform(answers / self.y_std_)
        if not np.isfinite(predictions).all():
            raise ValueError("Predictions are beyond the range of float64, 1.8e308: divide y by a constant.")
        return predictions

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.regressor_tags.poor_score = True  # how well it does depends on the model, which may be any
        return tags


class InContextClassifier(ClassifierMixin, _InContextEstimator):
    """
    In-context classification with scikit-learn's interface, as [`InContextRegressor`] does regression.

    The probabilities of several contexts are averaged.

    Args:
        model (`str`, `Path` or [`LoopedGPT2ForInContextClassification`]):
            Folder or Hub repository of a model, or the model itself, which is copied.
        n_loops, max_contexts, revision, device, random_state, verbose:
            As in [`InContextRegressor`].

    Attributes:
        classes_ (`ndarray` of shape `(n_classes,)`):
            The labels seen in `fit`, at most `num_labels` of the model.
        model_, context_, n_contexts_, n_examples_, n_features_in_, feature_names_in_:
            As in [`InContextRegressor`].
    """

    model_class = LoopedGPT2ForInContextClassification

    def __init__(
        self,
        model,
        n_loops: int | None = None,
        max_contexts: int = 16,
        revision: str | None = None,
        device: str | None = None,
        random_state=None,
        verbose: bool = True,
    ):
        self.model = model
        self.n_loops = n_loops
        self.max_contexts = max_contexts
        self.revision = revision
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X, y) -> "InContextClassifier":
        """
        Standardise the examples and encode them.

        Args:
            X (array-like of shape `(n_examples, n_features)`):
                Finite numbers; at most `n_dims` features.
            y (array-like of shape `(n_examples,)`):
                Labels of any kind, of 2 to `num_labels` classes.

        Raises:
            `ValueError`: X, y or an argument of the estimator is not as above.
        """
        X, y = self._validate(X, y)
        check_classification_targets(y)
        self.classes_, classes = np.unique(y, return_inverse=True)
        self.model_ = self._load()
        n_labels = self.model_.config.num_labels
        if not 2 <= len(self.classes_) <= n_labels:
            raise ValueError(
                f"y must have 2 to `num_labels` = {n_labels} classes for this model, got {len(self.classes_)} class"
                f"{'es' if len(self.classes_) > 1 else ''}."
            )
        self._encode(X, torch.as_tensor(classes))
        return self

    def predict_proba(self, X) -> np.ndarray:
        """
        Return the probabilities of the classes at every row of X.

        Args:
            X (array-like of shape `(n_queries, n_features)`):
                Finite numbers.

        Returns:
            `np.ndarray` of shape `(n_queries, n_classes)`, float64; rows sum to 1.

        Raises:
            `ValueError`: X is not as above, or an answer is not finite.
        """
        check_is_fitted(self)
        n_classes = len(self.classes_)
        return torch.cat([part[..., :n_classes].softmax(dim=-1).mean(dim=0) for part in self._ask(X)]).numpy()

    def predict(self, X) -> np.ndarray:
        """Return the most probable label, `(n_queries,)`, at every row of X `(n_queries, n_features)`."""
        check_is_fitted(self)
        return self.classes_[self.predict_proba(X).argmax(axis=1)]

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.classifier_tags.poor_score = True  # how well it does depends on the model, which may be any
        return tags


def _class_names(model: torch.nn.Module) -> list[str]:
    """Names of the model's class and those it is derived from: the class may be that of a checkpoint's own code."""
    return [base.__name__ for base in type(model).__mro__]


__all__ = ["InContextClassifier", "InContextRegressor"]
