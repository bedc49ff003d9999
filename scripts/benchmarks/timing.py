"""Measure steps: seconds, taken in turns, floating-point operations and memory."""

import statistics
import time
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from scripts.benchmarks.peak_memory import PeakMemory


Step = Callable[[], Any]
Rows = dict[str, dict[str, Any]]

# a row is repeated until this many seconds have passed, and at least once
SECONDS_PER_ROW = 60
# torch's counter does not know the fused attention of the CPU
CPU_ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: lambda q, k, v, *_, **__: sdpa_flop_count(q, k, v),
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: (
        lambda grad, q, k, v, *_, **__: sdpa_backward_flop_count(grad, q, k, v)
    ),
}


def timed(step: Step, device: torch.device) -> float:
    """Seconds of one call, until the device has finished it."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def time_in_turns(
    steps: dict[str, Step], device: torch.device, turns: Iterable, most_seconds: float = float("inf")
) -> dict[str, list[float]]:
    """Seconds of every step in every turn, by step; no turn begins after `most_seconds`."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    started = time.perf_counter()
    for _ in turns:
        for name, step in steps.items():
            seconds[name].append(timed(step, device))
        if time.perf_counter() - started > most_seconds:
            break
    return seconds


def count_operations(step: Step) -> dict[str, int]:
    """Count a call's floating-point operations by torch's counter, and the most bytes of its tensors at one moment."""
    with FlopCounterMode(display=False, custom_mapping=CPU_ATTENTION) as operations:
        step()
    with PeakMemory() as memory:  # in a second call: the counter of operations keeps what checkpointing would free
        step()
    return {"flop": operations.get_total_flops(), "peak_bytes": memory.peak}


def benchmark_steps(steps: dict[str, Step], device: torch.device, repeats: int) -> Rows:
    """Count operations and bytes of every step, which also warms it up, then time all in turns, in seconds."""
    rows: Rows = {name: count_operations(step) for name, step in steps.items() if name != "compiled"}
    if "compiled" in steps:  # the counters do not see its operations
        rows["compiled"] = {"flop": rows["LoopedGPT2"]["flop"], "peak_bytes": None}
        timed(steps["compiled"], device)
    for name, seconds in time_in_turns(steps, device, range(repeats), SECONDS_PER_ROW * len(steps)).items():
        span = {"median": statistics.median(seconds), "min": min(seconds), "max": max(seconds)}
        rows[name] |= span | {"repeats": len(seconds)}
    return rows


def matmul_peak(device: torch.device, dtype: torch.dtype) -> float:
    """Best rate in FLOP/s of a matmul of the model's sizes, (5248, 256) @ (256, 1024)."""
    left = torch.randn(5248, 256, device=device, dtype=dtype)
    right = torch.randn(256, 1024, device=device, dtype=dtype)
    seconds = [timed(lambda: [left @ right for _ in range(3)], device) for _ in range(8)]
    return 3 * 2 * 5248 * 256 * 1024 / min(seconds)
