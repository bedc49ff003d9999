"""How far an in-context model knows what it does not know: what its probabilities and its quantiles are worth."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from modeling_looped_gpt2 import LoopedGPT2ForInContextClassification, LoopedGPT2ForInContextRegression
from scripts.evaluation.predictions import Answers
from scripts.suite.metrics import calibration_error
from tasks import Task
from tasks.common import Prompts


COVERAGE = "coverage of the 90% interval"


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


def is_covered(quantiles: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Which `labels` `(...)` are in the 90% interval of quantiles `(..., K)` at the levels (k + 0.5) / K."""
    low, high = np.quantile(quantiles, (0.05, 0.95), axis=-1, method="hazen")  # of these levels
    return (low <= labels) & (labels <= high)


def quantile_figures(quantiles: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """The figures of quantiles `(N, K)` of answers `labels` `(N,)`."""
    return {COVERAGE: float(is_covered(quantiles, labels).mean())}


MEASURES = {
    LoopedGPT2ForInContextClassification: Measure("logits", "num_labels", class_figures),
    LoopedGPT2ForInContextRegression: Measure("quantiles", "n_quantiles", quantile_figures),
}


def measure_certainty(answers: Answers, task: Task, parts: Sequence[Prompts], n_loops: int) -> dict[str, Any]:
    """
    Return the fields of the record on what an in-context model says of its own certainty.

    They are `certainty`, over all answers together: of a model of classes its log loss in nats and the expected
    calibration error of its likeliest class, of one of quantiles the share of answers in its 90% interval. Of a model
    of quantiles whose prompts are of one shape also that share at every place, `coverage_by_example`. Nothing of a
    model that answers with values alone, or that answers no in-context prompts.
    """
    measure = MEASURES.get(answers.objective.model_class)
    if measure is None or not getattr(answers.model.config, measure.n_numbers):
        return {}
    told = answers.fields(measure.field, parts, n_loops)
    labels = [prompts["labels"].numpy() for prompts in parts]
    all_told = np.concatenate([values.reshape(-1, values.shape[-1]) for values in told])
    fields = {"certainty": measure.figures(all_told, np.concatenate([values.ravel() for values in labels]))}
    if answers.model.config.n_quantiles and not task.has_queries:
        covered = is_covered(np.concatenate(told), np.concatenate(labels))
        fields["coverage_by_example"] = covered.mean(axis=0).tolist()
    return fields
