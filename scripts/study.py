"""Run one of the paper's studies: train a model a variant, measure all on the same prompts, draw them together.

    python scripts/study.py injection --output_dir runs/injection

The default size, scripts/recipes/study.yaml, takes minutes a variant on a laptop; `--full` takes the paper's settings
(500,000 steps a variant). Any field of a recipe can follow and holds for every variant: `--max_steps 2000 --n_dims 3`.
Started again, the command goes on where it was; `study.json` holds the numbers, `study.png` and `.svg` the picture.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib import pyplot as plt

from scripts.common.devices import fastest_attention, prepare_device
from scripts.common.model_loading import load_model
from scripts.common.output_folder import claim_own
from scripts.common.records import read_recipe, write_atomically
from scripts.evaluation.drawing import FLOOR, draw_curve, finish, loop_axis
from scripts.evaluation.predictions import predict_by_loop
from scripts.training.arguments import Arguments, parse_arguments
from scripts.training.objectives import Regression
from scripts.training.run_folder import FREE_FIELDS
from tasks import make_task
from tasks.metrics import curve_of, normalised_squared_error
from tasks.prediction_cache import chunks
from tasks.streams import make_generator


ROOT = Path(__file__).parents[1]
SMALL, FULL = ROOT / "scripts/recipes/study.yaml", ROOT / "scripts/recipes/linear_regression_paper.yaml"
N_PROMPTS = 256
# Okabe and Ito's colours; variants beyond them come again with dashes
COLOURS = ("#D55E00", "#0072B2", "#009E73", "#E69F00", "#56B4E9", "#CC79A7", "#000000", "#999999")

Variants = dict[str, dict[str, Any]]


def vary_injection(full: bool) -> Variants:
    """Figure 3: the prompt added to every loop, or seen once and the weights merely tied."""
    # twelve loops that all have to carry the prompt along do not leave the plateau at the default size
    few = {} if full else {"n_loops": 6, "n_loops_interval": 50}
    return {"add": few, "none": {"input_injection": "none", "loop_window": None, **few}}


def vary_loops(full: bool) -> Variants:
    """Figure 4: loops b at the end of training and the last T of them with loss and gradient."""
    loops, windows = ((12, 20, 30, 40, 50), (5, 10, 15)) if full else ((6, 12), (3, 6, 12))
    grid = [(b, window) for b in loops for window in windows if window <= b]
    return {
        f"b={b}, T={window}": {"n_loops": b, "loop_window": window} | ({"n_loops_start": window} if full else {})
        for b, window in grid
    }


def vary_pool(full: bool) -> Variants:
    """Figure 5: the number of distinct training prompts, met again and again, of looped and standard models."""
    sizes = (64 * 10**3, 64 * 10**4, None) if full else (256, 4096, None)
    # twelve different blocks do not leave the plateau at the default size
    kinds = {"looped": {}, "standard": standard(12 if full else 6)}
    return {
        f"{kind}, {'endless' if size is None else f'{size:,} prompts'}": {"n_distinct_prompts": size, **overrides}
        for kind, overrides in kinds.items()
        for size in sizes
    }


def vary_architecture(full: bool) -> Variants:
    """Figure 7: blocks in the loop, width and heads of looped models, and standard ones of several depths."""
    width, depths = (256, (1, 2, 4, 8, 12)) if full else (128, (2, 6, 12))
    looped = {"looped": {}, "looped, L=2": {"n_layer": 2}, "looped, half as wide": {"n_embd": width // 2}}
    looped["looped, one head"] = {"n_head": 1}
    return looped | {f"standard, L={depth}": standard(depth) for depth in depths}


def standard(n_layer: int) -> dict[str, Any]:
    """The fields of a standard transformer: its blocks are different ones, each run once."""
    return {"n_layer": n_layer, "n_loops": 1, "n_loops_start": None, "loop_window": None}


def vary_schedule(full: bool) -> Variants:
    """Section 5.1 and Huginn: loops that grow by a schedule, that are all there at first, or drawn at every step."""
    constant = {"n_loops_start": None}
    return {"scheduled": {}, "constant": constant, "random": {**constant, "n_loops_min": 1, "loop_window": None}}


STUDIES = {
    "injection": vary_injection,
    "loops": vary_loops,
    "pool": vary_pool,
    "architecture": vary_architecture,
    "schedule": vary_schedule,
}


def flags_of(recipe: Path, output_dir: Path, overrides: dict[str, Any], more: list[str]) -> list[str]:
    """The flags of one training; an override of `None` goes back to the field's default, and `more` wins."""
    fields = read_recipe(recipe) | overrides
    flags = [word for name, value in fields.items() if value is not None for word in (f"--{name}", str(value))]
    return ["--output_dir", str(output_dir), *flags, *more]


def recipe_of(arguments: Arguments) -> dict[str, Any]:
    """The fields of a training that reach its weights."""
    return {name: value for name, value in arguments.as_dict().items() if name not in FREE_FIELDS}


