"""Measure tokens per second of generation: looped, beside a stock GPT-2 of as many blocks, with and without a cache.

    python scripts/benchmark_lm.py --output_dir runs/benchmark_lm

All run in one process, in turns; each number is the median of the repeats. The parameters are those outside the
embeddings. Writes benchmark_lm.json.
"""

import argparse
import json
import statistics
import sys
from functools import partial
from pathlib import Path

import torch
from tqdm import tqdm

from scripts.benchmarks.generation import build_models, cases, n_heads
from scripts.benchmarks.printing import print_rows
from scripts.benchmarks.timing import time_in_turns
from scripts.common.count_flags import parse_counts
from scripts.common.devices import prepare_device
from scripts.common.output_folder import OutputError, claim_own
from scripts.common.records import write_atomically


RESULT_FILE = "benchmark_lm.json"
COUNTS = {"n_tokens": 256, "n_loops": 12, "n_embd": 256, "vocab_size": 1024, "batch_size": 1, "repeats": 5}


def speedup(reference: list[float], seconds: list[float]) -> float:
    """Median of the ratios turn by turn: both of a turn run within a short time, on an equally busy machine."""
    return statistics.median(before / after for before, after in zip(reference, seconds, strict=True))


def parse_arguments() -> argparse.Namespace:
    """Read and check the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--output_dir", type=Path, required=True, help="Folder of benchmark_lm.json.")
    arguments = parse_counts(parser, COUNTS)
    if arguments.n_embd % n_heads(arguments.n_embd):
        parser.error(f"`n_embd` must be a multiple of its {n_heads(arguments.n_embd)} heads, got {arguments.n_embd}")
    return arguments


def main():
    """Measure, print, write."""
    arguments = parse_arguments()
    settings = {name: value for name, value in vars(arguments).items() if name != "output_dir"}
    try:
        claim_own(arguments.output_dir, RESULT_FILE, settings, [])
    except OutputError as error:
        sys.exit(f"benchmark_lm.py: error: {error}")
    device = prepare_device()
    looped, stock = build_models(arguments, device)
    runs = cases(looped, stock, arguments)
    cache_bytes = {name: run(arguments.n_tokens) for name, run in runs.items()}  # this also warms up
    steps = {name: partial(run, arguments.n_tokens) for name, run in runs.items()}
    seconds = time_in_turns(steps, device, tqdm(range(arguments.repeats), desc="repeats"))
    n_tokens = arguments.n_tokens * arguments.batch_size
    rows = {
        name: {
            "tokens_per_second": n_tokens / statistics.median(seconds[name]),
            "of_stock": speedup(seconds["stock GPT-2"], seconds[name]),
            "of_no_cache": speedup(seconds["looped, no cache"], seconds[name]),
            "cache_bytes": cache_bytes[name],
            "parameters": (stock if name == "stock GPT-2" else looped).num_parameters(exclude_embeddings=True),
        }
        for name in runs
    }
    cells = [
        [
            *(name, f"{row['tokens_per_second']:.1f}", f"{row['of_stock']:.2f}", f"{row['of_no_cache']:.2f}"),
            *(f"{row['cache_bytes'] / 2**20:.2f}", f"{row['parameters']:,}"),
        ]
        for name, row in rows.items()
    ]
    print_rows(("", "tokens/s", "of stock", "of no cache", "cache MiB", "parameters"), cells)
    settings |= {"device": device.type, "threads": torch.get_num_threads()}
    write_atomically(arguments.output_dir / RESULT_FILE, json.dumps({"settings": settings, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
