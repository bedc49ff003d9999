"""Error against compute over the stages of a training, for the card of its model."""

import math
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from scripts.common.records import ENVIRONMENT_FILE, METRICS_FILE, RecordError, read_json
from scripts.evaluation.metrics_record import Curve, Metrics, Settings
from scripts.training.recorded_cost import total_flops


PROMPTS = ("task", "n_dims", "n_points", "n_prompts", "seed")  # the settings that decide the prompts
PLACES = {"first_place": 0, "place_step": 1}  # and those that older records lack, with what they are there


def prompt_settings(settings: Settings) -> dict[str, Any]:
    """Return those settings of an evaluation that decide its prompts."""
    places = {name: value for name, default in PLACES.items() if (value := getattr(settings, name)) != default}
    return {name: getattr(settings, name) for name in PROMPTS} | places


def read_stage(folder: Path) -> dict[str, Any]:
    """
    Read what a stage reached.

    Args:
        folder (`Path`):
            The folder of its model, evaluated.

    Returns:
        `dict`: `flops` (`float`), operations of this stage and all before it; `error` (`list[float]`), the errors at
        the places 0, 1, ... of the score; `prompts` (`dict`), the settings that decide the prompts.

    Raises:
        [`RecordError`]: a record is missing or not what its program writes.
    """
    metrics, environment = Metrics.read(folder / METRICS_FILE), folder / ENVIRONMENT_FILE
    try:
        flops = float(total_flops(read_json(environment)))
    except (LookupError, TypeError, OverflowError) as error:
        raise RecordError(f"{environment} is not what scripts/train.py writes ({error!r}): train again.") from None
    if not 0 < flops < math.inf:
        raise RecordError(f"`flops` in {environment} must be > 0 and finite, got {flops}.")
    return {
        "flops": flops,
        "error": metrics.error_by_example["model"].error,
        "prompts": prompt_settings(metrics.settings),
    }


def read_stages(model: Path, others: list[Path]) -> list[dict[str, Any]]:
    """
    Read what the stages `others` before and after `model` reached, in the order of their operations.

    Raises:
        `ValueError`: a record is missing or damaged, was measured on other prompts, or has as many operations as the
            model.
    """
    own, stages = read_stage(model), []
    for folder in others:
        stage = read_stage(folder)
        if stage["prompts"] != own["prompts"]:
            raise ValueError(
                f"{folder} was evaluated on other prompts, {stage['prompts']}, than {model}, {own['prompts']}: run "
                "scripts/evaluate.py on it with the same flags."
            )
        if stage["flops"] == own["flops"]:
            raise ValueError(
                f"`others` must be stages before or after {model}; {folder} took as many operations, "
                f"{own['flops']:.3g}."
            )
        stages.append(stage)
    return sorted(stages, key=lambda stage: stage["flops"])


def extrapolated_flops(before: tuple[float, float], after: tuple[float, float], target: float) -> float | None:
    """
    Return the operations at which the error would be `target` by the power law through two stages.

    Args:
        before (`tuple[float, float]`), after (`tuple[float, float]`):
            Operations and error of the last two stages.
        target (`float`):
            An error below that of the last stage.

    Returns:
        `float`, infinite where it would overflow, or `None` where the last stage did not lower the error.
    """
    (flops_before, error_before), (flops, error) = before, after
    if error >= error_before:
        return None
    try:
        exponent = math.log(flops / flops_before) / math.log(error_before / error)
        return flops * (error / target) ** exponent
    except (OverflowError, ZeroDivisionError):  # stages of nearly the same error, or an error of zero to reach
        return math.inf


def shown_columns(numbers: Sequence[int], places: str = "examples") -> dict[str, list[int]]:
    """Return the columns of the table, with the places that each is a mean over: the quarters, the last fifth."""
    last = len(numbers) - 1
    columns = {f"{numbers[n]} {places}": [n] for n in sorted({last // 4, last // 2, 3 * last // 4, last})}
    mean = f"mean over {numbers[4 * last // 5]} to {numbers[last]}"
    return columns | {mean: list(range(4 * last // 5, last + 1))}


def stage_table(
    model: dict[str, Any], others: list[dict[str, Any]], published: dict[str, Curve], settings: Settings
) -> dict[str, Any]:
    """
    Return what the card shows of the stages.

    Args:
        model (`dict`):
            `flops` and `error` of the card's own model.
        others (`list[dict]`):
            `flops` and `error` of the other stages, before and after it.
        published (`dict[str, Curve]`):
            The published curves of the class, by name.
        settings ([`Settings`]):
            Those of the evaluation, which say what the places of the score count.

    Returns:
        `dict`: `columns` (`list[str]`); `rows`, `flops`, `errors` and `is_model` of every stage, in the order of their
        operations; and where there are published curves `target`, the errors of the published looped model, and
        `needed`, the operations to reach each: extrapolated, or those of the last stage where that has reached it, or
        `None`.
    """
    columns = shown_columns(settings.place_numbers, settings.places)

    def means(errors: list[float]) -> list[float]:
        return [fmean(errors[place] for place in shown) for shown in columns.values()]

    rows = [
        {"flops": stage["flops"], "errors": means(stage["error"]), "is_model": stage is model}
        for stage in sorted([model, *others], key=lambda stage: stage["flops"])
    ]
    table = {"columns": list(columns), "rows": rows}
    looped = published["looped transformer"].error if "looped transformer" in published else []
    if others and len(looped) == len(model["error"]):  # a published curve may end earlier
        before, after = rows[-2:]
        table["target"] = means(looped)
        table["needed"] = [
            after["flops"]
            if last <= target
            else extrapolated_flops((before["flops"], first), (after["flops"], last), target)
            for first, last, target in zip(before["errors"], after["errors"], table["target"], strict=True)
        ]
    return table
