"""scikit-learn estimators that fit by showing examples to a looped GPT-2; no weight changes.

They are installed with the model but are not part of it: no file of the model imports this one but the pipeline of
tables, so no other checkpoint contains it, and only its users need scikit-learn.
"""

from numbers import Real

import numpy as np
import torch
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.utils import check_array
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted

from .estimator_base_looped_gpt2 import InContextEstimator
from .estimator_input_looped_gpt2 import Standardizer
from .modeling_looped_gpt2_classification import LoopedGPT2ForInContextClassification
from .modeling_looped_gpt2_regression import LoopedGPT2ForInContextRegression


# a model knows classes by numbers, which mean nothing: answers are averaged over so many ways to number them
MAX_NUMBERINGS = 4


class InContextRegressor(RegressorMixin, InContextEstimator):
    """
    In-context regression with scikit-learn's interface: `fit` encodes the examples once, `predict` asks all queries.

    X is a data frame or an array. Columns of categories and text become columns of numbers, see [`find_columns`];
    those that never vary are left out, and of more than the model takes (`n_dims` of a model of points, 100 of one of
    rows, 40 of one of cells) those are kept that y explains best, see [`choose_columns`]. Columns are standardised by
    the examples, and a model of rows is shown their normal scores and principal components, see [`RowView`]; a missing
    value stays missing for a model of cells and is the mean for others. y is brought to the scale the model was
    trained on and back. More examples than a context takes are shuffled and dealt into at most `max_contexts` contexts
    of equal size, whose predictions are averaged.

    No column can destroy an answer by itself. One that is constant in the examples says nothing. A value far from the
    examples' mean counts as 10 standard deviations for models of rows and of cells; for others as 5, and as the mean
    where it is more than 20 away. A constant y is the answer to every query.

    Args:
        model (`str`, `Path` or [`LoopedGPT2ForInContextRegression`], *optional*, in a clone of the project a release):
            Folder or Hub repository of a model, or the model itself, which is copied. The code of the repository is
            not run: the classes of this package load it.
        n_loops (`int`, *optional*, defaults to the model's):
            Loops, >= 1.
        exit_tolerance (`float`, *optional*):
            Take fewer loops where answers settle early: `fit` asks some of the examples as queries to the others, and
            loops end once one changes the state of their answers by less than this share of its norm (> 0), see
            [`~LoopedGPT2ForInContextRegression.forward`]; at most `n_loops`.
        y_std (`float`, *optional*, defaults to 1 for models of rows or cells, else to the root of `len(columns_)`):
            Standard deviation to which y is scaled, in 1e-6 ... 1e6. The default is that of linear functions of
            standardised features with standard normal weights; sparse ones of the paper have 3 ** 0.5, trees 1.
        max_examples (`int`, defaults to 1,000):
            Most examples of a context, >= 1; a model with positions takes no more than it has positions for.
        max_contexts (`int`, defaults to 16):
            Largest number of contexts, >= 1. Examples beyond so many full contexts are left out at random.
        n_estimators (`int`, defaults to 1):
            Estimators whose predictions are averaged, >= 1: each reads the examples and their columns in an order of
            its own and turns the signs of some columns, the first reads them as they are. Time and memory grow with
            them. Source: TabPFN (Hollmann et al., Nature 2025).
        revision (`str`, *optional*):
            Branch, tag or commit of a Hub repository.
        device (`str`, *optional*, defaults to where the model is, the CPU for one that is loaded):
            Device to compute on.
        random_state (`int`, `RandomState`, *optional*):
            Decides the shuffle of many examples, and what the second and further estimators read.
        verbose (`bool`, defaults to `True`):
            Show the progress of `predict` on stderr, where that is a terminal and queries times contexts are more than
            4,096.

    Attributes:
        model_ ([`LoopedGPT2ForInContextRegression`]):
            The model, in the class of this package whatever was given: a fitted estimator can be pickled and loaded
            wherever the package is installed.
        columns_ (`list[str]`):
            The columns that the model sees: "age", "ward=b" for a level of a category, "x3" in an array.
        context_ ([`~transformers.DynamicCache`]):
            The encoded examples, a row for each reading of y, estimator and context, all contexts of the first
            estimator first, and all of these of the first reading.
        n_readings_ (`int`):
            How often every context is read: 1 for regression, for classes as often as they are numbered anew.
        n_loops_ (`int`):
            Loops of the context and of every answer.
        n_contexts_ (`int`), n_examples_ (`int`):
            Contexts of an estimator, and examples in each.
        n_features_in_ (`int`), feature_names_in_ (`ndarray`):
            As everywhere in scikit-learn.

    Example:

    ```python
    >>> from modeling_looped_gpt2.estimator_looped_gpt2 import InContextRegressor

    >>> regressor = InContextRegressor("runs/quickstart").fit(xs, ys)
    >>> regressor.predict(queries)
    ```"""

    model_class = LoopedGPT2ForInContextRegression
    default_model = "tables_regression"
    takes_text = False

    def __init__(
        self,
        model=None,
        n_loops: int | None = None,
        exit_tolerance: float | None = None,
        y_std: float | None = None,
        max_examples: int = 1000,
        max_contexts: int = 16,
        n_estimators: int = 1,
        revision: str | None = None,
        device: str | None = None,
        random_state=None,
        verbose: bool = True,
    ):
        super().__init__(
            model,
            n_loops,
            exit_tolerance,
            max_examples,
            max_contexts,
            n_estimators,
            revision,
            device,
            random_state,
            verbose,
        )
        self.y_std = y_std

    def fit(self, X, y, **others) -> "InContextRegressor":
        """
        Standardise the examples and encode them.

        Args:
            X (`pandas.DataFrame` or array-like of shape `(n_examples, n_features)`):
                Numbers of any type and size, in a frame also categories and text of few values; NaN, `None` and
                `pandas.NA` are missing values. Tables of pyarrow, datasets and polars are frames.
            y (array-like of shape `(n_examples,)`):
                Finite numbers or truth values.

        Raises:
            `ValueError`: X, y or an argument of the estimator is not as above.
            `TypeError`: there is another argument, such as `sample_weight`.
        """
        columns, X, y = self._read_examples(X, y, others)
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
        self.y_standardizer_ = Standardizer(y)
        deviations = self.y_standardizer_.transform(y)
        X = self._choose(columns, X, targets=deviations[:, None] / len(y) ** 0.5)
        self.y_std_ = self._view.y_std(len(self.columns_)) if self.y_std is None else self.y_std
        self._encode(X, torch.as_tensor(deviations * self.y_std_, dtype=torch.float32)[None])
        return self

    def predict(self, X, return_std: bool = False) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        """
        Predict y at every row of X, each as if it were the next point after the examples.

        Args:
            X (`pandas.DataFrame` or array-like of shape `(n_queries, n_features)`):
                As in `fit`. A level of a category that the examples do not have counts as missing.
            return_std (`bool`, defaults to `False`):
                Also return the standard deviation of y that the model expects. Needs a model with quantiles.

        Returns:
            `np.ndarray` of shape `(n_queries,)`, float64, in units of y; with `return_std` two of them.

        Raises:
            `ValueError`: X is not as above, an answer is not finite, or the model has no quantiles.
        """
        check_is_fitted(self)
        if return_std:
            quantiles = self._quantiles(X, "return_std")
            deviations = quantiles.std(axis=1)
            return self._in_units_of_y(quantiles.mean(axis=1)), self.y_standardizer_.inverse_scale(deviations)
        answers = self._ask(self._read_queries(X), self.model_.predict)
        return self._in_units_of_y(torch.cat([part.mean(dim=(0, 1)) for part in answers]).numpy() / self.y_std_)

    def predict_quantiles(self, X, levels=(0.05, 0.5, 0.95)) -> np.ndarray:
        """
        Predict quantiles of y at every row of X.

        Those of a model of K quantiles are at the levels (k + 0.5) / K. Between two of them quantiles lie on a line,
        and beyond the first and the last they are these. Quantiles of several contexts are averaged.

        Args:
            X (`pandas.DataFrame` or array-like of shape `(n_queries, n_features)`):
                As in `predict`.
            levels (array-like of shape `(n_levels,)`, defaults to `(0.05, 0.5, 0.95)`):
                Probabilities that y is below, in 0 ... 1; by default the median and a 90% interval.

        Returns:
            `np.ndarray` of shape `(n_queries, n_levels)`, float64, in units of y.

        Raises:
            `ValueError`: X or a level is not as above, an answer is not finite, or the model has no quantiles.
        """
        check_is_fitted(self)
        levels = np.asarray(levels)
        if levels.ndim != 1 or levels.dtype.kind not in "iuf" or not ((levels >= 0) & (levels <= 1)).all():
            raise ValueError(f"`levels` must be a list of numbers in 0 ... 1, got {levels.tolist()}.")
        quantiles = self._quantiles(X, "predict_quantiles")
        # Hazen's levels are those that the model answers at
        found = np.quantile(quantiles, levels, axis=1, method="hazen").T
        return self._in_units_of_y(found)

    def _quantiles(self, X, asked: str) -> np.ndarray:
        """Quantiles `(n_queries, K)` of standardised y."""
        if not self.model_.config.n_quantiles:
            raise ValueError(
                f"`{asked}` needs a model with quantiles, got one of `n_quantiles` = 0: `predict` gives its answers."
            )
        answers = self._ask(self._read_queries(X), self.model_.predict_quantiles)
        return torch.cat([part.mean(dim=(0, 1)) for part in answers]).numpy() / self.y_std_

    def _in_units_of_y(self, deviations: np.ndarray) -> np.ndarray:
        values = self.y_standardizer_.inverse_transform(deviations)
        if not np.isfinite(values).all():
            raise ValueError("Predictions are beyond the range of float64, 1.8e308: divide y by a constant.")
        return values

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.regressor_tags.poor_score = True  # how well it does depends on the model, which may be any
        return tags


