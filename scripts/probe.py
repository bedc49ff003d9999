"""Ask what a model's states know after every block: the least-squares weights and X^T y (figure 8 of Yang et al.).

    python scripts/probe.py --model runs/linear --output_dir runs/linear

A probe is a learned average over the tokens and a 2-layer network, trained for each state and each number of examples
to give the target; its squared error on fresh prompts, a mean over coordinates, is what the state does not tell. The
control is a probe trained on prompts whose weights are all 1, so it cannot have learned to read any. `probe.json`
holds the numbers, `probe.png` and `.svg` the picture. The paper's size is `--n_prompts 1280 --n_steps 10000
--n_prefixes 41`; its probes see all prompts at every step and the states as they are.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch
from matplotlib import pyplot as plt
from tqdm import tqdm

from scripts.common.devices import prepare_device
from scripts.common.model_loading import add_model_arguments, load_chosen, weights_digest
from scripts.common.output_folder import claim_beside
from scripts.common.records import write_atomically
from tasks.published import published
from tasks.shifts import evaluate_function
from tasks.streams import make_generator


TARGETS = {"xty": "X^T y / points", "least_squares": "least-squares weights"}
HIDDEN = 64
BATCH_SIZE, N_TEST_PROMPTS = 128, 1280


def sample(n_prompts: int, n_points: int, n_dims: int, index: int, ones: bool) -> dict[str, torch.Tensor]:
    """
    Prompts of linear functions with random weights or, for the control, weights that are all 1.

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


class Probes(torch.nn.Module):
    """K probes side by side: a softmax-weighted average over T tokens, then Linear-ReLU-Linear to D numbers."""

    def __init__(self, n_probes: int, n_tokens: int, n_embd: int, n_dims: int):
        super().__init__()
        self.scores = torch.nn.Parameter(torch.zeros(n_probes, n_tokens))
        self.first = torch.nn.Parameter(torch.empty(n_probes, n_embd, HIDDEN).uniform_(-1, 1) * n_embd**-0.5)
        self.second = torch.nn.Parameter(torch.empty(n_probes, HIDDEN, n_dims).uniform_(-1, 1) * HIDDEN**-0.5)
        self.first_bias = torch.nn.Parameter(torch.zeros(n_probes, 1, HIDDEN))
        self.second_bias = torch.nn.Parameter(torch.zeros(n_probes, 1, n_dims))

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """`(B, T, E)` to `(K, B, D)`."""
        means = torch.einsum("kt,bte->kbe", self.scores.softmax(dim=1), states)
        hidden = torch.baddbmm(self.first_bias, means, self.first).relu()
        return torch.baddbmm(self.second_bias, hidden, self.second)


def probe(
    states: torch.Tensor, targets: torch.Tensor, fresh_states: torch.Tensor, fresh_targets: torch.Tensor, n_steps: int
) -> torch.Tensor:
    """Train a probe for each of K targets by Adam on standardised states; returns the errors `(K,)` on fresh ones."""
    torch.manual_seed(0)
    # an input token and the state after a loop differ in scale: without this the same rate does not suit both
    deviation, mean = torch.std_mean(states, dim=(0, 1))
    deviation = deviation.clamp(min=1e-6)
    probes = Probes(len(targets), states.shape[1], states.shape[2], targets.shape[2])
    optimizer = torch.optim.Adam(probes.parameters(), lr=3e-3, fused=True)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, n_steps)
    for _ in range(n_steps):
        drawn = torch.randint(len(states), (BATCH_SIZE,))
        errors = probes((states[drawn] - mean) / deviation) - targets[:, drawn]
        optimizer.zero_grad()
        errors.square().mean(dim=(1, 2)).sum().backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        return (probes((fresh_states - mean) / deviation) - fresh_targets).square().mean(dim=(1, 2))


def draw(record: dict[str, Any], output_dir: Path):
    """A picture a target: the probe, its control, and the published curves where the size is the paper's."""
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


