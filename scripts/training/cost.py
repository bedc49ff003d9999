"""Floating-point operations of a training run, from its recipe alone."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import partial
from itertools import pairwise

from modeling_looped_gpt2 import LoopedGPT2Config
from modeling_looped_gpt2.example_orders_looped_gpt2 import order_of
from modeling_looped_gpt2.implicit_solvers_looped_gpt2 import solver_of
from modeling_looped_gpt2.injections_looped_gpt2 import INJECTIONS
from modeling_looped_gpt2.plan_looped_gpt2 import Step
from scripts.training.prompt_arguments import Arguments
from tasks.curriculum import Schedule


# steps whose sizes are drawn to count a run of tables: their mean is within about 1% of that of all
N_SHAPES = 10_000


def training_flops(arguments: Arguments) -> int:
    """
    Expected floating-point operations of the matrix products of a run, a multiply-add counted as two.

    A block of width E costs 24 E^2 + 4 N E a token of an N-token prompt (projections and MLP, scores and weighted
    sum). A table of P rows and D columns has P (D + 1) tokens, and N is P for the blocks that see columns, what their
    mask hides included, and D + 1 for those that see rows. A matrix on the way into a loop costs 2 E^2; loops before
    the window run forward only, all else forward and backward, three times as much. The coda runs after every loop
    that is scored. A solver has a window of one loop and passes through it once more for each of its products, the
    most that `implicit` takes. What reads in and out, and the optimizer, well under 1% together for a function class,
    are left out, and so are encodings and adapters of a loop: changing the weights costs as much as a few tokens,
    24 r E^2 in a loop with adapters of rank r.

    Where the loops of every step are drawn, a step counts as the mean over what it may draw: the sum of a run of
    thousands of steps is within 0.5% of that. Where the sizes of tables are drawn, it counts as the mean over up to
    `N_SHAPES` steps of the run. Without draws the count is exact. Where rows have loops of their own, all run those of
    the row with the most; those of the first step count for all steps of the same sizes.

    Args:
        arguments ([`Arguments`]):
            The run; its curriculum and loop counts are followed from one change to the next.
    """
    config, stream, optimization, loops = arguments.config, arguments.stream, arguments.optimization, arguments.loops
    schedules = (*stream.schedules.values(), arguments.n_loops_schedule)
    changes = {step for schedule in schedules for step in _changes(schedule, optimization.max_steps)}
    total = 0
    for first, end in pairwise(sorted({0, *changes, optimization.max_steps})):
        highest = arguments.n_loops_schedule.at(first)
        counts = range(loops.n_loops_min or highest, highest + 1)
        if stream.row_loops is not None:
            counts = [int(stream.batch(first)["n_loops"].max())]
        shapes = _lengths(arguments, range(first, end))
        flops = 0
        for lengths, n_drawn in shapes.items():
            step = partial(_token_flops, config, lengths, arguments.objective.scores_all_loops, loops.loop_window)
            flops += n_drawn * math.prod(lengths) * sum(map(step, counts))
        total += (end - first) * flops // (len(counts) * shapes.total())
    return total * optimization.batch_size


def _lengths(arguments: Arguments, steps: range) -> Counter[tuple[int, ...]]:
    """How often sequences of these lengths are what blocks see in turns, in some of `steps` of the same sizes."""
    stream, order = arguments.stream, order_of(arguments.config)
    sizes = stream.sizes_at(steps[0])
    if not stream.task.has_queries:
        return Counter([order.lengths(arguments.n_tokens(**sizes), arguments.config.n_dims)])
    drawn = steps[:: -(-len(steps) // N_SHAPES)]
    return Counter(order.lengths(*stream.task.draw_shape(stream.generator(step), **sizes)) for step in drawn)


def _token_flops(
    config: LoopedGPT2Config,
    lengths: Sequence[int],
    scores_all_loops: bool,
    loop_window: int | None,
    n_loops: int,
) -> int:
    """Operations of a step of these loops for one token of a prompt; what has a gradient counts three times."""

    def flops(steps: Iterable[Step]) -> int:
        return sum(24 * config.n_embd**2 + 4 * lengths[step.block % len(lengths)] * config.n_embd for step in steps)

    plan, solver = config.plan(n_loops), solver_of(config)
    n_products = 0 if solver is None else solver.n_steps
    window = 1 if solver is not None else min(loop_window or n_loops, n_loops)
    n_scored = window if scores_all_loops or loop_window else 1
    trained = flops(plan.prelude) + sum(map(flops, plan.loops[-window:])) + flops(plan.coda) * n_scored
    blocks = 3 * trained + sum(map(flops, plan.loops[:-window])) + n_products * flops(plan.loops[-1])
    n_matrices = INJECTIONS[config.input_injection].n_matrices * (n_loops + 2 * window + n_products)
    return blocks + 2 * config.n_embd**2 * n_matrices


def _changes(schedule: Schedule, max_steps: int) -> range:
    """The steps below `max_steps` at which a schedule grows."""
    n_growths = -(-(schedule.end - schedule.start) // schedule.increment)
    first = schedule.hold + schedule.interval
    return range(first, min(first + n_growths * schedule.interval, max_steps), schedule.interval)
