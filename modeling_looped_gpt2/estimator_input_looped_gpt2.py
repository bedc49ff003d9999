"""How the estimators check and standardise numbers, in any container, before a model sees them."""

from typing import Any

import numpy as np
import torch


# a feature is clipped at so many standard deviations: of the standard normal numbers that the models are trained on,
# one in 1.7 million lies beyond
MAX_DEVIATION = 5.0
# a feature further away than so many is unlike the examples and counts as 0: at most one value in 400 lies beyond,
# whatever the distribution (Chebyshev)
UNLIKE_DEVIATION = 20.0


class Standardizer:
    """
    Standardises columns of finite numbers, of any size, and undoes it.

    A power of two brings each column near 1 first. That is exact, and no sum of huge numbers overflows then and no
    spread of tiny ones vanishes.

    Args:
        values (`np.ndarray` of shape `(n_examples, ...)`):
            Float64. A column whose standard deviation is round-off, 1e-12 of its largest value, is constant.
    """

    def __init__(self, values: np.ndarray):
        self.exponent = np.frexp(np.abs(values).max(axis=0))[1]
        values = np.ldexp(values, -self.exponent)
        self.mean = values[0] + (values - values[0]).mean(axis=0)  # exact where all values are equal
        std = values.std(axis=0)
        self.std = np.where(std > 1e-12, std, 0.0)

    def transform(self, values: np.ndarray) -> np.ndarray:
        """Deviations from the mean in standard deviations, 0 in a column that was constant."""
        with np.errstate(over="ignore"):  # infinitely far from all examples
            deviations = np.ldexp(values, -self.exponent) - self.mean
            return np.divide(deviations, self.std, out=np.zeros_like(deviations), where=self.std > 0)

    def inverse_transform(self, deviations: np.ndarray) -> np.ndarray:
        """Values of these deviations, infinite beyond the range of float64."""
        with np.errstate(over="ignore"):
            return np.ldexp(deviations * self.std + self.mean, self.exponent)


def bound_deviations(deviations: np.ndarray) -> np.ndarray:
    """Deviations as a model is to see them: far ones count as `MAX_DEVIATION`, those unlike all examples as 0."""
    return np.where(np.abs(deviations) > UNLIKE_DEVIATION, 0, deviations.clip(-MAX_DEVIATION, MAX_DEVIATION))


def unpack(name: str, values: Any) -> Any:
    """Numbers in a container that scikit-learn reads, from one that it would misread; `name` is X or y in errors."""
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        return values.double().numpy() if values.is_floating_point() else values.numpy()  # numpy has no bfloat16
    if hasattr(values, "to_pandas") and not hasattr(values, "to_numpy"):  # of pyarrow or datasets
        values = values.to_pandas()
    if np.ma.is_masked(values):
        raise ValueError(f"{name} must not be masked: drop or impute the masked values.")
    return values


def unpack_features(X: Any) -> Any:
    """As `unpack`; refuses dates, and names the columns of a frame that are at fault."""
    X = unpack("X", X)
    if getattr(getattr(X, "dtype", None), "kind", None) in ("m", "M"):
        raise ValueError(f"X must be numbers, got {X.dtype}: count days or seconds.")
    if hasattr(X, "iloc") and hasattr(X, "columns"):
        _check_columns(X)
    return X


def _check_columns(frame: Any):
    """Refuse a pandas frame with columns that are not numeric or have missing values."""
    no_numbers = [column for column, values in frame.items() if not _is_numeric(values)]
    if no_numbers:
        raise ValueError(
            f"X must be numbers, got text, categories, dates or the like in the columns {no_numbers}: encode them, "
            "e.g. with sklearn.preprocessing.OneHotEncoder in a sklearn.compose.ColumnTransformer."
        )
    missing = [column for column, values in frame.items() if values.isna().any()]
    if missing:
        raise ValueError(
            f"X must not contain NaN or missing values, got some in the columns {missing}: drop those rows, or impute "
            "them, e.g. with sklearn.impute.SimpleImputer in a sklearn.pipeline.Pipeline."
        )


def _is_numeric(column: Any) -> bool:
    if column.dtype.kind in "biufmMc":
        return column.dtype.kind in "biuf"
    try:  # objects such as Decimal, categories that are numbers
        np.asarray(column.dropna(), dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        return False
    return True
