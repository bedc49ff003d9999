"""The paper's studies: the variants of each, and the recipes that they change."""

from collections.abc import Callable
from pathlib import Path
from typing import Any


RECIPES = Path(__file__).parents[1] / "recipes"
SMALL, FULL = RECIPES / "study.yaml", RECIPES / "linear_regression_paper.yaml"

# for each variant, by name, the fields that it changes; `None` is the field's default
Variants = dict[str, dict[str, Any]]


def vary_injection(full: bool) -> Variants:
    """Figure 3: the prompt added to every loop, or seen once and the weights merely tied."""
    # at the default size, twelve loops that all must pass the prompt on do not leave the plateau
    few = {} if full else {"n_loops": 6, "n_loops_interval": 50}
    return {"add": few, "none": {"input_injection": "none", "loop_window": None, **few}}


def vary_loops(full: bool) -> Variants:
    """Figure 4: loops b at the end of training and the last T of them with loss and gradient."""
    loops, windows = ((12, 20, 30, 40, 50), (5, 10, 15)) if full else ((6, 12), (3, 6, 12))
    grid = [(b, window) for b in loops for window in windows if window <= b]
    return {
        f"b={b}, T={window}": {"n_loops": b, "loop_window": window} | ({"n_loops_start": window} if full else {})
        for b, window in grid
    }


def vary_pool(full: bool) -> Variants:
    """Figure 5: the number of distinct training prompts, met again and again, of looped and standard models."""
    sizes = (64 * 10**3, 64 * 10**4, None) if full else (256, 4096, None)
    # twelve different blocks do not leave the plateau at the default size
    kinds = {"looped": {}, "standard": standard(12 if full else 6)}
    return {
        f"{kind}, {'endless' if size is None else f'{size:,} prompts'}": {"n_distinct_prompts": size, **overrides}
        for kind, overrides in kinds.items()
        for size in sizes
    }


def vary_architecture(full: bool) -> Variants:
    """Figure 7: blocks in the loop, width and heads of looped models, and standard ones of several depths."""
    width, depths = (256, (1, 2, 4, 8, 12)) if full else (128, (2, 6, 12))
    looped = {"looped": {}, "looped, L=2": {"n_layer": 2}, "looped, half as wide": {"n_embd": width // 2}}
    looped["looped, one head"] = {"n_head": 1}
    return looped | {f"standard, L={depth}": standard(depth) for depth in depths}


def standard(n_layer: int) -> dict[str, Any]:
    """The fields of a standard transformer: `n_layer` different blocks, each run once."""
    return {"n_layer": n_layer, "n_loops": 1, "n_loops_start": None, "loop_window": None}


def vary_schedule(full: bool) -> Variants:
    """Section 5.1 and Huginn: loops that grow by a schedule, that are all there at first, or drawn at every step."""
    constant = {"n_loops_start": None}
    return {"scheduled": {}, "constant": constant, "random": {**constant, "n_loops_min": 1, "loop_window": None}}


def vary_guidance(full: bool) -> Variants:
    """Three classes in one model, with and without a first point that names the class of the prompt."""
    components = {"linear_regression": 1, "sparse_linear_regression": 2, "decision_tree": 3}
    fields, n_points = {"task": "mixture"}, 41
    if not full:
        components |= {"sparse_linear_regression": {"weight": 2, "sparsity": 1}}
        components |= {"decision_tree": {"weight": 3, "depth": 2}}
        fields |= {"n_loops": 6, "n_loops_interval": 50, "max_steps": 1200, "decay_steps": 720}
        n_points = 15
    settings = {"no name": {"components": components}, "named": {"components": components, "guidance": True}}
    # with a name, one point more shows as many examples
    sizes = {"no name": n_points, "named": n_points + 1}
    return {name: {**fields, "task_settings": settings[name], "n_points": sizes[name]} for name in settings}


STUDIES: dict[str, Callable[[bool], Variants]] = {
    "injection": vary_injection,
    "loops": vary_loops,
    "pool": vary_pool,
    "architecture": vary_architecture,
    "schedule": vary_schedule,
    "guidance": vary_guidance,
}
