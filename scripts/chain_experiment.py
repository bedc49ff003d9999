"""Where depth matters: follow pointers to the end of their chain, with loops that grow with the chain.

    python scripts/chain_experiment.py --output_dir runs/chains

Trains two models from nothing on the prompts of tasks/pointer_chains.py, chains of up to `max_hops` pointers: a looped
one, whose loops grow with the longest chain, and a standard transformer, whose blocks do not. Then asks for chains of
up to twice as many pointers with every number of loops. Takes about twenty minutes of one CPU core; writes
metrics.json, chains.png and the looped model.
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from tqdm import tqdm

from modeling_looped_gpt2 import LoopedGPT2Config, LoopedGPT2LMHeadModel
from scripts.common.devices import fastest_attention, keep_freed_memory
from scripts.common.output_folder import OutputError, claim_own
from scripts.common.records import METRICS_FILE, WEIGHTS_FILE, write_atomically
from scripts.training.arguments import OptimizationArguments
from scripts.training.optimizers import build_optimizers, set_learning_rates
from tasks.curriculum import draw_n_loops
from tasks.pointer_chains import sample_chains


N_NODES = 12
MASTERED = 0.9  # accuracy on the longest chains at which longer ones come
SPARE_LOOPS = 2  # at most this many loops more than pointers in training
TOLERANCE = 0.05
OWN_FILES = ("chains.png", "config.json", "generation_config.json", WEIGHTS_FILE, "*.py")
COLOURS = ("#009E73", "#0072B2", "#56B4E9", "#E69F00", "#D55E00")


def build_model(n_layer: int, n_loops: int, seed: int) -> LoopedGPT2LMHeadModel:
    """A small model with weights that depend on the seed alone."""
    torch.manual_seed(seed)
    sizes = {"vocab_size": N_NODES, "n_positions": 3 * N_NODES, "n_embd": 64, "n_head": 4}
    model = LoopedGPT2LMHeadModel(LoopedGPT2Config(n_layer=n_layer, n_loops=n_loops, initializer_range=0.1, **sizes))
    model.set_attn_implementation(fastest_attention(torch.device("cpu")))
    return model


def answers_of(model: LoopedGPT2LMHeadModel, prompts: dict[str, torch.Tensor], **settings) -> torch.Tensor:
    """Scores of the answers `(P, N, N)`."""
    return model(prompts["input_ids"], logits_to_keep=N_NODES, use_cache=False, **settings).logits


def train(model: LoopedGPT2LMHeadModel, arguments: argparse.Namespace, loops_grow: bool) -> list[dict[str, float]]:
    """Train in place: chains of one pointer first, one more whenever the longest are mastered; the log."""
    settings = {"learning_rate": 1e-3, "muon_learning_rate": 0.01, "weight_decay": 0.01, "warmup_steps": 100}
    optimization = OptimizationArguments(
        max_steps=arguments.max_steps, decay_steps=arguments.max_steps // 4, **settings
    )
    optimizers = build_optimizers(model.train(), optimization)
    generator = torch.Generator().manual_seed(arguments.seed)
    n_hops, mastered, log = 1, 0.0, []
    for step in tqdm(range(arguments.max_steps), mininterval=10, desc="looped" if loops_grow else "standard"):
        prompts = sample_chains(arguments.batch_size, N_NODES, n_hops, generator)
        n_loops = draw_n_loops(arguments.seed, step, n_hops + 1, n_hops + SPARE_LOOPS) if loops_grow else None
        scores = answers_of(model, prompts, n_loops=n_loops)
        loss = cross_entropy(scores.flatten(0, 1), prompts["answers"].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        set_learning_rates(optimizers, step, optimization)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        right = (scores.argmax(-1) == prompts["answers"])[prompts["hops"] == n_hops].float()
        if len(right):
            mastered = 0.95 * mastered + 0.05 * right.mean().item()
        if mastered > MASTERED and n_hops < arguments.max_hops:
            n_hops, mastered = n_hops + 1, 0.0
        if step % 50 == 49:
            log.append({"step": step + 1, "loss": loss.item(), "n_hops": n_hops, "accuracy_of_longest": mastered})
    return log


@torch.no_grad()
def accuracy_by_hops(model: LoopedGPT2LMHeadModel, prompts: dict[str, torch.Tensor], n_loops: int) -> list[float]:
    """Share of right answers to queries 0, 1, 2, ... pointers away from them; 0 where there is no such query."""
    right = (answers_of(model, prompts, n_loops=n_loops).argmax(-1) == prompts["answers"]).float()
    hops = prompts["hops"].flatten()
    return (torch.bincount(hops, right.flatten()) / torch.bincount(hops).clamp(min=1)).tolist()


@torch.no_grad()
def settle(model: LoopedGPT2LMHeadModel, prompts: dict[str, torch.Tensor], n_loops: int) -> list[dict[str, float]]:
    """Accuracy on the last query, and loops until it settled, by hops."""
    ids = prompts["input_ids"]
    outputs = model(ids, use_cache=False, n_loops=n_loops, exit_tolerance=TOLERANCE, logits_to_keep=1)
    right = (outputs.logits[:, 0].argmax(-1) == prompts["answers"][:, -1]).float()
    rows = []
    for hops in range(int(prompts["hops"].max()) + 1):
        chosen = prompts["hops"][:, -1] == hops
        if chosen.any():
            loops = outputs.n_loops_used[chosen].float().mean().item()
            rows.append({"hops": hops, "loops": loops, "accuracy": right[chosen].mean().item()})
    return rows


@torch.no_grad()
def milliseconds(model: LoopedGPT2LMHeadModel, prompts: dict[str, torch.Tensor], n_loops: int) -> float:
    """Median time of one prompt in a batch."""
    seconds = []
    for _ in range(5):
        started = time.perf_counter()
        answers_of(model, prompts, n_loops=n_loops)
        seconds.append(time.perf_counter() - started)
    return 1000 * statistics.median(seconds) / len(prompts["input_ids"])


def evaluate(
    looped: LoopedGPT2LMHeadModel, standard: LoopedGPT2LMHeadModel, arguments: argparse.Namespace
) -> dict[str, Any]:
    """Accuracy of both on chains of up to twice the pointers of training, for every number of loops."""
    longest = min(2 * arguments.max_hops, N_NODES - 1)
    generator = torch.Generator().manual_seed(arguments.seed + 1)
    prompts = sample_chains(arguments.n_prompts, N_NODES, longest, generator)
    loops = range(1, 2 * longest + 1)
    few = {name: values[:64] for name, values in prompts.items()}
    return {
        "max_hops_trained": arguments.max_hops,
        "n_prompts": arguments.n_prompts,
        "queries_by_hops": torch.bincount(prompts["hops"].flatten()).tolist(),
        "looped": {
            "parameters": looped.num_parameters(),
            "accuracy": {n_loops: accuracy_by_hops(looped, prompts, n_loops) for n_loops in loops},
            "milliseconds": {n_loops: milliseconds(looped, few, n_loops) for n_loops in loops},
            "settled": settle(looped, prompts, 2 * longest),
        },
        "standard": {
            "parameters": standard.num_parameters(),
            "blocks": standard.config.n_layer,
            "accuracy": accuracy_by_hops(standard, prompts, 1),
            "milliseconds": milliseconds(standard, few, 1),
        },
    }


def draw(metrics: dict[str, Any], path: Path):
    """Accuracy against loops, accuracy against hops beside the standard transformer, accuracy against time."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

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
    right.set(xlabel="milliseconds a prompt")
    right.legend(fontsize=7, frameon=False, loc="lower right")
    for axes in (left, middle, right):
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def parse_arguments() -> argparse.Namespace:
    """Read and check the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--output_dir", type=Path, required=True, help="Folder of metrics.json, chains.png and model.")
    sizes = {"max_steps": 1000, "batch_size": 64, "max_hops": 4, "n_prompts": 1000, "blocks": 12, "seed": 0}
    for name, default in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=default, help=f"Default: {default}.")
    arguments = parser.parse_args()
    for name in sizes:
        if getattr(arguments, name) < (0 if name == "seed" else 1):
            parser.error(f"`{name}` must be >= 1 (`seed` >= 0), got {getattr(arguments, name)}")
    if arguments.max_hops >= N_NODES:
        parser.error(f"`max_hops` must be in 1 ... {N_NODES - 1}, got {arguments.max_hops}")
    if arguments.seed >= 2**63:
        parser.error(f"`seed` must be < 2**63, got {arguments.seed}")
    if arguments.max_steps < 200:
        parser.error(f"`max_steps` must be >= 200, for the warm-up and the decay, got {arguments.max_steps}")
    return arguments


def main():
    """Train both, ask both, write, draw."""
    arguments = parse_arguments()
    settings = {name: value for name, value in vars(arguments).items() if name != "output_dir"}
    try:
        claim_own(arguments.output_dir, METRICS_FILE, settings, OWN_FILES)
    except OutputError as error:
        sys.exit(f"chain_experiment.py: error: {error}")
    keep_freed_memory()
    looped = build_model(2, arguments.max_hops + SPARE_LOOPS, arguments.seed)
    log = {"looped": train(looped, arguments, loops_grow=True)}
    looped.save_pretrained(arguments.output_dir)
    standard = build_model(arguments.blocks, 1, arguments.seed)
    log["standard"] = train(standard, arguments, loops_grow=False)
    metrics = {"settings": settings, **evaluate(looped.eval(), standard.eval(), arguments), "log": log}
    write_atomically(arguments.output_dir / METRICS_FILE, json.dumps(metrics, indent=1))
    draw(metrics, arguments.output_dir / "chains.png")
    for n_loops, row in metrics["looped"]["accuracy"].items():
        print(f"{n_loops:>3} loops:", " ".join(f"{value:.2f}" for value in row))
    print("standard: ", " ".join(f"{value:.2f}" for value in metrics["standard"]["accuracy"]))
    print(f"written to {arguments.output_dir}")


if __name__ == "__main__":
    main()
