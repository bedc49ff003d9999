import math
from pathlib import Path

import pytest
import torch

from scripts.studies import table_variants
from scripts.studies.study_run import train
from scripts.studies.table_variants import MEASURED, VARIANTS, TableGrid, measure_tables, write_tables
from scripts.suite.tables import list_suite
from scripts.training.cost import training_flops


@pytest.fixture(scope="module")
def grid():
    return TableGrid(Path("out"), full=False, max_steps=3000, more=["--n_embd", "32"])


def test_variants_differ_from_the_looped_model_in_what_they_say(grid):
    fields = {name: grid.run(f"{name}/1").arguments.as_dict() for name in VARIANTS}
    base = fields.pop("looped")
    assert (base["seed"], base["n_embd"], base["n_layer"], base["n_loops"]) == (1, 32, 2, 6)
    changed = {
        name: {field for field, value in variant.items() if value != base[field]} - {"output_dir"}
        for name, variant in fields.items()
    }
    blocks = {"n_layer", "n_loops", "n_loops_min", "loop_window"}
    counted = {"max_steps", "warmup_steps", "decay_steps", "schedules"}
    assert changed == {
        "one_block": {"n_layer"},
        "six_layers": blocks,
        "three_layers": blocks,
        "cells": {"example_order", "n_dims"} | counted,
    }


def test_cells_take_the_operations_of_rows(grid):
    rows, cells = (training_flops(grid.run(f"{name}/0").arguments) for name in ("looped", "cells"))
    assert cells == pytest.approx(rows, rel=0.3)  # the sizes of a few hundred tables are drawn


def test_a_variant_is_judged_by_real_tables(monkeypatch, tmp_path, trainings_of_studies):
    wine = [table for table in list_suite("classification") if table.name == "sklearn/wine"]
    monkeypatch.setattr(table_variants, "list_suite", lambda kind, split: wine)
    monkeypatch.setattr(table_variants, "N_SPLITS", 2)
    run = TableGrid(tmp_path, False, 2, ["--n_embd", "8", "--n_head", "2", "--batch_size", "4"]).run("three_layers/0")
    train(run)
    figures = measure_tables(run, torch.device("cpu"))
    assert (figures["n_steps"], figures["flops"]) == (2, training_flops(run.arguments))
    assert all(0 < figures[name] < 10 for name in MEASURED)
    assert figures["log_loss"] == pytest.approx(math.log(3), rel=0.5)  # it has learned nothing
    write_tables({"three_layers/0": figures, "three_layers/2": figures}, tmp_path)
    lines = (tmp_path / "study.md").read_text().splitlines()
    assert len(lines) == 3
    assert lines[2].startswith("| three layers | ")
    assert " | 2 of 3 | " in lines[2]
