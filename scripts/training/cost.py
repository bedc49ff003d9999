"""Floating-point operations of a training run, from its recipe alone."""

from functools import partial
from itertools import pairwise

from modeling_looped_gpt2 import LoopedGPT2Config
from modeling_looped_gpt2.implicit_solvers_looped_gpt2 import solver_of
from modeling_looped_gpt2.injections_looped_gpt2 import INJECTIONS
from scripts.training.prompt_arguments import Arguments
from tasks.curriculum import Schedule


def training_flops(arguments: Arguments) -> int:
    """
    Expected floating-point operations of the matrix products of a run, a multiply-add counted as two.

    A block of width E costs 24 E^2 + 4 N E a token of an N-token prompt (projections and MLP, scores and weighted
    sum), a matrix on the way into a loop 2 E^2; loops before the window run forward only, all else forward and
    backward, three times as much. The coda runs after every loop that is scored. A solver has a window of one loop
    and passes through it once more for each of its products, the most that `implicit` takes. What reads in and out,
    and the optimizer, well under 1% together for a function class, are left out, and so are encodings and adapters of
    a loop: changing the weights costs as much as a few tokens, 24 r E^2 in a loop with adapters of rank r.

    Where the loops of every step are drawn, a step counts as the mean over what it may draw: the sum of a run of
    thousands of steps is within 0.5% of that. Without draws the count is exact.

    Args:
        arguments ([`Arguments`]):
            The run; its curriculum and loop counts are followed from one change to the next.
    """
    config, stream, optimization, loops = arguments.config, arguments.stream, arguments.optimization, arguments.loops
    schedules = (*stream.schedules.values(), arguments.n_loops_schedule)
    changes = {step for schedule in schedules for step in _changes(schedule, optimization.max_steps)}
    total = 0
    for first, end in pairwise(sorted({0, *changes, optimization.max_steps})):
        n_tokens = arguments.n_tokens(**stream.sizes_at(first))
        highest = arguments.n_loops_schedule.at(first)
        counts = range(loops.n_loops_min or highest, highest + 1)
        step = partial(_token_flops, config, n_tokens, arguments.objective.scores_all_loops, loops.loop_window)
        total += (end - first) * n_tokens * sum(map(step, counts)) // len(counts)
    return total * optimization.batch_size


def _token_flops(
    config: LoopedGPT2Config, n_tokens: int, scores_all_loops: bool, loop_window: int | None, n_loops: int
) -> int:
    """Operations of a step of these loops for one of `n_tokens` tokens; what has a gradient counts three times."""
    plan, solver = config.plan(n_loops), solver_of(config)
    n_products = 0 if solver is None else solver.n_steps
    window = 1 if solver is not None else min(loop_window or n_loops, n_loops)
    n_scored = window if scores_all_loops or loop_window else 1
    n_trained = len(plan.prelude) + sum(map(len, plan.loops[-window:])) + len(plan.coda) * n_scored
    n_blocks = 3 * n_trained + sum(map(len, plan.loops[:-window])) + n_products * len(plan.loops[-1])
    n_matrices = INJECTIONS[config.input_injection].n_matrices * (n_loops + 2 * window + n_products)
    block = 24 * config.n_embd**2 + 4 * n_tokens * config.n_embd
    return block * n_blocks + 2 * config.n_embd**2 * n_matrices


def _changes(schedule: Schedule, max_steps: int) -> range:
    """The steps below `max_steps` at which a schedule grows."""
    n_growths = -(-(schedule.end - schedule.start) // schedule.increment)
    first = schedule.hold + schedule.interval
    return range(first, min(first + n_growths * schedule.interval, max_steps), schedule.interval)
