"""Print the table of all released checkpoints: their errors beside the limit, a solver and the paper's models.

    python scripts/headline.py

Every number comes from the records in `model_cards/<function class>/`, from the published values of
`tasks/published.json` and, for parameters and floating-point operations of the paper's models, from
`scripts/recipes/<function class>_paper.yaml`.
"""

import json
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from modeling_looped_gpt2 import LoopedGPT2ForInContextRegression
from scripts.arguments import Arguments, parse_arguments
from scripts.model_card import number
from scripts.training_cost import recorded_cost, training_flops
from tasks.published import published_curves


ROOT = Path(__file__).parents[1]
# the figures that the paper reports: examples, and how they are named
FIGURES = {
    "linear_regression": {"20": [20], "40": [40]},
    "sparse_linear_regression": {"10": [10], "40": [40]},
    "relu_2nn_regression": {"80 to 100": list(range(80, 101))},
    "decision_tree": {"80 to 100": list(range(80, 101))},
}
ERRORS = ("limit", "best classical solver", "paper, 12 layers", "paper, looped", "this project")
MODELS = ("paper, 12 layers", "paper, looped", "this project")


def error_cells(metrics: dict[str, Any], task: str, examples: list[int]) -> list[str]:
    """Mean errors over these numbers of examples, in the order of `ERRORS`, the lowest of a learned model in bold."""
    curves = metrics["error_by_example"]
    means = {name: fmean(curve["error"][n] for n in examples) for name, curve in curves.items()}
    solver = min((name for name in means if name != "model"), key=means.__getitem__)
    published = published_curves(task, metrics["settings"]["n_dims"])
    standard_, looped = (
        fmean(published[f"{kind} transformer"]["error"][n] for n in examples) for kind in ("standard", "looped")
    )
    limit = fmean(metrics["limit"]["error"][n] for n in examples)
    learned = (standard_, looped, means["model"])
    cells = [f"**{number(error)}**" if error == min(learned) else number(error) for error in learned]
    return [number(limit), f"{number(means[solver])}, {solver}", *cells]


def paper_recipe(task: str, **overrides: Any) -> Arguments:
    """The paper's run for a function class."""
    recipe = ROOT / "scripts" / "recipes" / f"{task}_paper.yaml"
    flags = [word for name, value in overrides.items() for word in (f"--{name}", str(value))]
    return parse_arguments(["--recipe", str(recipe), "--output_dir", "unused", *flags])


def cost_cells(folder: Path, task: str) -> list[str]:
    """Parameters and operations, in the order of `MODELS`."""
    runs = [paper_recipe(task, n_layer=12, n_loops=1, n_loops_start=1, loop_window=1), paper_recipe(task)]
    cells = []
    for run in runs:
        with torch.device("meta"):
            parameters = LoopedGPT2ForInContextRegression(run.config).num_parameters()
        cells.append(f"{parameters / 1e6:.2f} M, {training_flops(run):.1e}")
    metrics = json.loads((folder / "metrics.json").read_text())
    cost = recorded_cost(str(folder))
    return [*cells, f"**{metrics['settings']['n_parameters'] / 1e6:.2f} M, {cost['flops']:.1e}**"]


def table(heads: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def headline(cards: Path) -> str:
    """The two tables of the checkpoints below `cards`: errors, and what they took."""
    errors, costs = [], []
    for task, figures in FIGURES.items():
        folder = cards / task
        if not folder.exists():
            continue
        metrics, name = json.loads((folder / "metrics.json").read_text()), task.replace("_", " ")
        errors += [[name, key, *error_cells(metrics, task, examples)] for key, examples in figures.items()]
        costs.append([name, *cost_cells(folder, task)])
    return table(["", "examples", *ERRORS], errors) + "\n\n" + table(["", *MODELS], costs)


def main():
    """Print the tables."""
    print(headline(ROOT / "model_cards"))


if __name__ == "__main__":
    main()
