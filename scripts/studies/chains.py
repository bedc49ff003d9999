"""Where depth matters: a looped model and a standard transformer follow chains of pointers of any length."""

import argparse
import statistics
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from transformers import PreTrainedModel

from scripts.benchmarks.timing import time_in_turns
from scripts.common.records import LOG_FILE, read_json_lines
from scripts.studies.study_run import StudyRun
from scripts.studies.variants import RECIPES
from tasks.common import Prompts
from tasks.sequences.pointer_chains import PointerChains
from tasks.streams import make_generator


matplotlib.use("Agg")

import matplotlib.pyplot as plt


SPARE_LOOPS = 2  # loops in training beyond the number of pointers
TOLERANCE = 0.05
COLOURS = ("#009E73", "#0072B2", "#56B4E9", "#E69F00", "#D55E00")


def make_runs(sizes: argparse.Namespace) -> dict[str, StudyRun]:
    """Return both trainings: chains grow from a fifth of the steps on, and are at full length before half of them."""
    growth = {"interval": max(1, sizes.max_steps // 4 // sizes.max_hops), "hold": sizes.max_steps // 5}
    hops, loops = {"start": 1, **growth}, {"start": 1 + SPARE_LOOPS, **growth}
    n_loops = sizes.max_hops + SPARE_LOOPS
    kinds = {
        "looped": {"n_loops": n_loops, "schedules": {"max_hops": hops, "n_loops": loops}},
        "standard": {"n_layer": sizes.blocks, "n_loops": 1, "schedules": {"max_hops": hops}},
    }
    shared = {name: getattr(sizes, name) for name in ("max_steps", "batch_size", "seed")}
    shared |= {"warmup_steps": sizes.max_steps // 10, "decay_steps": sizes.max_steps // 4}
    shared["task_settings"] = {"max_hops": sizes.max_hops}
    recipe = RECIPES / "pointer_chains.yaml"
    return {name: StudyRun.from_recipe(recipe, sizes.output_dir / name, shared | kind) for name, kind in kinds.items()}


def compare_depths(
    runs: dict[str, StudyRun], models: dict[str, PreTrainedModel], sizes: argparse.Namespace
) -> dict[str, Any]:
    """Measure both on chains of up to twice the trained length, for every number of loops; returns the record."""
    n_nodes = runs["looped"].task.n_nodes
    longest = min(2 * sizes.max_hops, n_nodes - 1)
    task = PointerChains(n_nodes, longest)
    prompts = task.sample(sizes.n_prompts, make_generator("chains", sizes.seed))
    few = {name: values[:64] for name, values in prompts.items()}
    loops = range(1, 2 * longest + 1)
    milliseconds = milliseconds_of(runs, models, few, [("looped", n_loops) for n_loops in loops] + [("standard", 1)])
    by_loop = runs["looped"].answers(models["looped"], prompts, loops[-1], every_loop=True)
    return {
        "max_hops_trained": sizes.max_hops,
        "n_prompts": sizes.n_prompts,
        "queries_by_hops": task.follow(prompts["input_ids"])[1].flatten().bincount().tolist(),
        "looped": {
            "parameters": models["looped"].num_parameters(),
            "accuracy": {n_loops: accuracy_by_hops(task, by_loop[:, n_loops - 1], prompts) for n_loops in loops},
            "milliseconds": {n_loops: milliseconds["looped", n_loops] for n_loops in loops},
            "settled": settle(models["looped"], task, prompts, loops[-1]),
        },
        "standard": {
            "parameters": models["standard"].num_parameters(),
            "blocks": sizes.blocks,
            "accuracy": accuracy_by_hops(task, runs["standard"].answers(models["standard"], prompts), prompts),
            "milliseconds": milliseconds["standard", 1],
        },
        "log": {name: read_json_lines(run.folder / LOG_FILE) for name, run in runs.items()},
    }


def milliseconds_of(
    runs: dict[str, StudyRun], models: dict[str, PreTrainedModel], prompts: Prompts, calls: list[tuple[str, int]]
) -> dict[tuple[str, int], float]:
    """Median milliseconds per prompt of a batch, timed in turns, by model and loops."""
    steps = {(name, n_loops): partial(runs[name].answers, models[name], prompts, n_loops) for name, n_loops in calls}
    seconds = time_in_turns(steps, models["looped"].device, range(5))
    return {call: 1000 * statistics.median(times) / len(prompts["labels"]) for call, times in seconds.items()}


def accuracy_by_hops(task: PointerChains, answers: np.ndarray, prompts: Prompts) -> list[float]:
    """Share of right answers to queries 0, 1, 2, ... pointers from their answer; 0 where there is no such query."""
    wrong = np.ma.masked_invalid(task.score(answers, prompts)).mean(axis=0)
    return (1 - wrong).filled(0).tolist()


@torch.no_grad()
def settle(model: PreTrainedModel, task: PointerChains, prompts: Prompts, n_loops: int) -> list[dict[str, float]]:
    """Mean accuracy on each prompt's last query, and mean loops until it settled, by hops."""
    ids = prompts["input_ids"].to(model.device)
    outputs = model(ids, use_cache=False, n_loops=n_loops, exit_tolerance=TOLERANCE, logits_to_keep=1)
    right = (outputs.logits[:, 0].argmax(-1).cpu() == prompts["labels"][:, -1]).float()
    hops_of_last, loops = task.follow(prompts["input_ids"])[1][:, -1], outputs.n_loops_used.cpu().float()
    return [
        {"hops": hops, "loops": loops[chosen].mean().item(), "accuracy": right[chosen].mean().item()}
        for hops in hops_of_last.unique().tolist()
        for chosen in [hops_of_last == hops]
    ]


def plot_depths(metrics: dict[str, Any], path: Path):
    """Plot accuracy against loops, accuracy against hops beside the standard transformer, accuracy against time."""
    looped, standard, trained = metrics["looped"], metrics["standard"], metrics["max_hops_trained"]
    loops = [int(n_loops) for n_loops in looped["accuracy"]]
    curves = list(zip(*looped["accuracy"].values(), strict=True))
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(11, 3.6), layout="constrained", sharey=True)
    counts = metrics["queries_by_hops"]
    asked = [hops for hops, count in enumerate(counts) if count]
    shown = [1, max(1, trained // 2), trained, (3 * trained + 1) // 2, len(curves) - 1]
    for colour, hops in zip(COLOURS, [hops for hops in dict.fromkeys(shown) if hops in asked], strict=False):
        style = "o-" if hops <= trained else "o--"
        label = f"{hops}" + (" (never trained)" if hops > trained else "")
        left.plot(loops, curves[hops], style, color=colour, markersize=3, linewidth=1.5, label=label)
    left.axvline(trained + SPARE_LOOPS, color="#666666", linestyle=":", linewidth=1)
    left.set(xlabel="loops (dotted: most in training)", ylabel="share of right answers")
    left.legend(title="pointers to follow", fontsize=7, title_fontsize=7, frameon=False, loc="lower right")
    last, best = [curves[hops][-1] for hops in asked], [max(curves[hops]) for hops in asked]
    middle.plot(asked, last, "o-", color="#D55E00", label=f"{loops[-1]} loops")
    middle.plot(asked, best, "o:", color="#E69F00", label="best number of loops")
    label = f"standard, {standard['blocks']} blocks"
    middle.plot(asked, [standard["accuracy"][hops] for hops in asked], "s-", color="#000000", label=label)
    middle.axvline(trained, color="#666666", linestyle=":", linewidth=1)
    middle.set(xlabel="pointers to follow (dotted: most in training)")
    middle.legend(fontsize=7, frameon=False, loc="lower left")
    means = [sum(a * n for a, n in zip(row, counts, strict=True)) / sum(counts) for row in looped["accuracy"].values()]
    right.plot(list(looped["milliseconds"].values()), means, "o-", color="#D55E00", markersize=3, label="looped")
    mean = sum(a * n for a, n in zip(standard["accuracy"], counts, strict=True)) / sum(counts)
    right.plot(standard["milliseconds"], mean, "s", color="#000000", label="standard")
    right.set(xlabel="milliseconds per prompt")
    right.legend(fontsize=7, frameon=False, loc="lower right")
    for axes in (left, middle, right):
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
    plt.close(figure)
