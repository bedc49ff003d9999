"""What can be read from a model's states after every block: X^T y and the least-squares weights of its examples."""

import argparse
from pathlib import Path
from typing import Any

import torch
from matplotlib import pyplot as plt
from tqdm import tqdm

from scripts.common.model_loading import weights_digest
from scripts.studies.probe_networks import errors_of_probes
from tasks.published import published
from tasks.shifts import evaluate_function
from tasks.streams import make_generator


TARGETS = {"xty": "X^T y / points", "least_squares": "least-squares weights"}
N_TEST_PROMPTS = 1280


def sample_linear_functions(
    n_prompts: int, n_points: int, n_dims: int, index: int, ones: bool
) -> dict[str, torch.Tensor]:
    """
    Draw prompts of linear functions with random weights or, for the control, weights that are all 1.

    Raises:
        `ValueError`: they do not fit into memory.
    """
    generator = make_generator("probe", 1, index)
    try:
        xs = torch.randn(n_prompts, n_points, n_dims, generator=generator)
    except RuntimeError as error:
        raise ValueError(f"{n_prompts} prompts (`n_prompts`) cannot be drawn: {error}") from None
    weights = torch.randn(n_prompts, n_dims, 1, generator=generator)
    weights = torch.ones_like(weights) if ones else weights
    return evaluate_function(lambda points: (points @ weights).squeeze(-1), xs)


def targets_of(prompts: dict[str, torch.Tensor], prefixes: dict[str, list[int]]) -> dict[str, torch.Tensor]:
    """X^T y of the first n examples divided by all points, and their least-squares weights: `(K, B, D)` each."""
    xs, ys = prompts["xs"].double(), prompts["ys"].double().unsqueeze(2)
    products = [xs[:, :n].mT @ ys[:, :n] / xs.shape[1] for n in prefixes["xty"]]
    solutions = [torch.linalg.lstsq(xs[:, :n], ys[:, :n], driver="gelsd").solution for n in prefixes["least_squares"]]
    return {
        "xty": torch.stack(products).squeeze(3).float(),
        "least_squares": torch.stack(solutions).squeeze(3).float(),
    }


@torch.inference_mode()
def states_of(model: torch.nn.Module, prompts: dict[str, torch.Tensor], n_loops: int) -> list[torch.Tensor]:
    """The input of the first block and the output of every executed block, `(B, T, E)` each."""
    parts = zip(prompts["xs"].split(128), prompts["ys"].split(128), strict=True)
    states = [
        model(xs.to(model.device), ys.to(model.device), n_loops=n_loops, output_hidden_states=True).hidden_states
        for xs, ys in parts
    ]
    states = [torch.cat(state).cpu() for state in zip(*states, strict=True)]
    for n_blocks, state in enumerate(states):
        if not state.isfinite().all():
            raise ValueError(
                f"the model's states after {n_blocks} blocks are not finite: give fewer loops, `n_loops`."
            )
    return states


def probe_states(model: torch.nn.Module, n_loops: int, sizes: argparse.Namespace) -> dict[str, Any]:
    """Probe every state for every target, in the `sizes` of the command line; returns the content of probe.json."""
    n_dims, n_points = model.config.n_dims, model.config.n_positions // 2
    # the least-squares weights are those of at most n_dims examples, as in the paper
    most = {"xty": n_points, "least_squares": min(n_dims, n_points)}
    prefixes = {}
    for name, m in most.items():
        n = min(sizes.n_prefixes, m)
        prefixes[name] = sorted({max(1, round((i + 1) * m / n)) for i in range(n)})
    test = sample_linear_functions(N_TEST_PROMPTS, n_points, n_dims, 2, ones=False)
    test_states, test_goals = states_of(model, test, n_loops), targets_of(test, prefixes)
    settings = {"n_loops": n_loops, "n_dims": n_dims, "n_prompts": sizes.n_prompts, "n_steps": sizes.n_steps}
    record = settings | {"weights_sha256": weights_digest(model), "prefixes": prefixes}
    for target, goals in test_goals.items():
        record[target] = {"zero": goals.square().mean().item(), "probe": [], "control": []}
    with tqdm(total=2 * len(test_states), desc="probes") as bar:
        for index, kind in enumerate(("probe", "control")):
            prompts = sample_linear_functions(sizes.n_prompts, n_points, n_dims, index, ones=kind == "control")
            goals = torch.cat(list(targets_of(prompts, prefixes).values()))
            for states, fresh in zip(states_of(model, prompts, n_loops), test_states, strict=True):
                errors = errors_of_probes(states, goals, fresh, torch.cat(list(test_goals.values())), sizes.n_steps)
                parts = errors.split([len(prefixes[target]) for target in TARGETS])
                for target, part in zip(TARGETS, parts, strict=True):
                    record[target][kind].append(part.mean().item())
                bar.update()
    return record


def plot_probes(record: dict[str, Any], output_dir: Path):
    """Plot a panel per target: the probe, its control, and the published curves where the size is the paper's."""
    figure, grid = plt.subplots(1, 2, figsize=(9, 3.9), layout="constrained")
    for axes, (target, title) in zip(grid, TARGETS.items(), strict=True):
        axes.plot(record[target]["probe"], color="#D55E00", label="this model")
        axes.plot(record[target]["control"], "--", color="#999999", label="control")
        axes.axhline(record[target]["zero"], color="#E69F00", linewidth=1, label="predicting 0")
        if record["n_dims"] == 20:
            for name, colour in (("looped transformer", "#0072B2"), ("standard transformer", "#000000")):
                axes.plot(published()["probing"][target][name], ":", color=colour, label=f"{name}, published")
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("executed blocks")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25, linewidth=0.6)
    grid[0].set_ylabel("squared error of the probe")
    figure.legend(*grid[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    for suffix in ("png", "svg"):
        figure.savefig(output_dir / f"probe.{suffix}", dpi=150)
    plt.close(figure)


def print_summary(record: dict[str, Any]):
    """Print the errors of each target's probes at the input, at the best state and at the last."""
    for target, title in TARGETS.items():
        errors = record[target]["probe"]
        best = min(range(len(errors)), key=errors.__getitem__)
        shown = f"{errors[0]:.3g} at the input, {errors[best]:.3g} after {best} blocks, {errors[-1]:.3g} at last"
        print(f"{title:>24}: {shown}; predicting 0: {record[target]['zero']:.3g}")
