"""How the estimators show columns of numbers to a model: as points, rows or cells, as it was trained on."""

import numpy as np
import torch
from transformers import PreTrainedConfig

from .estimator_columns_looped_gpt2 import nearest
from .estimator_input_looped_gpt2 import Standardizer
from .example_orders_looped_gpt2 import order_of
from .in_context_looped_gpt2 import LoopedGPT2InContextPreTrainedModel


class ColumnView:
    """
    How a model is shown columns of numbers: standardised by the examples.

    Class attributes:
        max_columns (`int`):
            Most columns.
        max_deviation (`float`):
            A value further from the mean counts as so many standard deviations.
        is_ordered (`bool`, defaults to `False`):
            Whether a model is shown the columns in an order that it was trained on.
    """

    max_columns: int
    max_deviation: float
    is_ordered = False

    def __init__(self, config: PreTrainedConfig):
        pass

    def fit(self, X: np.ndarray, targets: np.ndarray):
        """
        Learn from the examples how to show columns.

        Args:
            X (`np.ndarray` of shape `(n, n_columns)`):
                Numbers of any size, NaN for missing values.
            targets (`np.ndarray` of shape `(n, K)`):
                Orthonormal vectors that y is a sum of, besides a constant.
        """
        self.standardizer = Standardizer(X)

    def show(self, X: np.ndarray) -> torch.Tensor:
        """What the model reads `(n, D)`, float32, of columns `(n, n_columns)`."""
        raise NotImplementedError

    def max_examples(self, model: LoopedGPT2InContextPreTrainedModel, wanted: int) -> int:
        """Most examples of a context: as many as wanted."""
        return wanted

    def asked(self, n_examples: int) -> np.ndarray:
        """Which of >= 2 examples tell after how many loops answers settle: every fifth, for they may be sorted."""
        return np.arange(n_examples)[::5]

    def y_std(self, n_columns: int) -> float:
        """Standard deviation that y is brought to: targets of tables are standardised in training."""
        return 1.0


class PointView(ColumnView):
    """
    How a model that reads points, as functions have them, is shown columns.

    Few are padded with zeros, and a missing value is the mean. Of the standard normal numbers that these models are
    trained on, one in 1.7 million lies beyond 5 standard deviations.

    Class attributes:
        unlike_deviation (`float`):
            A value further than so many standard deviations is unlike the examples and counts as 0: at most one in 400
            lies beyond, whatever the distribution (Chebyshev).
    """

    max_deviation = 5.0
    unlike_deviation = 20.0

    def __init__(self, config: PreTrainedConfig):
        self.max_columns = config.n_dims

    def max_examples(self, model: LoopedGPT2InContextPreTrainedModel, wanted: int) -> int:
        """As many as wanted, and as the model has positions for."""
        return min(wanted, model.max_examples)

    def asked(self, n_examples: int) -> np.ndarray:
        """The last, which a prompt ends with."""
        return np.array([n_examples - 1])

    def y_std(self, n_columns: int) -> float:
        """Standard deviation of linear functions of so many columns with standard normal weights."""
        return n_columns**0.5

    def show(self, X: np.ndarray) -> torch.Tensor:
        """What the model reads `(n, n_dims)`, float32, of columns `(n, n_columns)`."""
        deviations = self.standardizer.transform(X)
        bounded = deviations.clip(-self.max_deviation, self.max_deviation)
        # a missing value compares as false
        return _padded(np.where(np.abs(deviations) <= self.unlike_deviation, bounded, 0), self.max_columns)


class RowView(ColumnView):
    """
    How a model that reads a row of a table at a time is shown columns, as in training.

    It reads the normal scores of the columns, which are the normal quantiles of ranks among the examples, and the
    principal components of their values, those of both nearest to y first. A missing value is the mean.

    Class attributes:
        least_spread (`float`):
            Of a component, as a share of the largest: what is less is round-off.
    """

    max_columns = 100  # for the time and the memory that their components take
    max_deviation = 10.0
    is_ordered = True
    least_spread = 1e-2

    def __init__(self, config: PreTrainedConfig):
        self.n_dims = config.n_dims

    def max_examples(self, model: LoopedGPT2InContextPreTrainedModel, wanted: int) -> int:
        """As many as wanted, and as the model has positions for."""
        return min(wanted, model.max_examples)

    def fit(self, X: np.ndarray, targets: np.ndarray):
        super().fit(X, targets)
        deviations = self._deviations(X)
        self.known = [np.sort(column[~np.isnan(column)]) for column in deviations.T]
        _, spreads, weights = np.linalg.svd(np.nan_to_num(deviations), full_matrices=False)
        weights = weights[spreads > self.least_spread * spreads[0]].T  # (n_columns, n_components)
        largest = np.take_along_axis(weights, np.abs(weights).argmax(axis=0)[None], axis=0)
        self.weights = weights * np.sign(largest)
        numbers = self._numbers(deviations)
        self.number_standardizer = Standardizer(numbers)
        self.kept = nearest(self._standardised(numbers), targets)[: self.n_dims]

    def show(self, X: np.ndarray) -> torch.Tensor:
        """What the model reads `(n, n_dims)`, float32, of columns `(n, n_columns)`."""
        return _padded(self._standardised(self._numbers(self._deviations(X)))[:, self.kept], self.n_dims)

    def _deviations(self, X: np.ndarray) -> np.ndarray:
        return self.standardizer.transform(X).clip(-self.max_deviation, self.max_deviation)

    def _numbers(self, deviations: np.ndarray) -> np.ndarray:
        """Normal scores, NaN for missing values, and principal components `(n, n_columns + n_components)`."""
        scores = [_normal_scores(*columns) for columns in zip(deviations.T, self.known, strict=True)]
        return np.concatenate((np.stack(scores, axis=1), np.nan_to_num(deviations) @ self.weights), axis=1)

    def _standardised(self, numbers: np.ndarray) -> np.ndarray:
        deviations = self.number_standardizer.transform(numbers)
        return np.nan_to_num(deviations).clip(-self.max_deviation, self.max_deviation)


class CellView(ColumnView):
    """How a model of cells is shown columns: as they are, a missing value as NaN."""

    max_columns = 40  # for the time and the memory that each of them takes
    max_deviation = 10.0

    def show(self, X: np.ndarray) -> torch.Tensor:
        """What the model reads `(n, n_columns)`, float32, of columns of this shape."""
        deviations = self.standardizer.transform(X)
        return torch.as_tensor(deviations.clip(-self.max_deviation, self.max_deviation), dtype=torch.float32)


def _normal_scores(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """
    Normal quantiles of the ranks of values `(n,)` among the sorted `known` ones; NaN stays.

    Equal values share the middle of their ranks, and those beyond all others have the rank of the last.
    """
    below, up_to = (np.searchsorted(known, values, side=side) for side in ("left", "right"))
    end = 0.5 / (len(known) + 1)
    share = ((below + up_to + 1) * end).clip(end, 1 - end)
    return np.where(np.isnan(values), np.nan, torch.special.ndtri(torch.as_tensor(share)).numpy())


def _padded(numbers: np.ndarray, n_dims: int) -> torch.Tensor:
    return torch.as_tensor(np.pad(numbers, ((0, 0), (0, n_dims - numbers.shape[1]))), dtype=torch.float32)


def view_of(config: PreTrainedConfig) -> ColumnView:
    """How a model of this configuration is shown columns."""
    order = order_of(config)
    if order.n_columns(config) is None:
        return CellView(config)
    return (RowView if order.is_split else PointView)(config)
