"""Errors of predictions and their uncertainty, as plain functions of numpy arrays."""

import numpy as np


def normalised_squared_error(predictions: np.ndarray, labels: np.ndarray, normaliser: float) -> np.ndarray:
    """
    Squared error of every prediction divided by the function class's normaliser, so that predicting 0 gives 1.

    Args:
        predictions, labels (`np.ndarray` of equal shape):
            In units of y.
        normaliser (`float`):
            Mean squared label of the function class, > 0, in units of y² (`FunctionClass.normaliser`).

    Returns:
        `np.ndarray` of the same shape, float64, unitless.

    Raises:
        `ValueError`: shapes differ, nothing is given, a value is not finite or the normaliser is not > 0.
    """
    predictions, labels = _array("predictions", predictions), _array("labels", labels)
    if predictions.shape != labels.shape or predictions.size == 0:
        raise ValueError(
            f"`predictions` and `labels` must have one shape and not be empty, got {predictions.shape} and "
            f"{labels.shape}."
        )
    if not normaliser > 0:
        raise ValueError(f"`normaliser` must be > 0, got {normaliser}.")
    return (predictions - labels) ** 2 / normaliser


def bootstrap_interval(
    values: np.ndarray, confidence: float = 0.9, n_resamples: int = 1000, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """
    Percentile bootstrap interval of the mean over the first axis, resampling whole prompts.

    Args:
        values (`np.ndarray` of shape `(n_prompts, ...)`):
            One value per prompt and place, n_prompts >= 1; NaN where a prompt lacks the place. The mean of a place is
            over the prompts that have it; a resample in which no prompt has it is left out there.
        confidence (`float`, defaults to 0.9):
            Probability inside the interval, in (0, 1); the paper's figures use 0.9 and 1,000 resamples.
        n_resamples (`int`, defaults to 1000), seed (`int`, defaults to 0):
            Number of resamples, and their seed: two calls give the same bits.

    Returns:
        Low and high end, each of shape `values.shape[1:]`.

    Raises:
        `ValueError`: there is no prompt, a place that no prompt has, an infinite value or a setting out of its range.
    """
    values = _array("values", values, may_lack=True)
    if values.ndim == 0 or values.shape[0] == 0:
        raise ValueError(f"`values` must hold at least one prompt, got shape {values.shape}.")
    if not 0 < confidence < 1:
        raise ValueError(f"`confidence` must be in (0, 1), got {confidence}.")
    if n_resamples < 1:
        raise ValueError(f"`n_resamples` must be >= 1, got {n_resamples}.")
    n_prompts, is_there = values.shape[0], ~np.isnan(values)
    if n_empty := int((~is_there.any(axis=0)).sum()):
        raise ValueError(
            f"`values` must have a number at every place, got {n_empty} that no prompt has: draw more prompts "
            "(`n_prompts`)."
        )
    # how often each prompt is drawn in each resample
    counts = np.random.default_rng(seed).multinomial(n_prompts, np.full(n_prompts, 1 / n_prompts), size=n_resamples)
    sums, numbers = (
        counts @ part.reshape(n_prompts, -1).astype(np.float64) for part in (np.where(is_there, values, 0), is_there)
    )
    with np.errstate(invalid="ignore"):  # 0 / 0 where no prompt drawn has the place
        means = (sums / numbers).reshape(n_resamples, *values.shape[1:])
    low, high = np.nanquantile(means, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
    return low, high


def curve_of(errors: np.ndarray) -> dict[str, list[float]]:
    """
    Mean over prompts of errors `(n_prompts, n_places)` with its 90% bootstrap interval.

    A prompt that lacks a place (NaN) is left out of its mean. Raises as [`bootstrap_interval`].

    Returns:
        `dict`: `"error"`, `"low"` and `"high"`, each a list with one number per place.
    """
    low, high = bootstrap_interval(errors)
    return {"error": np.nanmean(errors, axis=0).tolist(), "low": low.tolist(), "high": high.tolist()}


def _array(name: str, values: np.ndarray, may_lack: bool = False) -> np.ndarray:
    try:
        array = np.asarray(values, np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"`{name}` must be numbers, all rows of one length, got something else.") from None
    if may_lack and np.isinf(array).any():
        raise ValueError(f"`{name}` must be finite or NaN, got infinity.")
    if not may_lack and not np.isfinite(array).all():
        raise ValueError(f"`{name}` must be finite, got NaN or infinity.")
    return array
