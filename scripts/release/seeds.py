"""What the same training reached with other seeds, for the card of a model."""

from pathlib import Path
from typing import Any

from scripts.common.records import METRICS_FILE, RECIPE_FILE, read_yaml
from scripts.evaluation.metrics_record import Metrics
from scripts.release.stages import prompt_settings


OWN = {"seed", "output_dir"}  # the fields of a recipe that may differ


def differing_fields(first: dict[str, Any], second: dict[str, Any]) -> list[str]:
    """The fields in which two recipes differ but for the seed and the folder."""
    return sorted(name for name in {*first, *second} - OWN if first.get(name) != second.get(name))


def read_seed(folder: Path) -> dict[str, Any]:
    """
    Read what a training reached.

    Args:
        folder (`Path`):
            The folder of its model, evaluated.

    Returns:
        `dict`: `recipe` (`dict`); `errors` (`dict[str, list[float]]`), the errors at the places of the score by what
        ends the loops of a prompt, or of `"model"` alone; `prompts` (`dict`), the settings that decide the prompts.

    Raises:
        [`RecordError`]: a record is missing or not what its program writes.
    """
    metrics = Metrics.read(folder / METRICS_FILE)
    curves = {rule: stopped.errors for rule, stopped in metrics.stops.items()}
    curves = curves or {"model": metrics.error_by_example["model"]}
    return {
        "recipe": read_yaml(folder / RECIPE_FILE),
        "errors": {name: curve.error for name, curve in curves.items()},
        "prompts": prompt_settings(metrics.settings),
    }


def read_seeds(model: Path, others: list[Path]) -> list[dict[str, Any]]:
    """
    Read what the recipe of `model` reached with other seeds, in the order of these.

    Raises:
        `ValueError`: a record is missing or damaged, was measured on other prompts, or is of another recipe or of a
            seed that is there already.
    """
    own, seeds = read_seed(model), {}
    for folder in others:
        other = read_seed(folder)
        if other["prompts"] != own["prompts"]:
            raise ValueError(
                f"{folder} was evaluated on other prompts, {other['prompts']}, than {model}, {own['prompts']}: run "
                "scripts/evaluate.py on it with the same flags."
            )
        if differing := differing_fields(own["recipe"], other["recipe"]):
            name, *_ = differing
            values = (each["recipe"].get(name) for each in (other, own))
            raise ValueError(f"`{name}` of {folder} must be that of {model}, got {' and '.join(map(repr, values))}.")
        seed = other["recipe"]["seed"]
        if seed in seeds or seed == own["recipe"]["seed"]:
            raise ValueError(f"`others` must be of different seeds, got {seed} again in {folder}.")
        seeds[seed] = other
    return [seeds[seed] for seed in sorted(seeds)]
