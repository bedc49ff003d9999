"""What a card shows of a model of several tasks: each of them, and the model beside those of one task each."""

from typing import Any

from modeling_looped_gpt2 import LoopedGPT2ForInContextRegression
from scripts.evaluation.component_table import component_table
from scripts.release.files import ReleaseError
from scripts.release.markdown import number, table
from scripts.release.record import Record


def mixture_values(record: Record) -> dict[str, Any]:
    """The variables of model_cards/tasks/mixture.md."""
    metrics, comparison = record.metrics, record.comparison
    if comparison and comparison.settings["weights_sha256"] != metrics.settings.weights_sha256:
        raise ReleaseError(
            "the model was compared with others by other weights than metrics.json was measured on: run "
            "scripts/compare_specialists.py."
        )
    heads, rows = component_table(metrics)
    return {
        "n_components": len(metrics.components),
        "is_estimator": record.objective.model_class is LoopedGPT2ForInContextRegression,
        "component_table": table(
            heads, metrics.settings.places, {name: map(number, values) for name, values in rows.items()}
        ),
        "comparison": comparison,
    }
