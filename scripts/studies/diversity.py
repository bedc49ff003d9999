"""The study of task diversity: how many functions a training must show before a model takes others as well."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib import pyplot as plt

from scripts.common.records import read_recipe, write_atomically
from scripts.evaluation.axes import finish, save
from scripts.studies.grid import SEEDS, Fields, Grid
from scripts.studies.study_run import StudyRun
from scripts.studies.variants import RECIPES
from scripts.training.cost import training_flops
from tasks.baselines.prefixes import Predictor
from tasks.common import Prompts
from tasks.limits.discrete_posterior import predict_discrete_posterior
from tasks.metrics import normalised_squared_error
from tasks.streams import Stream


FUNCTIONS = tuple(4**power for power in range(6))
N_PROMPTS = 512
COLOURS = {"model": "#D55E00", "discrete posterior": "#0072B2", "ridge": "#000000"}
OTHERS = ("discrete posterior", "ridge")
PLACES = ("training functions", "new functions")
HEADINGS = ("functions", *(f"{name}, {place}" for place in PLACES for name in COLOURS))
HEADINGS += (*(f"from {name}" for name in OTHERS), "seeds", "steps", "TFLOP")
Figures = dict[str, Any]


class DiversityGrid(Grid):
    """The study: a cell `functions/seed` each, by diversity.yaml."""

    cells = tuple(f"{functions}/{seed}" for seed in SEEDS for functions in FUNCTIONS)
    files = tuple(map(str, FUNCTIONS))
    full_steps = 20_000

    @cache  # noqa: B019
    def base(self) -> Fields:
        """The fields that all cells share."""
        return self.resolved(read_recipe(RECIPES / "diversity.yaml"))

    def fields(self, name: str) -> Fields:
        """The fields of a number of functions."""
        return self.base() | {"n_distinct_functions": int(name)}


def measure_diversity(run: StudyRun, device: torch.device) -> Figures:
    """
    The figures of a trained cell.

    Returns:
        `dict`: `"error"`, on new points of the training functions and on new functions the mean score over all points
        of `"model"`, `"discrete posterior"` and `"ridge"`; `"distance"`, on new functions the mean square, in the
        units of the score, of what the answers of the model differ by from each of the other two; `"n_steps"` and
        `"flops"` of the training.
    """
    model, task, arguments = run.load_model(device), run.task, run.arguments
    functions = training_functions(arguments.stream)
    discrete = partial(predict_discrete_posterior, functions=functions, noise_std=task.noise_std)
    error = {}
    for place, n_distinct in zip(PLACES, (len(functions), None), strict=True):
        prompts = fresh_prompts(arguments.stream, n_distinct)
        predictions = {
            "model": run.answers(model, prompts),
            "discrete posterior": predict(discrete, prompts),
            "ridge": predict(task.limit.predictor, prompts),
        }
        error[place] = {name: float(task.score(each, prompts).mean()) for name, each in predictions.items()}
    ours = predictions.pop("model")  # on new functions, which come last
    return {
        "error": error,
        "distance": {
            name: float(normalised_squared_error(ours, theirs, task.normaliser).mean())
            for name, theirs in predictions.items()
        },
        "n_steps": arguments.optimization.max_steps,
        "flops": training_flops(arguments),
    }


def training_functions(stream: Stream) -> torch.Tensor:
    """The weights `(M, D)` of the linear functions that a stream shows."""
    generators = map(stream.function_generator, range(stream.n_distinct_functions))
    task = stream.task
    return torch.cat([task.draw_functions(1, task.n_dims, generator).weights for generator in generators])


def fresh_prompts(stream: Stream, n_distinct_functions: int | None) -> Prompts:
    """Prompts of full size that the stream never shows: of its first functions, or with `None` of new ones."""
    sizes = {"batch_size": N_PROMPTS, "schedules": {}, "n_distinct_functions": n_distinct_functions}
    return replace(stream, split="diversity", **sizes).batch(0)


def predict(predictor: Predictor, prompts: Prompts) -> np.ndarray:
    """Predictions `(B, P)` from the points before each; the first of them is from none, as only these take it."""
    xs, ys = prompts["xs"].double(), prompts["ys"].double()
    return torch.stack([predictor(xs[:, :n], ys[:, :n], xs[:, n]) for n in range(xs.shape[1])], dim=1).numpy()


def write_diversity(cells: Mapping[str, Figures], output_dir: Path):
    """Write the table, `study.md`, and the picture of all figures that are there."""
    seeds = {functions: seeds_of(cells, functions) for functions in FUNCTIONS}
    there = {functions: figures for functions, figures in seeds.items() if figures}
    write_atomically(output_dir / "study.md", table(there))
    if there:
        plot_diversity(there, output_dir)


def seeds_of(cells: Mapping[str, Figures], functions: int) -> list[Figures]:
    """The figures of all seeds that are there."""
    return [cells[f"{functions}/{seed}"] for seed in SEEDS if f"{functions}/{seed}" in cells]


def mean_error(seeds: Sequence[Figures], place: str, name: str) -> float:
    """The mean error over seeds."""
    return float(np.mean([figures["error"][place][name] for figures in seeds]))


def mean_distance(seeds: Sequence[Figures], name: str) -> float:
    """The mean distance over seeds."""
    return float(np.mean([figures["distance"][name] for figures in seeds]))


def table(there: Mapping[int, Sequence[Figures]]) -> str:
    """All figures, means over seeds, as a table in Markdown, a row for every number of functions."""
    lines = [HEADINGS, ["---"] * len(HEADINGS)]
    for functions, seeds in there.items():
        errors = [mean_error(seeds, place, name) for place in PLACES for name in COLOURS]
        distances = [mean_distance(seeds, name) for name in OTHERS]
        lines.append([f"{functions:,}", *(f"{value:.3g}" for value in (*errors, *distances))])
        lines[-1] += [f"{len(seeds)} of {len(SEEDS)}", f"{seeds[0]['n_steps']:,}", f"{seeds[0]['flops'] / 1e12:.3g}"]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def plot_diversity(there: Mapping[int, Sequence[Figures]], output_dir: Path):
    """Plot errors by the number of functions, on training functions and on new ones, and how far the model is off."""
    figure, panels = plt.subplots(1, 3, figsize=(11, 4), layout="constrained")
    for axes, place in zip(panels, PLACES, strict=False):
        for name, colour in COLOURS.items():
            errors = [mean_error(seeds, place, name) for seeds in there.values()]
            axes.plot(list(there), errors, "o-" if name == "model" else "--", color=colour, label=name)
        axes.set_title(place, fontsize=10)
    for name in OTHERS:
        distances = [mean_distance(seeds, name) for seeds in there.values()]
        panels[2].plot(list(there), distances, "o--", color=COLOURS[name])
    panels[2].set_title("from the model to the others, new functions", fontsize=10)
    for axes in panels:
        axes.set_xscale("log", base=2)
        axes.set_xlabel("functions in training")
        finish(axes, "linear")
    panels[0].set_ylabel("squared error / normaliser, mean over all points")
    handles = panels[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=len(COLOURS), fontsize=8, frameon=False)
    save(figure, "study", output_dir)
