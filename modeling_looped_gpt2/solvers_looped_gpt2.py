"""
How loops follow each other. To a solver a loop is a function, without blocks, cache or prompt:

    loop(state, number, rows) -> (output, next state)

`number` counts the loops from 0; `rows` (R,) are the rows of the batch that still run, `None` for all. The first
dimension of states is that of the running rows.
"""

from collections import deque
from collections.abc import Callable, Sequence

import torch

from .stop_rules_looped_gpt2 import StopRule


Loop = Callable[[torch.Tensor, int, torch.LongTensor | None], tuple[torch.Tensor, torch.Tensor]]
# turns the output of a loop into a result of the model: (output, state, whether it is the last loop) -> a tensor
Finish = Callable[[torch.Tensor, torch.Tensor, bool], torch.Tensor]


def unroll(
    loop: Loop, finish: Finish, state: torch.Tensor, n_loops: int, loop_window: int, shows_window: bool = False
) -> list[torch.Tensor]:
    """
    Run `n_loops` loops, those before the last `loop_window` without gradient.

    Returns the finished output of the last loop, or with `shows_window` of each loop of the window, in order.
    """
    finished = []
    for number in range(n_loops):
        is_last = number == n_loops - 1
        in_window = number >= n_loops - loop_window
        with torch.set_grad_enabled(in_window and torch.is_grad_enabled()):
            output, state = loop(state, number, None)
        if is_last or (in_window and shows_window):
            finished.append(finish(output, state, is_last))
    return finished


def run_until(
    loop: Loop, state: torch.Tensor, rules: Sequence[StopRule], n_shown: int = 1
) -> tuple[list[torch.Tensor], torch.LongTensor]:
    """
    Run each row until any of the rules says that it is done; rows that are done are no longer computed.

    Returns the outputs of each row's own last `n_shown` loops, in order, and the number of loops `(B,)` that each row
    ran. The rules must let each row run at least `n_shown` loops.
    """
    rows = torch.arange(len(state), device=state.device)
    n_loops_used = torch.zeros_like(rows)
    latest, ended = deque(maxlen=n_shown), []
    number = 0
    while len(rows):
        before = state
        output, state = loop(before, number, rows)
        latest.append(output)
        done = torch.stack([rule(before, state, number, rows) for rule in rules]).any(0)
        number += 1
        if done.any():
            n_loops_used[rows[done]] = number
            ended.append((rows[done], [output[done] for output in latest]))
            rows, state = rows[~done], state[~done]
            latest = deque([output[~done] for output in latest], n_shown)
    order = torch.cat([rows for rows, _ in ended]).argsort()
    return [torch.cat(outputs)[order] for outputs in zip(*(shown for _, shown in ended), strict=True)], n_loops_used


def truncated(loop: Loop, starts: torch.LongTensor) -> Loop:
    """
    Return the loop without gradient for each row before its loop of number `starts` `(B,)`.

    Rows with and without gradient run apart, so that those without cost no memory for one.
    """

    def run(state: torch.Tensor, number: int, rows: torch.LongTensor) -> tuple[torch.Tensor, torch.Tensor]:
        carries = starts[rows] <= number
        groups = [(group, grad) for group, grad in ((~carries, False), (carries, True)) if group.any()]
        parts = []
        for group, grad in groups:
            with torch.set_grad_enabled(grad):
                parts.append(loop(state[group], number, rows[group]))
        order = torch.cat([rows[group] for group, _ in groups]).argsort()
        output, state = (torch.cat(tensors)[order] for tensors in zip(*parts, strict=True))
        return output, state

    return run
