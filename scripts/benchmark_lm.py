"""Tokens a second of generation: looped, beside a stock GPT-2 of as many blocks, with and without a cache.

    python scripts/benchmark_lm.py --output_dir runs/benchmark_lm

All run in one process, in turns; each figure is the median of the repeats. The parameters are those outside the
embeddings. Writes benchmark_lm.json.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from tqdm import tqdm
from transformers import GPT2Config, GPT2LMHeadModel

from modeling_looped_gpt2 import LoopedGPT2Config, LoopedGPT2LMHeadModel
from scripts.devices import prepare_device
from scripts.output_folder import OutputError, claim_own
from scripts.records import write_atomically


PROMPT_TOKENS = 16
RESULT_FILE = "benchmark_lm.json"


def n_heads(n_embd: int) -> int:
    """Attention heads of 64 channels, or one."""
    return n_embd // 64 or 1


def build_models(sizes: argparse.Namespace, device: torch.device) -> tuple[LoopedGPT2LMHeadModel, GPT2LMHeadModel]:
    """One block looped, and stock GPT-2 with a block for every loop."""
    shared = {"n_embd": sizes.n_embd, "n_head": n_heads(sizes.n_embd), "vocab_size": sizes.vocab_size}
    shared |= {"n_positions": PROMPT_TOKENS + sizes.n_tokens, "bos_token_id": 0, "eos_token_id": None}
    shared |= {"activation_function": "gelu_pytorch_tanh"}  # in one pass, which GPT-2 gains from as well
    looped = LoopedGPT2LMHeadModel(LoopedGPT2Config(n_layer=1, n_loops=sizes.n_loops, **shared))
    stock = GPT2LMHeadModel(GPT2Config(n_layer=sizes.n_loops, **shared))
    return looped.to(device).eval(), stock.to(device).eval()


def cases(
    looped: LoopedGPT2LMHeadModel, stock: GPT2LMHeadModel, sizes: argparse.Namespace
) -> dict[str, Callable[[int], int]]:
    """Calls that generate so many tokens and return the bytes of their cache, 0 without one."""
    prompt = torch.ones(sizes.batch_size, PROMPT_TOKENS, dtype=torch.long, device=looped.device)

    def case(model: GPT2LMHeadModel | LoopedGPT2LMHeadModel, **settings) -> Callable[[int], int]:
        def run(n_tokens: int) -> int:
            outputs = model.generate(
                prompt,
                attention_mask=torch.ones_like(prompt),
                max_new_tokens=n_tokens,
                do_sample=False,
                return_dict_in_generate=True,
                pad_token_id=0,
                **settings,
            )
            cache = outputs.past_key_values
            return 0 if cache is None else LoopedGPT2LMHeadModel.cache_bytes(cache)

        return run

    fewer = max(1, sizes.n_loops // 4)
    return {
        "stock GPT-2": case(stock),
        "looped": case(looped),
        f"looped, {fewer} loops": case(looped, n_loops=fewer),
        f"looped, {fewer} loops a slot": case(looped, loops_per_slot=fewer),
        "looped, one slot for all": case(looped, loops_per_slot=sizes.n_loops),
        "looped, no cache": case(looped, use_cache=False),
    }


def speedup(reference: list[float], seconds: list[float]) -> float:
    """Median of the ratios turn by turn: neighbours in a turn see the same machine."""
    return statistics.median(before / after for before, after in zip(reference, seconds, strict=True))


def parse_arguments() -> argparse.Namespace:
    """Read and check the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--output_dir", type=Path, required=True, help="Folder of benchmark_lm.json.")
    sizes = {"n_tokens": 256, "n_loops": 12, "n_embd": 256, "vocab_size": 1024, "batch_size": 1, "repeats": 5}
    for name, default in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=default, help=f"Default: {default}.")
    arguments = parser.parse_args()
    for name in sizes:
        if getattr(arguments, name) < 1:
            parser.error(f"`{name}` must be >= 1, got {getattr(arguments, name)}")
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
    for run in runs.values():
        run(2)  # warms up
    cache_bytes = {}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in tqdm(range(arguments.repeats), desc="repeats"):
        for name, run in runs.items():
            started = time.perf_counter()
            cache_bytes[name] = run(arguments.n_tokens)
            if device.type == "cuda":
                torch.cuda.synchronize()
            seconds[name].append(time.perf_counter() - started)
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
    print(f"{'':>24}{'tokens/s':>10}{'of stock':>10}{'of no cache':>13}{'cache MiB':>11}{'parameters':>12}")
    for name, row in rows.items():
        numbers = f"{row['tokens_per_second']:>10.1f}{row['of_stock']:>10.2f}{row['of_no_cache']:>13.2f}"
        print(f"{name:>24}{numbers}{row['cache_bytes'] / 2**20:>11.2f}{row['parameters']:>12,}")
    settings |= {"device": device.type, "threads": torch.get_num_threads()}
    write_atomically(arguments.output_dir / RESULT_FILE, json.dumps({"settings": settings, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
