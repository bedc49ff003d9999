"""How far a model of tables knows what it does not know: what its probabilities and its quantiles are worth."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from modeling_looped_gpt2 import LoopedGPT2ForInContextClassification, LoopedGPT2ForInContextRegression
from scripts.evaluation.predictions import Answers
from scripts.suite.metrics import calibration_error
from tasks.common import Prompts


class Measure(NamedTuple):
    """The field of `forward`'s output that tells how certain an answer is, by so many numbers, and its figures."""

    field: str
    n_numbers: str  # a field of the configuration
    figures: Callable[[np.ndarray, np.ndarray], dict[str, float]]


def class_figures(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """The figures of logits `(N, C)` of the classes `labels` `(N,)`."""
    logits = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    log_probabilities = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return {
        "log loss": float(-log_probabilities[np.arange(len(labels)), labels].mean()),
        "expected calibration error": calibration_error(labels, np.exp(log_probabilities)),
    }


def quantile_figures(quantiles: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """The share of `labels` `(N,)` in the 90% interval of quantiles `(N, K)` at the levels (k + 0.5) / K."""
    n_levels = quantiles.shape[1]
    places = np.array([0.05, 0.95]) * n_levels - 0.5
    below = np.floor(places).astype(int).clip(0, max(n_levels - 2, 0))
    above = np.minimum(below + 1, n_levels - 1)
    low, high = (quantiles[:, below] + (places - below).clip(0, 1) * (quantiles[:, above] - quantiles[:, below])).T
    return {"coverage of the 90% interval": float(((low <= labels) & (labels <= high)).mean())}


MEASURES = {
    LoopedGPT2ForInContextClassification: Measure("logits", "num_labels", class_figures),
    LoopedGPT2ForInContextRegression: Measure("quantiles", "n_quantiles", quantile_figures),
}


def measure_certainty(answers: Answers, parts: Sequence[Prompts], n_loops: int) -> dict[str, float]:
    """
    Measure a model at all queries of tables together.

    Returns:
        Of a model of classes its log loss in nats and the expected calibration error of its likeliest class, of one of
        quantiles the share of answers in its 90% interval; of a model that answers with values alone nothing.
    """
    measure = MEASURES[type(answers.model)]
    if not getattr(answers.model.config, measure.n_numbers):
        return {}
    told = answers.fields(measure.field, parts, n_loops)
    told = np.concatenate([values.reshape(-1, values.shape[-1]) for values in told])
    labels = np.concatenate([prompts["labels"].numpy().ravel() for prompts in parts])
    return measure.figures(told, labels)