def measure(model: torch.nn.Module, n_loops: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """The content of probe.json."""
    n_dims, n_points = model.config.n_dims, model.config.n_positions // 2
    # the least-squares weights are those of at most n_dims examples, as in the paper
    most = {"xty": n_points, "least_squares": min(n_dims, n_points)}
    prefixes = {}
    for name, m in most.items():
        n = min(arguments.n_prefixes, m)
        prefixes[name] = sorted({max(1, round((i + 1) * m / n)) for i in range(n)})
    test = sample(N_TEST_PROMPTS, n_points, n_dims, 2, ones=False)
    test_states, test_goals = states_of(model, test, n_loops), targets_of(test, prefixes)
    settings = {"n_loops": n_loops, "n_dims": n_dims, "n_prompts": arguments.n_prompts, "n_steps": arguments.n_steps}
    record = settings | {"weights_sha256": weights_digest(model), "prefixes": prefixes}
    for target, goals in test_goals.items():
        record[target] = {"zero": goals.square().mean().item(), "probe": [], "control": []}
    with tqdm(total=2 * len(test_states), desc="probes") as bar:
        for index, kind in enumerate(("probe", "control")):
            prompts = sample(arguments.n_prompts, n_points, n_dims, index, ones=kind == "control")
            goals = torch.cat(list(targets_of(prompts, prefixes).values()))
            for states, fresh in zip(states_of(model, prompts, n_loops), test_states, strict=True):
                errors = probe(states, goals, fresh, torch.cat(list(test_goals.values())), arguments.n_steps)
                parts = errors.split([len(prefixes[target]) for target in TARGETS])
                for target, part in zip(TARGETS, parts, strict=True):
                    record[target][kind].append(part.mean().item())
                bar.update()
    return record


def print_summary(record: dict[str, Any]):
    """Print what the probes of each target read at the input, at best and at last."""
    for target, title in TARGETS.items():
        errors = record[target]["probe"]
        best = min(range(len(errors)), key=errors.__getitem__)
        shown = f"{errors[0]:.3g} at the input, {errors[best]:.3g} after {best} blocks, {errors[-1]:.3g} at last"
        print(f"{title:>24}: {shown}; predicting 0: {record[target]['zero']:.3g}")


def parse_arguments() -> argparse.Namespace:
    """Read and check the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    add_model_arguments(parser)
    parser.add_argument(
        "--output_dir", type=Path, required=True, help="Folder the numbers and picture are written to."
    )
    parser.add_argument("--n_loops", type=int, help="Loops of the model. Default: its trained count.")
    counts = {
        "n_prompts": (5120, "Training prompts of a probe. Default: 5120; the paper: 1280."),
        "n_steps": (1500, f"Steps of a probe, of {BATCH_SIZE} prompts each. Default: 1500; the paper: 10000."),
        "n_prefixes": (4, "Numbers of examples that are probed. Default: 4; the paper: 41."),
    }
    for name, (default, text) in counts.items():
        parser.add_argument(f"--{name}", type=int, default=default, help=text)
    arguments = parser.parse_args()
    for name in ("n_loops", *counts):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            parser.error(f"`{name}` must be >= 1, got {value}")
    return arguments


def main():
    """Collect the states, train the probes, write and draw."""
    arguments = parse_arguments()
    try:
        model = load_chosen(arguments, prepare_device())
        if model.config.n_positions < 2:
            raise ValueError(f"`n_positions` of the model must be >= 2, an example, got {model.config.n_positions}.")
        claim_beside(arguments.output_dir, weights_digest(model))
        record = measure(model, arguments.n_loops or model.config.n_loops, arguments)
        write_atomically(arguments.output_dir / "probe.json", json.dumps(record, indent=1))
        draw(record, arguments.output_dir)
    except (ValueError, OSError) as error:
        sys.exit(f"probe.py: error: {error}")
    print_summary(record)
    print(f"written to {arguments.output_dir / 'probe.json'}")


if __name__ == "__main__":
    main()
