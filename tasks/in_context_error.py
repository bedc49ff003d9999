"""The metrics of [`tasks.metrics`] as an `evaluate` module; the mathematics stays there."""

import datasets
import evaluate

from .metrics import curve_of, normalised_squared_error


class InContextError(evaluate.Metric):
    """
    Normalised squared error by number of in-context examples, with its 90% bootstrap interval over prompts.

    `InContextError().compute(predictions=(B, P), references=(B, P), normaliser=20.0)` returns lists of length P:
    `"error"`, `"low"` and `"high"`; entry n is the error after n examples.
    """

    def _info(self) -> evaluate.MetricInfo:
        row = datasets.List(datasets.Value("float64"))
        return evaluate.MetricInfo(
            description="Squared error of in-context predictions divided by that of predicting 0.",
            citation="Yang et al., Looped Transformers are Better at Learning Learning Algorithms, ICLR 2024",
            inputs_description="predictions and references: one row of values per prompt; normaliser: a number > 0.",
            features=datasets.Features({"predictions": row, "references": row}),
        )

    def _compute(self, predictions: list, references: list, normaliser: float) -> dict[str, list[float]]:
        return curve_of(normalised_squared_error(predictions, references, normaliser))