def train(flags: list[str]):
    """Train in a process of its own; a finished run returns at once. Ends this program where the training fails."""
    result = subprocess.run([sys.executable, str(ROOT / "scripts/train.py"), *flags])
    if result.returncode:
        sys.exit(f"study.py: error: the training ended with status {result.returncode}")


def measure(folder: Path, arguments: Arguments, device: torch.device) -> dict[str, Any]:
    """Curves by example at the trained loops, and at the last point up to five times as many."""
    model = load_model(folder, attn_implementation=fastest_attention(device)).to(device)
    task = make_task(arguments.task.task, n_dims=arguments.task.n_dims)
    prompts = task.sample(N_PROMPTS, make_generator("study", 1), n_points=arguments.task.n_points)
    n_loops = model.config.n_loops
    loops, batches = 5 * n_loops if n_loops > 1 else 1, chunks(prompts, 64)
    by_loop = np.concatenate([Regression().answers(model, batch, loops, True).cpu().numpy() for batch in batches])
    labels = prompts["labels"].unsqueeze(1).expand(by_loop.shape).numpy()
    errors = normalised_squared_error(by_loop, labels, task.normaliser)
    return {
        "n_loops": n_loops,
        "n_parameters": model.num_parameters(),
        "error_by_example": curve_of(errors[:, n_loops - 1]),
        "error_by_loop": curve_of(errors[:, :, -1]),
    }


def draw(study: str, variants: dict[str, dict[str, Any]], output_dir: Path):
    """Error by example on the left, by loop on the right, with 90% intervals; a dot marks the trained loops."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4.2), layout="constrained", sharey=True)
    for number, (name, measured) in enumerate(variants.items()):
        colour, dashes = COLOURS[number % len(COLOURS)], "--" if number >= len(COLOURS) else "-"
        draw_curve(left, 0, measured["error_by_example"], ls=dashes, color=colour, label=name)
        draw_curve(right, 1, measured["error_by_loop"], ls=dashes, color=colour)
        as_trained = max(measured["error_by_loop"]["error"][measured["n_loops"] - 1], FLOOR)
        right.plot([measured["n_loops"]], [as_trained], "o", color=colour, markersize=4)
    left.set_xlabel("in-context examples")
    left.xaxis.get_major_locator().set_params(integer=True)
    loop_axis(right, max(len(measured["error_by_loop"]["error"]) for measured in variants.values()))
    right.set_xlabel("loops (dot: as trained)")
    left.set_ylabel("squared error / normaliser")
    for axes in (left, right):
        finish(axes)
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    figure.suptitle(STUDIES[study].__doc__.rstrip("."), fontsize=10)
    for suffix in ("png", "svg"):
        figure.savefig(output_dir / f"study.{suffix}", dpi=150)
    plt.close(figure)


def main():
    """Check every variant, train, measure, draw."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], allow_abbrev=False, epilog="Other flags are fields of a recipe."
    )
    parser.add_argument("study", choices=STUDIES, help="What is varied.")
    parser.add_argument("--output_dir", type=Path, required=True, help="Folder of the models, numbers and picture.")
    parser.add_argument("--full", action="store_true", help="The paper's size: 500,000 steps a variant.")
    options, more = parser.parse_known_args()
    if any(word.split("=")[0] == "--recipe" for word in more):
        parser.error("`recipe` is that of the study: give fields of it, e.g. --max_steps 2000")

    trainings = {
        name: flags_of(FULL if options.full else SMALL, options.output_dir / f"variant_{number}", overrides, more)
        for number, (name, overrides) in enumerate(STUDIES[options.study](options.full).items())
    }
    arguments = {name: parse_arguments(flags) for name, flags in trainings.items()}  # all, before the first is trained
    settings = {"study": options.study, "full": options.full, "n_prompts": N_PROMPTS}
    settings |= {"recipes": {name: recipe_of(fields) for name, fields in arguments.items()}}
    try:
        record = claim_own(options.output_dir, "study.json", settings, ["study.png", "study.svg", "variant_*"])
        device, variants = prepare_device(), record.get("variants", {})
        for name, flags in trainings.items():
            print(f"{options.study}: {name}", flush=True)
            train(flags)
            variants[name] = measure(Path(arguments[name].run.output_dir), arguments[name], device)
            record = {"settings": settings, "variants": variants}
            write_atomically(options.output_dir / "study.json", json.dumps(record, indent=1))
            draw(options.study, variants, options.output_dir)
    except (ValueError, OSError) as error:
        sys.exit(f"study.py: error: {error}")
    print(f"\n{'variant':>24}{'as trained':>12}{'best loop':>12}{'5 x loops':>12}   error at the last point")
    for name, measured in variants.items():
        errors = measured["error_by_loop"]["error"]
        shown = (errors[measured["n_loops"] - 1], min(errors), errors[-1])
        print(f"{name:>24}" + "".join(f"{error:>12.3g}" for error in shown))
    print(f"\nwritten to {options.output_dir}")


if __name__ == "__main__":
    main()
