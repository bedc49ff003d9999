"""How many floating-point operations a training run takes, from its recipe alone."""

from scripts.arguments import Arguments


def training_flops(arguments: Arguments) -> int:
    """
    Floating-point operations of the matrix products of a run, a multiply-add counted as two.

    A block of width E costs 24 E^2 + 4 N E a token of an N-token prompt (projections and MLP, scores and weighted
    sum); loops before the window run forward only, those in it forward and backward, three times as much. Read-in,
    read-out and the optimizer, well under 1% together, are left out.

    Args:
        arguments ([`Arguments`]):
            The run; its curriculum and loop counts are followed step by step.
    """
    model, optimization = arguments.model, arguments.optimization
    n_points = arguments.stream.n_points
    total = 0
    for step in range(optimization.max_steps):
        n_loops, loop_window = arguments.loops.at(step, model.n_loops, optimization.seed)
        n_tokens = 2 * n_points.at(step) - 1
        block = n_tokens * (24 * model.n_embd**2 + 4 * n_tokens * model.n_embd)
        total += block * (n_loops + 2 * (loop_window or n_loops))
    return total * optimization.batch_size * model.n_layer
