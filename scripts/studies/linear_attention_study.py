"""The study of looped linear attention: whether it learns gradient descent, and what tied and untied layers do."""

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib import pyplot as plt
from transformers import HfArgumentParser

from scripts.common.devices import prepare_device
from scripts.common.output_folder import claim_own
from scripts.common.records import write_atomically
from scripts.evaluation.axes import finish, loop_axis, save
from scripts.studies.linear_attention import SHIFTS, SPECTRA, LinearAttention, Settings, train
from tasks.streams import make_generator


SEEDS = (0, 1, 2)
DEPTHS = (1, 2, 4, 8)
# the fields of the model by what is learned; "full" is tied too
KINDS = {
    "tied": lambda n_loops: {},
    "untied": lambda n_loops: {"n_layers": n_loops},
    "full": lambda n_loops: {"is_full": True},
}
N_PROMPTS = 1024
DIVERGED = 1e30  # the error of what has grown without bound, a number that JSON and an axis know
BEYOND = 4  # times the trained loops are measured
STEPS = tuple(step / 25 for step in range(1, 65))  # of gradient descent; the best is taken
COLOURS = {
    "tied": "#D55E00",
    "untied": "#0072B2",
    "full": "#009E73",
    "gradient descent": "#999999",
    "preconditioned": "#000000",
}
HEADINGS = ("spectrum", "layers", "loops", "error", "rate (R²)", "best descent", "cosine", "symmetric", *SHIFTS)
Figures = dict[str, Any]


def study_linear_attention(options: argparse.Namespace, more: Sequence[str]):
    """
    Train tied and untied layers of every depth on every spectrum, measure, plot; goes on after the last that is done.

    Args:
        options (`argparse.Namespace`):
            `study`, its name, `output_dir`, and `full`, which it does not have.
        more (`Sequence[str]`):
            Flags, the fields of [`Settings`]. Ends the program with status 2 where a value cannot be read.

    Raises:
        `ValueError`: a flag is not known, a setting is out of its range, or the folder holds something else.
    """
    if options.full:
        raise ValueError("`full` must be left out: the study linear_attention has one size.")
    parser = HfArgumentParser(Settings, prog="study.py linear_attention", allow_abbrev=False)
    (settings,) = parser.parse_args_into_dataclasses(list(more))
    given = {"study": options.study, **asdict(settings), "seeds": SEEDS, "depths": DEPTHS, "n_prompts": N_PROMPTS}
    record = claim_own(options.output_dir, "study.json", given, ["study.png", "study.svg", "study.md"])
    prepare_device()
    descents, trainings = record.setdefault("descents", {}), record.setdefault("trainings", {})
    names = [
        f"{spectrum}/{kind}/{n_loops}/{seed}"
        for seed in SEEDS
        for spectrum in SPECTRA
        for n_loops in DEPTHS
        for kind in KINDS
    ]
    for spectrum in SPECTRA:
        descents[spectrum] = descents.get(spectrum) or measure_descent(spectrum, settings)
    for number, name in enumerate(names, 1):
        if name not in trainings:
            print(f"{number} of {len(names)}: {name}", flush=True)
            trainings[name] = measure_training(name, settings)
            write_atomically(options.output_dir / "study.json", json.dumps(record, indent=1))
    write_atomically(options.output_dir / "study.md", table(record))
    plot_study(record, options.output_dir)
    print(f"{table(record)}\nwritten to {options.output_dir}")


def inverse_covariance(spectrum: str, settings: Settings) -> torch.Tensor:
    """The inverse of the mean covariance of a spectrum's prompts, `(D, D)`."""
    values = SPECTRA[spectrum](N_PROMPTS, settings.n_dims, make_generator("linear_attention mean", 0)).mean(0)
    return settings.basis / values @ settings.basis.mT


@torch.no_grad()
def errors_of(model: LinearAttention, n_loops: int, spectrum: str, shift: str, settings: Settings) -> list[float]:
    """The mean squared error on test prompts after 1 ... `n_loops` loops, of which predicting 0 has 1."""
    prompts = settings.task.sample(N_PROMPTS, make_generator("linear_attention test", 0))
    generator = make_generator("linear_attention test spectrum", 0)
    values = SHIFTS[shift](SPECTRA[spectrum](N_PROMPTS, settings.n_dims, generator), generator)
    xs, ys, labels = settings.with_spectrum(prompts, values)
    errors = (model(xs, ys, n_loops) - labels[:, None]).square().mean(0) / labels.square().mean()
    return errors.nan_to_num(DIVERGED).clamp(max=DIVERGED).tolist()


def measure_descent(spectrum: str, settings: Settings) -> Figures:
    """Errors of gradient descent in hindsight: after n loops of the step that is best for n, by preconditioner."""
    identity = torch.eye(settings.n_dims, dtype=torch.float64)
    figures = {}
    for name, matrix in {
        "gradient descent": identity,
        "preconditioned": inverse_covariance(spectrum, settings),
    }.items():
        models = [LinearAttention.descent(step * matrix[None]) for step in STEPS]
        errors = np.array([errors_of(model, DEPTHS[-1], spectrum, "as trained", settings) for model in models])
        best = errors.argmin(axis=0)
        figures[name] = {"error": errors.min(axis=0).tolist(), "step": [STEPS[index] for index in best]}
    return figures