class InContextClassifier(ClassifierMixin, InContextEstimator):
    """
    In-context classification with scikit-learn's interface, as [`InContextRegressor`] does regression.

    A model knows classes by numbers. Every context is read once for each of up to four ways to number them, each class
    moving on by one, and the probabilities of all are averaged, so that the order of the labels hardly matters, and of
    two classes not at all. A single class is the answer to every query.

    Args:
        model (`str`, `Path` or [`LoopedGPT2ForInContextClassification`], *optional*, in a clone a release):
            Folder or Hub repository of a model, or the model itself, which is copied.
        n_loops, exit_tolerance, max_examples, max_contexts, n_estimators, revision, device, random_state, verbose:
            As in [`InContextRegressor`].

    Attributes:
        classes_ (`ndarray` of shape `(n_classes,)`):
            The labels seen in `fit`, at most `num_labels` of the model.
        model_, columns_, context_, n_readings_, n_loops_, n_contexts_, n_examples_, n_features_in_, feature_names_in_:
            As in [`InContextRegressor`]; of a single class there is no context.
    """

    model_class = LoopedGPT2ForInContextClassification
    default_model = "tables_classification"
    takes_text = True

    def fit(self, X, y, **others) -> "InContextClassifier":
        """
        Standardise the examples and encode them.

        Args:
            X (`pandas.DataFrame` or array-like of shape `(n_examples, n_features)`):
                As in [`InContextRegressor.fit`].
            y (array-like of shape `(n_examples,)`):
                Labels of any kind, of 1 to `num_labels` classes.

        Raises:
            `ValueError`: X, y or an argument of the estimator is not as above.
            `TypeError`: there is another argument, such as `sample_weight`.
        """
        columns, X, y = self._read_examples(X, y, others)
        check_classification_targets(y)
        self.classes_, classes, counts = np.unique(y, return_inverse=True, return_counts=True)
        self.model_ = self._load()
        n_labels, n_classes = self.model_.config.num_labels, len(counts)
        if n_classes > n_labels:
            raise ValueError(
                f"y must have at most `num_labels` = {n_labels} classes for this model, got {n_classes} classes: "
                "merge rare ones, or wrap the estimator in sklearn.multiclass.OneVsRestClassifier."
            )
        X = self._choose(columns, X, targets=np.eye(n_classes)[classes] / counts**0.5)
        if n_classes > 1:
            first = np.arange(min(n_classes, MAX_NUMBERINGS))[:, None]
            self._encode(X, torch.as_tensor((classes + first) % n_classes))
        return self

    def predict_proba(self, X) -> np.ndarray:
        """
        Return the probabilities of the classes at every row of X.

        Args:
            X (`pandas.DataFrame` or array-like of shape `(n_queries, n_features)`):
                As in [`InContextRegressor.predict`].

        Returns:
            `np.ndarray` of shape `(n_queries, n_classes)`, float64; rows sum to 1.

        Raises:
            `ValueError`: X is not as above, or an answer is not finite.
        """
        check_is_fitted(self)
        X, n_classes = self._read_queries(X), len(self.classes_)
        if n_classes == 1:
            return np.ones((len(X), 1))
        numbers = (torch.arange(n_classes) + torch.arange(self.n_readings_)[:, None]) % n_classes
        answers = []
        for logits in self._ask(X, self.model_.predict):
            of_numbers = logits[..., :n_classes].softmax(dim=-1).mean(dim=1)  # (n_readings, n_rows, n_classes)
            answers.append(of_numbers.gather(2, numbers[:, None].expand_as(of_numbers)).mean(dim=0))
        return torch.cat(answers).numpy()

    def predict(self, X) -> np.ndarray:
        """Return the most probable label, `(n_queries,)`, at every row of X `(n_queries, n_features)`."""
        check_is_fitted(self)
        return self.classes_[self.predict_proba(X).argmax(axis=1)]

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.classifier_tags.poor_score = True  # how well it does depends on the model, which may be any
        return tags


__all__ = ["InContextClassifier", "InContextRegressor"]
