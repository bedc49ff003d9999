"""The tables of all released checkpoints: errors beside limit, solver and the paper's models, and what they cost."""

from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from modeling_looped_gpt2 import LoopedGPT2ForInContextRegression
from scripts.common.records import ENVIRONMENT_FILE, LOG_FILE, METRICS_FILE, SPECIALISTS_FILE
from scripts.evaluation.component_table import coverage_table
from scripts.evaluation.metrics_record import Metrics
from scripts.release.markdown import number
from scripts.specialists.record import Comparison
from scripts.training.cost import training_flops
from scripts.training.prompt_arguments import Arguments, parse_arguments
from scripts.training.recorded_cost import recorded_cost
from tasks import TASKS, FunctionClass, make_task


ROOT = Path(__file__).parents[2]
ERRORS = ("limit", "best classical solver", "paper, 12 layers", "paper, looped", "this project")
MODELS = ("paper, 12 layers", "paper, looped", "this project")


def error_cells(metrics: Metrics, published: dict[str, dict[str, list[float]]], examples: list[int]) -> list[str]:
    """Mean errors over these numbers of examples, in the order of `ERRORS`, the lowest of a learned model in bold."""
    curves = metrics.error_by_example
    means = {name: fmean(curve.error[n] for n in examples) for name, curve in curves.items()}
    solver = min((name for name in means if name != "model"), key=means.__getitem__)
    standard_, looped = (
        fmean(published[f"{kind} transformer"]["error"][n] for n in examples) for kind in ("standard", "looped")
    )
    limit = fmean(metrics.limit.error[n] for n in examples)
    learned = (standard_, looped, means["model"])
    cells = [f"**{number(error)}**" if error == min(learned) else number(error) for error in learned]
    return [number(limit), f"{number(means[solver])}, {solver}", *cells]


def paper_recipe(task: str, **overrides: Any) -> Arguments:
    """The arguments of the paper's run for a function class."""
    recipe = ROOT / "scripts" / "recipes" / f"{task}_paper.yaml"
    flags = [word for name, value in overrides.items() for word in (f"--{name}", str(value))]
    return parse_arguments(["--recipe", str(recipe), "--output_dir", "unused", *flags])


def cost_cells(folder: Path, task: str, n_parameters: int) -> list[str]:
    """Parameters and operations, in the order of `MODELS`; the last are of the model in `folder`."""
    runs = [paper_recipe(task, n_layer=12, n_loops=1, n_loops_start=1, loop_window=1), paper_recipe(task)]
    cells = []
    for run in runs:
        with torch.device("meta"):
            parameters = LoopedGPT2ForInContextRegression(run.config).num_parameters()
        cells.append(f"{parameters / 1e6:.2f} M, {training_flops(run):.1e}")
    cost = recorded_cost(str(folder))
    if cost is None:
        raise ValueError(f"{folder} holds no {ENVIRONMENT_FILE} and {LOG_FILE}: run scripts/train.py first.")
    return [*cells, f"**{n_parameters / 1e6:.2f} M, {cost['flops']:.1e}**"]


def markdown_table(heads: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def headline(cards: Path) -> str:
    """
    The two tables of the checkpoints below `cards`: errors, and what they took.

    Raises:
        `ValueError`: a record is missing, damaged or of another size than the paper's models.
    """
    errors, costs = [], []
    for task, kind in TASKS.items():
        columns, folder = kind.headline_places if issubclass(kind, FunctionClass) else None, cards / task
        if not (columns and folder.exists()):
            continue
        metrics, name = Metrics.read(folder / METRICS_FILE), task.replace("_", " ")
        try:
            published = make_task(task, n_dims=metrics.settings.n_dims).published
            errors += [[name, key, *error_cells(metrics, published, places)] for key, places in columns.items()]
        except (AttributeError, LookupError, ValueError) as error:
            raise ValueError(
                f"{folder / METRICS_FILE} has no error or limit to show beside the paper's ({error!r}): it must be of "
                f"{task} in 20 dimensions, with a solver and {1 + max(max(columns.values()))} points."
            ) from None
        costs.append([name, *cost_cells(folder, task, metrics.settings.n_parameters)])
    return markdown_table(["", "examples", *ERRORS], errors) + "\n\n" + markdown_table(["", *MODELS], costs)


def specialist_tables(cards: Path) -> Iterator[str]:
    """
    Yield the tables of every release that was compared with models of one class each: of errors, with how often it is
    ahead, and of the answers in its 90% intervals, by class and number of examples.

    Raises:
        `ValueError`: a record is missing or damaged.
    """
    for path in sorted(cards.glob(f"*/{SPECIALISTS_FILE}")):
        comparison, metrics = Comparison.read(path), Metrics.read(path.with_name(METRICS_FILE))
        yield f"{comparison.table}\n\n{comparison.summary}"
        if metrics.components:
            heads, rows = coverage_table(metrics)
            yield markdown_table(
                ["in the 90% interval", *heads], [[name, *map(number, shares)] for name, shares in rows.items()]
            )
