"""Turns of x, the same at all points of a prompt, under which a class of functions stays the class that it is."""

from collections.abc import Callable

import torch

from .common import Task, draw_normal, draw_uniform


def draw_rotations(n_turns: int, n_dims: int, generator: torch.Generator) -> torch.Tensor:
    """Orthogonal matrices `(n_turns, D, D)`, all equally likely."""
    basis, triangle = torch.linalg.qr(draw_normal((n_turns, n_dims, n_dims), generator))
    # without these signs some would be likelier than others: Mezzadri, Notices of the AMS 54 (2007)
    return basis * triangle.diagonal(dim1=1, dim2=2).sign()[:, None]


def draw_signed_permutations(n_turns: int, n_dims: int, generator: torch.Generator) -> torch.Tensor:
    """Matrices `(n_turns, D, D)` that permute the axes and turn some around, all equally likely."""
    order = draw_uniform((n_turns, n_dims), generator).argsort(dim=1)
    signs = 2 * torch.randint(2, (n_turns, 1, n_dims), generator=generator, device=generator.device) - 1
    return torch.eye(n_dims, device=generator.device)[order] * signs


TURNS: dict[str, Callable[[int, int, torch.Generator], torch.Tensor]] = {
    "rotations": draw_rotations,
    "signed permutations": draw_signed_permutations,
}


def draw_turns(task: Task, n_turns: int, generator: torch.Generator) -> torch.Tensor | None:
    """
    Draw turns of the xs of a task's prompts, the first of which leaves them as they are.

    Args:
        task ([`Task`]):
            A class of functions with `turns`; any task where one turn is enough.
        n_turns (`int`):
            Turns, >= 1.
        generator (`torch.Generator`):
            Decides them.

    Returns:
        Matrices `(n_turns, D, D)`, float32, for `xs @ turn`; `None` for a single turn.

    Raises:
        `ValueError`: nothing is known that may be done to xs of the task.
    """
    if n_turns == 1:
        return None
    if task.turns is None:
        raise ValueError(f"`n_turns` must be 1 for {task.name}, of which no turns of x are known, got {n_turns}.")
    drawn = TURNS[task.turns](n_turns - 1, task.n_dims, generator)
    return torch.cat((torch.eye(task.n_dims)[None], drawn))