def measure_training(name: str, settings: Settings) -> Figures:
    """
    Train and measure what a name `SPECTRUM/KIND/LOOPS/SEED` says.

    Returns:
        `dict`: `"error"`, by shift the errors up to `BEYOND` times the trained loops. Of the preconditioners, as means
        over layers: `"cosine"` to the inverse covariance, `"symmetric"`, the same of their symmetric part, and
        `"step"`, the multiple of the inverse covariance that is nearest.
    """
    spectrum, kind, *counts = name.split("/")
    n_loops, seed = map(int, counts)
    generator = make_generator("linear_attention weights", seed)
    model = LinearAttention(settings.n_dims, **KINDS[kind](n_loops), generator=generator)
    train(model, n_loops, SPECTRA[spectrum], settings, seed)
    learned, inverse = model.preconditioners, inverse_covariance(spectrum, settings)
    return {
        "error": {shift: errors_of(model, BEYOND * n_loops, spectrum, shift, settings) for shift in SHIFTS},
        "cosine": cosine(learned, inverse),
        "symmetric": cosine((learned + learned.mT) / 2, inverse),
        "step": ((learned * inverse).sum((1, 2)) / inverse.square().sum()).mean().item(),
    }


def cosine(matrices: torch.Tensor, other: torch.Tensor) -> float:
    """Mean over `matrices` `(L, D, D)` of the cosine between them and `other` `(D, D)`, as vectors of entries."""
    return torch.cosine_similarity(matrices.flatten(1), other.flatten()[None]).mean().item()


def geometric_fit(errors: Sequence[float]) -> tuple[float, float]:
    """Fit a line to the logarithms of errors; returns the factor per loop and R²."""
    logs, loops = np.log(errors), np.arange(len(errors))
    slope, intercept = np.polyfit(loops, logs, 1)
    residuals = logs - (slope * loops + intercept)
    return math.exp(slope), 1 - residuals.var() / logs.var()


def loops_of_fall(errors: Sequence[float]) -> int:
    """Loops up to which every loop lowers the error."""
    return next((loop for loop in range(1, len(errors)) if errors[loop] > errors[loop - 1]), len(errors))


def seeds_of(record: Figures, spectrum: str, kind: str, n_loops: int) -> list[Figures]:
    """The figures of all seeds."""
    return [record["trainings"][f"{spectrum}/{kind}/{n_loops}/{seed}"] for seed in SEEDS]


def row(record: Figures, spectrum: str, kind: str, n_loops: int) -> list[str]:
    """A line of the table: medians of seeds, and under the shifts the fewest loops up to which the error falls."""
    runs = seeds_of(record, spectrum, kind, n_loops)
    errors = [run["error"]["as trained"][:n_loops] for run in runs]
    fits = [geometric_fit(error) for error in errors] if n_loops > 2 else []
    medians = {name: np.median([run[name] for run in runs]) for name in ("cosine", "symmetric")}
    best = record["descents"][spectrum]["preconditioned"]["error"][n_loops - 1]
    falls = [min(loops_of_fall(run["error"][shift]) for run in runs) for shift in SHIFTS]
    return [
        *(spectrum, kind, str(n_loops), f"{np.median([error[-1] for error in errors]):.2g}"),
        "{:.2f} ({:.2f})".format(*np.median(fits, axis=0)) if fits else "",
        f"{best:.2g}",
        *(f"{value:.3f}" for value in medians.values()),
        *(f"{fall} of {BEYOND * n_loops}" for fall in falls),
    ]


def table(record: Figures) -> str:
    """All trainings as a table in Markdown."""
    keys = [(spectrum, kind, n) for spectrum in SPECTRA for n in DEPTHS for kind in KINDS]
    lines = [HEADINGS, ["---"] * len(HEADINGS), *(row(record, *key) for key in keys)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def plot_study(record: Figures, output_dir: Path):
    """Plot errors by loop of the deepest stacks, a panel per spectrum; dashed on spectra wider than in training."""
    figure, panels = plt.subplots(1, len(SPECTRA), figsize=(10, 4), layout="constrained", sharey=True)
    n_loops = DEPTHS[-1]
    for axes, spectrum in zip(panels, SPECTRA, strict=True):
        for name, descent in record["descents"][spectrum].items():
            axes.plot(range(1, n_loops + 1), descent["error"], ":", color=COLOURS[name], label=f"{name}, best step")
        for kind in KINDS:
            for number, run in enumerate(seeds_of(record, spectrum, kind, n_loops)):
                draw_run(axes, run["error"], COLOURS[kind], "" if number else kind)
        axes.axvline(n_loops, color="#CCCCCC", linewidth=0.8)
        axes.set_title(spectrum, fontsize=10)
        loop_axis(axes, BEYOND * n_loops)
        finish(axes)
    panels[0].set_ylim(1e-9, 10)
    panels[0].set_ylabel("squared error / that of predicting 0")
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=6, fontsize=8, frameon=False
    )
    save(figure, "study", output_dir)


def draw_run(axes: plt.Axes, errors: Mapping[str, Sequence[float]], colour: str, label: str):
    """Draw the errors of a training, with two entries in the legend unless `label` is empty."""
    for shift, style in {"as trained": "-", "wider": "--"}.items():
        loops = range(1, len(errors[shift]) + 1)
        axes.plot(loops, errors[shift], style, color=colour, linewidth=1, label=label and f"{label}, {shift}")
