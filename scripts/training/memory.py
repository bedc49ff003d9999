"""What a run needs of memory at the very least, before it begins."""

import os

from modeling_looped_gpt2.implicit_solvers_looped_gpt2 import solver_of
from scripts.common.devices import total_memory, uses_cpu
from scripts.common.fields import FieldGroups
from scripts.training.run_folder import RunError


def check_sizes(arguments: FieldGroups):
    """Raise `RunError` for a model, or on a CPU a step, that needs more memory at the very least than there is."""
    config, optimization = arguments.config, arguments.optimization
    n_blocks = config.n_prelude + config.n_layer + config.n_coda
    weights = config.n_embd * (12 * n_blocks * config.n_embd + config.n_positions + config.n_dims)
    check_memory("a model of this `n_prelude`, `n_layer`, `n_coda`, `n_embd`, `n_positions` and `n_dims`", 4 * weights)
    if uses_cpu():
        n_parts = optimization.gradient_accumulation_steps * int(os.environ.get("WORLD_SIZE", 1))
        # the state after every loop with a gradient
        states = optimization.batch_size // n_parts * config.n_positions * config.n_embd
        states *= 1 if solver_of(config) is not None else arguments.loops.loop_window or config.n_loops
        check_memory("a step of this `batch_size`, `n_loops` and `loop_window`", 2 * states)  # in bfloat16 at best


def check_memory(what: str, n_bytes: int):
    """Raise `RunError` where `what` needs more bytes than the machine has."""
    if n_bytes > total_memory():
        needed, there = n_bytes // 2**30, total_memory() // 2**30
        raise RunError(f"{what} needs at least {needed:,} GiB of memory, this machine has {there:,}.")
