"""
Gradients of loops that have settled without unrolling them: training takes the memory of one loop.

All loops but the last run without gradient. Where they have settled, the state z = F(z, e) that the last loop gets is
also what it leaves, so a gradient w at that state stands for all loops before: g = w + J^T w + J^T J^T w + ..., which
solves g = w + J^T g with J = dF/dz. This is the implicit function theorem. A solver finds g from products of J^T with
vectors alone. A new one is a function and an entry of `SOLVERS`.

Where loops have not settled, or are not all alike, this is the gradient of a model that repeats its last loop.

Sources: Bai, Kolter, Koltun, "Deep Equilibrium Models" (NeurIPS 2019); Geng et al., "On Training Implicit Models"
(NeurIPS 2021); Schoene et al., "Implicit Language Models are RNNs" (ICML 2025).
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch.autograd.function import once_differentiable
from transformers.models.gpt2.configuration_gpt2 import GPT2Config

from .solvers_looped_gpt2 import Loop, run_until
from .stop_rules_looped_gpt2 import StopRule


Pull = Callable[[torch.Tensor], torch.Tensor]  # J^T g of g, both (R, T, E)

# the share of g that a term adds, in every row, below which it is the last: a tenth of what a batch's noise hides
TOLERANCE = 1e-4
# the share of a damped step that is new (Schoene et al.)
DAMPING = 0.8


def add_terms(pull: Pull, grad: torch.Tensor, n_steps: int) -> torch.Tensor:
    """
    Return at most `n_steps` terms of `grad` + J^T `grad` + J^T J^T `grad` + ..., all `(R, T, E)`.

    The sum ends once a term adds less than `TOLERANCE` to every row. Where J does not contract, terms grow without
    end: a row keeps its sum up to its smallest term.
    """
    total = term = best = grad
    least = _row_norms(grad)
    for _ in range(n_steps - 1):
        term = pull(term)
        total = total + term
        size = _row_norms(term)
        best = torch.where(size < least, total, best)
        least = torch.minimum(size, least)
        if (size <= TOLERANCE * _row_norms(total)).all():
            break
    return best


def take_damped_steps(pull: Pull, grad: torch.Tensor, n_steps: int) -> torch.Tensor:
    """
    Return g `(R, T, E)` after `n_steps` steps g <- (1 - tau) g + tau (`grad` + J^T g) from 0, tau = `DAMPING`.

    It is what as many steps z <- (1 - tau) z + tau F(z) before the last loop would hand back, without their memory
    (the phantom gradient of Geng et al., as a sum).
    """
    solved = DAMPING * grad
    for _ in range(n_steps - 1):
        solved = (1 - DAMPING) * solved + DAMPING * (grad + pull(solved))
    return solved


class Solver(NamedTuple):
    """
    How the gradient at a settled state is found.

    Args:
        solve (`Callable`):
            From J^T, as a function, the gradient at the state before the last loop `(R, T, E)` and a number of steps:
            the gradient that all loops before it hand back, of the same shape.
        n_steps (`int`):
            Products with J^T for a gradient, or the most of them; the first gives the gradient to begin with.
    """

    solve: Callable[[Pull, torch.Tensor, int], torch.Tensor]
    n_steps: int


# `None`: the gradient flows back through every loop of the window
SOLVERS = {"unrolled": None, "implicit": Solver(add_terms, 32), "damped": Solver(take_damped_steps, 4)}


def solver_of(config: GPT2Config) -> Solver | None:
    """Return the solver of a configuration with its steps, `None` for loops that are unrolled."""
    solver = SOLVERS[config.solver]
    return solver if solver is None or config.solver_steps is None else solver._replace(n_steps=config.solver_steps)


def solved(loop: Loop, solver: Solver) -> Loop:
    """Return the loop which, where gradients flow, hands back those of all loops before it in place of its own."""

    def run(state: torch.Tensor, number: int, rows: torch.LongTensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        if not torch.is_grad_enabled():
            return loop(state, number, rows)
        # no leaf: hooks that count or time operations are not made for leaves
        state = state.detach().requires_grad_().view_as(state)
        return _Solved.apply(solver, state, *loop(state, number, rows))

    return run


def run_until_last(
    loop: Loop, state: torch.Tensor, rules: Sequence[StopRule]
) -> tuple[list[torch.Tensor], torch.LongTensor]:
    """
    As [`run_until`] without gradient, then the last loops of all rows once more, together and with it.

    Returns the output of each row's last loop, alone in a list, and the number of loops `(B,)` that each row ran. The
    last loops all have the number of the row that runs longest.
    """

    def keep_before(state: torch.Tensor, number: int, rows: torch.LongTensor) -> tuple[torch.Tensor, torch.Tensor]:
        return state, loop(state, number, rows)[1]

    with torch.no_grad():
        (before,), n_loops_used = run_until(keep_before, state, rules)
    output, _ = loop(before, int(n_loops_used.max()) - 1, None)
    return [output], n_loops_used


class _Solved(torch.autograd.Function):
    """The output of a loop and its next state, as they are; what loops before hand back joins the state's gradient."""

    @staticmethod
    def forward(ctx, solver: Solver, before: torch.Tensor, output: torch.Tensor, after: torch.Tensor):
        ctx.set_materialize_grads(False)
        ctx.solver, ctx.before, ctx.results = solver, before, (output, after)
        return output.view_as(output), after.view_as(after)

    @staticmethod
    @once_differentiable
    def backward(ctx, *grads: torch.Tensor | None):
        # sums are at least in float32; parameters get their gradients once, from the loop itself
        dtype = torch.promote_types(ctx.before.dtype, torch.float32)

        def pull(results: Sequence[torch.Tensor], grads: Sequence[torch.Tensor]) -> torch.Tensor:
            return torch.autograd.grad(results, ctx.before, grads, retain_graph=True)[0].to(dtype)

        def pull_state(grad: torch.Tensor) -> torch.Tensor:
            return pull((after,), (grad.to(after.dtype),))

        (_, after), (grad_output, grad_after) = ctx.results, grads
        given = [(result, grad) for result, grad in zip(ctx.results, grads, strict=True) if grad is not None]
        solved = ctx.solver.solve(pull_state, pull(*zip(*given, strict=True)), ctx.solver.n_steps).to(after.dtype)
        return None, None, grad_output, solved if grad_after is None else grad_after + solved


def _row_norms(states: torch.Tensor) -> torch.Tensor:
    """Norms of the rows of `(R, T, E)`, `(R, 1, 1)`."""
    return states.flatten(1).norm(dim=1)[:, None, None]
