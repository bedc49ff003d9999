"""Floating-point operations of a training run, from its recipe alone."""

from functools import cache, partial
from itertools import pairwise

from modeling_looped_gpt2 import LoopedGPT2Config
from modeling_looped_gpt2.implicit_solvers_looped_gpt2 import solver_of
from scripts.common.records import RecordError, read_json, read_json_lines
from scripts.training.prompt_arguments import Arguments
from tasks.curriculum import Schedule


def training_flops(arguments: Arguments) -> int:
    """
    Expected floating-point operations of the matrix products of a run, a multiply-add counted as two.

    A block of width E costs 24 E^2 + 4 N E a token of an N-token prompt (projections and MLP, scores and weighted
    sum); loops before the window run forward only, all else forward and backward, three times as much. The coda runs
    after every loop that is scored. What reads in and out, and the optimizer, well under 1% together for a function
    class, are left out, and so are encodings and adapters of a loop: changing the weights costs as much as a few
    tokens, 24 r E^2 in a loop with adapters of rank r.

    Args:
        arguments ([`Arguments`]):
            The run; its curriculum and loop counts are followed from one change to the next.
    """
    config, stream, optimization, loops = arguments.config, arguments.stream, arguments.optimization, arguments.loops
    schedules = (*stream.schedules.values(), arguments.n_loops_schedule)
    changes = {step for schedule in schedules for step in _changes(schedule, optimization.max_steps)}
    n_blocks = cache(partial(_passes, config, arguments.objective.scores_all_loops))
    entrance = 2 * INJECTIONS[config.input_injection].n_matrices * config.n_embd**2  # of a token in a loop
    total = 0
    for first, end in pairwise(sorted({0, *changes, optimization.max_steps})):
        n_tokens = arguments.n_tokens(**stream.sizes_at(first))
        block = n_tokens * (24 * config.n_embd**2 + 4 * n_tokens * config.n_embd)
        is_drawn = loops.n_loops_min is not None
        for step in range(first, end) if is_drawn else [first]:
            n_loops, loop_window = loops.at(step, config.n_loops, optimization.seed)
            n_entrances = n_loops + 2 * (loop_window or n_loops)
            step_flops = block * n_blocks(n_loops, loop_window) + n_tokens * entrance * n_entrances
            total += step_flops * (1 if is_drawn else end - first)
    return total * optimization.batch_size


def _passes(config: LoopedGPT2Config, scores_all_loops: bool, loop_window: int | None, n_loops: int) -> int:
    """Passes through a block in a step of these loops, those with a gradient counted three times."""
    plan, solver = config.plan(n_loops), solver_of(config)
    n_products = 0 if solver is None else solver.n_steps
    window = 1 if solver is not None else loop_window or n_loops
    n_scored = window if scores_all_loops or loop_window else 1
    n_trained = len(plan.prelude) + sum(map(len, plan.loops[-window:])) + len(plan.coda) * n_scored
    return 3 * n_trained + sum(map(len, plan.loops[:-window])) + n_products * len(plan.loops[-1])


def _changes(schedule: Schedule, max_steps: int) -> range:
    """The steps below `max_steps` at which a schedule grows."""
    n_growths = -(-(schedule.end - schedule.start) // schedule.increment)
    first = schedule.hold + schedule.interval
    return range(first, min(first + n_growths * schedule.interval, max_steps), schedule.interval)
