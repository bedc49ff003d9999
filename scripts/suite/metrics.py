"""How good probabilities and quantiles are, each as a mapping of names to one number."""

import numpy as np
from sklearn.metrics import log_loss, r2_score, roc_auc_score


LEVELS = np.arange(1, 20) / 20  # of the quantiles; the outer two are the ends of the 90% interval
N_BINS = 10


def class_metrics(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """
    Metrics of probabilities.

    Args:
        labels (`np.ndarray` of shape `(rows,)`):
            Numbers of the classes, each of them there.
        probabilities (`np.ndarray` of shape `(rows, classes)`):
            Their rows sum to 1.

    Returns:
        `auc` (of each class against the rest, their mean), `log_loss`, `accuracy` and `calibration_error`.
    """
    classes = np.arange(probabilities.shape[1])
    of_class = [roc_auc_score(labels == name, probabilities[:, name]) for name in classes]
    return {
        "auc": float(np.mean(of_class)),
        "log_loss": float(log_loss(labels, probabilities, labels=classes)),
        "accuracy": float(np.mean(probabilities.argmax(axis=1) == labels)),
        "calibration_error": calibration_error(labels, probabilities),
    }


def calibration_error(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """The expected calibration error of the likeliest class, over ten bins of its probability of equal width."""
    confidence = probabilities.max(axis=1)
    gap = (probabilities.argmax(axis=1) == labels) - confidence
    bins = np.minimum((confidence * N_BINS).astype(int), N_BINS - 1)
    return float(np.abs(np.bincount(bins, gap, N_BINS)).sum() / len(labels))


def value_metrics(
    labels: np.ndarray, predictions: np.ndarray, quantiles: np.ndarray, deviation: float
) -> dict[str, float]:
    """
    Metrics of predicted values and quantiles.

    Args:
        labels, predictions (`np.ndarray` of shape `(rows,)`):
            In one unit.
        quantiles (`np.ndarray` of shape `(rows, 19)`):
            At [`LEVELS`].
        deviation (`float`):
            Standard deviation of the table's answers, which the pinball loss is divided by.

    Returns:
        `r2`, `pinball` (the mean over rows and levels) and `coverage` (share of answers in the 90% interval).
    """
    excess = labels[:, None] - quantiles
    pinball = np.maximum(LEVELS * excess, (LEVELS - 1) * excess).mean()
    inside = (quantiles[:, 0] <= labels) & (labels <= quantiles[:, -1])
    return {
        "r2": float(r2_score(labels, predictions)),
        "pinball": float(pinball / deviation),
        "coverage": float(inside.mean()),
    }
