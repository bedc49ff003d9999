"""The study of tables: looped models beside untied ones, and rows as tokens beside cells, judged by real tables."""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from modeling_looped_gpt2.estimator_looped_gpt2 import InContextClassifier
from scripts.common.records import read_recipe, write_atomically
from scripts.studies.grid import SEEDS, Fields, Grid
from scripts.studies.mechanisms import untied
from scripts.studies.study_run import StudyRun
from scripts.studies.variants import RECIPES
from scripts.suite.measuring import measure
from scripts.suite.splits import N_SPLITS, training_size
from scripts.suite.tables import list_suite
from scripts.training.cost import training_flops


SMALL_STEPS = 1200
N_ROWS = 200  # for training, of a real table
MEASURED = ("auc", "accuracy", "log_loss", "calibration_error")
HEADINGS = ("model", "AUC", "accuracy", "log loss", "calibration error", "seeds", "parameters", "steps", "TFLOP")
Figures = dict[str, Any]


class Variant(NamedTuple):
    """
    A model of tables.

    Args:
        title (`str`):
            What the table calls it.
        fields (`dict`):
            The fields of the recipe that it changes; `None` is the field's default.
        is_as_costly (`bool`, defaults to `False`):
            Whether it is trained for the operations of the looped model instead of its steps.
    """

    title: str
    fields: Fields
    is_as_costly: bool = False


VARIANTS = {
    "looped": Variant("two blocks, six loops", {}),
    "one_block": Variant("one block, six loops", {"n_layer": 1}),
    "six_layers": Variant("six layers", untied(6) | {"loop_window": None}),
    "three_layers": Variant("three layers", untied(3) | {"loop_window": None}),
    "cells": Variant("two blocks, six loops, of cells", {"example_order": "cells", "n_dims": None}, is_as_costly=True),
}


class TableGrid(Grid):
    """The study: a cell `variant/seed` each, by tables_classification.yaml; of a tenth of its steps unless `full`."""

    cells = tuple(f"{variant}/{seed}" for seed in SEEDS for variant in VARIANTS)
    files = tuple(VARIANTS)

    def __init__(self, output_dir: Path, full: bool, max_steps: int | None, more: Sequence[str]):
        super().__init__(output_dir, full, max_steps or (None if full else SMALL_STEPS), more)

    @cache  # noqa: B019
    def base(self) -> Fields:
        """The fields of the looped model."""
        return self.resolved(read_recipe(RECIPES / "tables_classification.yaml"))

    @cache  # noqa: B019
    def fields(self, name: str) -> Fields:
        """The fields of a variant."""
        base, variant = self.base(), VARIANTS[name]
        fields = base | variant.fields
        return self.as_costly(fields, base) if variant.is_as_costly else fields


def measure_tables(run: StudyRun, device: torch.device) -> Figures:
    """
    The figures of a trained cell.

    Returns:
        `dict`: the means of `MEASURED` over the tables of the suite that are to look at, `"n_parameters"`, and
        `"n_steps"` and `"flops"` of the training.
    """
    model, arguments = run.load_model(device), run.arguments
    estimator = InContextClassifier(model, random_state=0, verbose=False)
    tables = []
    for table in list_suite("classification", "development"):
        columns, answers = table.load()
        n_train = training_size(len(answers), N_ROWS)
        splits = [measure(table, estimator, columns, answers, n_train, number) for number in range(N_SPLITS)]
        tables.append({name: np.mean([split[name] for split in splits]) for name in MEASURED})
    return {
        **{name: float(np.mean([table[name] for table in tables])) for name in MEASURED},
        "n_parameters": model.num_parameters(),
        "n_steps": arguments.optimization.max_steps,
        "flops": training_flops(arguments),
    }


def write_tables(cells: Mapping[str, Figures], output_dir: Path):
    """Write the table of all figures that are there, `study.md`."""
    lines = [HEADINGS, ["---"] * len(HEADINGS)]
    for name, variant in VARIANTS.items():
        seeds = [cells[f"{name}/{seed}"] for seed in SEEDS if f"{name}/{seed}" in cells]
        if seeds:
            lines.append([variant.title, *(spread([figures[key] for figures in seeds]) for key in MEASURED)])
            lines[-1] += [f"{len(seeds)} of {len(SEEDS)}", f"{seeds[0]['n_parameters']:,}"]
            lines[-1] += [f"{seeds[0]['n_steps']:,}", f"{seeds[0]['flops'] / 1e12:.3g}"]
    write_atomically(output_dir / "study.md", "".join(f"| {' | '.join(line)} |\n" for line in lines))


def spread(values: Sequence[float]) -> str:
    """The mean with the least and the greatest."""
    return f"{np.mean(values):.4f} ({min(values):.4f} to {max(values):.4f})"
