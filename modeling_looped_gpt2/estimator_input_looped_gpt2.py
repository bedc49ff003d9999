"""How the estimators read numbers out of any container, and standardise them."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch

from .estimator_columns_looped_gpt2 import is_frame


class Standardizer:
    """
    Standardises columns of numbers, of any size, and undoes it.

    A power of two brings each column near 1 first. That is exact, and no sum of huge numbers overflows then and no
    spread of tiny ones vanishes.

    Args:
        values (`np.ndarray` of shape `(n_examples, ...)`):
            Float64; NaN is a missing value and not counted. A column whose standard deviation is round-off, 1e-12 of
            its largest value, is constant, and so is one without values.
    """

    def __init__(self, values: np.ndarray):
        is_known = ~np.isnan(values)
        values = np.where(is_known.any(axis=0), values, 0)
        self.exponent = np.frexp(np.nanmax(np.abs(values), axis=0))[1]
        values = np.ldexp(values, -self.exponent)
        first = np.take_along_axis(values, is_known.argmax(axis=0)[None], axis=0)[0]
        self.mean = first + np.nanmean(values - first, axis=0)  # exact where all values are equal
        std = np.nanstd(values, axis=0)
        self.std = np.where(std > 1e-12, std, 0.0)

    def transform(self, values: np.ndarray) -> np.ndarray:
        """Deviations from the mean in standard deviations, 0 in a column that was constant; NaN stays."""
        with np.errstate(over="ignore"):  # infinitely far from all examples
            deviations = np.ldexp(values, -self.exponent) - self.mean
            constant = np.where(np.isnan(deviations), np.nan, 0.0)
            return np.divide(deviations, self.std, out=constant, where=self.std > 0)

    def inverse_transform(self, deviations: np.ndarray) -> np.ndarray:
        """Values of these deviations, infinite beyond the range of float64."""
        return self.inverse_scale(deviations, self.mean)

    def inverse_scale(self, deviations: np.ndarray, mean: float = 0.0) -> np.ndarray:
        """Differences of values whose deviations differ by so much."""
        with np.errstate(over="ignore"):
            return np.ldexp(deviations * self.std + mean, self.exponent)


def unpack(name: str, values: Any) -> Any:
    """Numbers in a container that scikit-learn reads, from one that it would misread; `name` is X or y in errors."""
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        return values.double().numpy() if values.is_floating_point() else values.numpy()  # numpy has no bfloat16
    if hasattr(values, "to_pandas"):  # of pyarrow, datasets or polars
        values = values.to_pandas()
    if np.ma.is_masked(values):
        raise ValueError(f"{name} must not be masked: drop or impute the masked values.")
    return values


def unpack_features(X: Any) -> Any:
    """As `unpack`; refuses an array of dates, and tells columns of one name apart: "a", "a.1"."""
    X = unpack("X", X)
    if is_frame(X) and not X.columns.is_unique:
        X = X.set_axis(_told_apart(map(str, X.columns)), axis=1)
    if getattr(getattr(X, "dtype", None), "kind", None) in ("m", "M"):
        raise ValueError(f"X must be numbers, got {X.dtype}: count days or seconds.")
    return X


def _told_apart(names: Iterable[str]) -> list[str]:
    unique, counts = {}, Counter()
    for name in names:
        told = name
        while told in unique:
            counts[name] += 1
            told = f"{name}.{counts[name]}"
        unique[told] = None
    return list(unique)


def unpack_target(y: Any, takes_text: bool) -> Any:
    """
    As `unpack`, for labels where it takes text.

    Raises:
        `ValueError`: a value is missing, or there is text where none may be, or text beside other values.
    """
    y = unpack("y", y)
    if not (isinstance(y, list | tuple) or hasattr(y, "isna") or getattr(y, "dtype", None) == np.object_):
        return y
    values = np.asarray(y, dtype=object).ravel()
    n_missing = int(np.sum(y.isna())) if hasattr(y, "isna") else sum(map(_is_missing, values))
    if n_missing:
        raise ValueError(f"Input y contains NaN or other missing values, {n_missing} of them: leave those rows out.")
    text = [isinstance(value, str) for value in values]
    if any(text) and not takes_text:
        raise ValueError("y must be numbers, got text: InContextClassifier takes labels.")
    if any(text) and not all(text):
        raise ValueError("y must be text or numbers, got both: convert it, e.g. by `y.astype(str)`.")
    return y


def _is_missing(value: Any) -> bool:
    if value is None:
        return True
    try:
        return np.ndim(value) == 0 and bool(value != value)
    except TypeError:  # pandas.NA is neither equal nor unequal to itself
        return True
