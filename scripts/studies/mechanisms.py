"""The study of mechanisms: what is varied, on what, and for how many steps so that all cost the same operations."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from scripts.common.records import read_recipe
from scripts.studies.grid import SEEDS, Fields, Grid
from scripts.studies.variants import RECIPES


BASE = "add"


class Problem(NamedTuple):
    """
    What is learned.

    Args:
        title (`str`):
            What the table and the picture call it.
        recipe (`Path`):
            Recipe of the base model: one block, run again and again, the prompt added to it.
        full (`dict`):
            Fields of the recipe that `--full` changes.
    """

    title: str
    recipe: Path
    full: Fields


FULL_MODEL = {"n_embd": 256, "n_head": 8, "n_loops": 12, "n_loops_min": 6, "compile": "auto"}
PROBLEMS = {
    "linear": Problem(
        "linear functions", RECIPES / "mechanisms_linear.yaml", {**FULL_MODEL, "n_dims": 10, "n_points": 21}
    ),
    "tree": Problem(
        "decision trees",
        RECIPES / "mechanisms_tree.yaml",
        {**FULL_MODEL, "n_dims": 10, "n_points": 41, "task_settings": {"depth": 3}},
    ),
    "chains": Problem(
        "pointer chains",
        RECIPES / "mechanisms_chains.yaml",
        {**FULL_MODEL, "task_settings": {"n_nodes": 16, "max_hops": 6}},
    ),
}


class Mechanism(NamedTuple):
    """
    One way to loop.

    Args:
        title (`str`):
            What the table and the picture call it.
        fields (`Callable`):
            From the number of blocks that a prompt passes to the fields of a recipe that the mechanism changes; `None`
            in them is the field's default.
    """

    title: str
    fields: Callable[[int], Fields]


def loops(n_loops: int, **fields: Any) -> Fields:
    """Fields of a model of `n_loops`, drawn at every step from half of them to all."""
    return {"n_loops": n_loops, "n_loops_min": max(1, n_loops // 2), **fields}


def untied(n_layer: int) -> Fields:
    """Fields of a standard transformer: different blocks, each run once."""
    return {"n_layer": n_layer, "n_loops": 1, "n_loops_min": None}


MECHANISMS = {
    BASE: Mechanism("prompt added", loops),
    "none": Mechanism("prompt seen once", lambda depth: loops(depth, input_injection="none")),
    "multiply": Mechanism("prompt multiplied", lambda depth: loops(depth, input_injection="multiply")),
    "concat": Mechanism("prompt beside the state", lambda depth: loops(depth, input_injection="concat")),
    "gated": Mechanism("prompt added, state decays", lambda depth: loops(depth, input_injection="gated")),
    "step_scale": Mechanism(
        "step t scales", lambda depth: loops(depth, loop_encoding="step", loop_encoding_parts="scale")
    ),
    "step_gate": Mechanism(
        "step t gates", lambda depth: loops(depth, loop_encoding="step", loop_encoding_parts="gate")
    ),
    "step_both": Mechanism(
        "step t scales and gates", lambda depth: loops(depth, loop_encoding="step", loop_encoding_parts="both")
    ),
    "share_both": Mechanism(
        "share t / T scales and gates", lambda depth: loops(depth, loop_encoding="share", loop_encoding_parts="both")
    ),
    "adapters": Mechanism("adapters of rank 4 per loop", lambda depth: loops(depth, adapter_rank=4)),
    "two_blocks": Mechanism("two blocks, in turns", lambda depth: loops(depth // 2, n_layer=2)),
    "block_loops": Mechanism(
        "two blocks, the first twice", lambda depth: loops(depth // 3, n_layer=2, block_loops=[2, 1])
    ),
    "prelude_coda": Mechanism("a block before and after", lambda depth: loops(depth - 2, n_prelude=1, n_coda=1)),
    "implicit": Mechanism("implicit gradient", lambda depth: loops(depth, solver="implicit", loop_window=1)),
    "damped": Mechanism("gradient of damped steps", lambda depth: loops(depth, solver="damped", loop_window=1)),
    "window": Mechanism("attention to the last 8 tokens", lambda depth: loops(depth, attention_window=8)),
    "no_positions": Mechanism("no positions", lambda depth: loops(depth, position_embedding="none")),
    "untied": Mechanism("standard, of equal depth", untied),
    "one_block": Mechanism("standard, of equal parameters", lambda depth: untied(1)),
}


class MechanismGrid(Grid):
    """The study: a cell `problem/mechanism/seed` each."""

    cells = tuple(
        f"{problem}/{mechanism}/{seed}" for problem in PROBLEMS for mechanism in MECHANISMS for seed in SEEDS
    )
    files = tuple(PROBLEMS)
    full_steps = 20_000

    @cache  # noqa: B019
    def base(self, problem: str) -> Fields:
        """The fields of the base model."""
        return self.resolved(read_recipe(PROBLEMS[problem].recipe) | (PROBLEMS[problem].full if self.full else {}))

    @cache  # noqa: B019
    def fields(self, name: str) -> Fields:
        """The fields of a mechanism, with as many steps as take the operations of the base model."""
        problem, mechanism = name.split("/")
        base = self.base(problem)
        return self.as_costly(base | MECHANISMS[mechanism].fields(base["n_loops"]), base)
