"""The study of mechanisms: what is varied, on what, and for how many steps so that all cost the same operations."""

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from scripts.common.records import read_recipe
from scripts.studies.study_run import StudyRun
from scripts.studies.variants import RECIPES
from scripts.training.cost import training_flops


Fields = dict[str, Any]

SEEDS = (0, 1, 2)
BASE = "add"
FULL_STEPS = 20_000
PROBED_STEPS = 1000


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


class Grid:
    """
    The runs of the study: a cell `problem/mechanism/seed` each.

    Args:
        output_dir (`Path`):
            Folder of the study; that of a run is the name of its cell.
        full (`bool`):
            Whether the size is that of `--full`.
        max_steps (`int`, *optional*):
            Steps of the base model; all else that its recipe counts in steps changes with it. Default: the recipe's.
        more (`Sequence[str]`):
            Flags of train.py for every cell; a field that a mechanism changes is the mechanism's.
    """

    cells = tuple(
        f"{problem}/{mechanism}/{seed}" for problem in PROBLEMS for mechanism in MECHANISMS for seed in SEEDS
    )

    def __init__(self, output_dir: Path, full: bool, max_steps: int | None, more: Sequence[str]):
        self.output_dir, self.more = output_dir, more
        self.full, self.max_steps = full, max_steps or (FULL_STEPS if full else None)

    def run(self, cell: str) -> StudyRun:
        """The training of a cell. Ends the program as `parse_arguments` does where a flag cannot be used."""
        problem, mechanism, seed = cell.split("/")
        return StudyRun.from_fields(self._fields(problem, mechanism) | {"seed": int(seed)}, self.output_dir / cell)

    @cache  # noqa: B019
    def _base(self, problem: str) -> Fields:
        """The fields of the base model."""
        fields = read_recipe(PROBLEMS[problem].recipe) | (PROBLEMS[problem].full if self.full else {})
        if self.max_steps is not None:
            fields = scaled(fields, self.max_steps)
        return StudyRun.from_fields(fields, self.output_dir, self.more).arguments.as_dict()

    @cache  # noqa: B019
    def _fields(self, problem: str, mechanism: str) -> Fields:
        """The fields of a mechanism, with as many steps as take the operations of the base model."""
        base = self._base(problem)
        fields = base | MECHANISMS[mechanism].fields(base["n_loops"])
        ratio = self._operations(base) / self._operations(fields)
        return scaled(fields, max(1, round(base["max_steps"] * ratio)))

    def _operations(self, fields: Fields) -> int:
        """Operations of a training of these fields, but of fewer steps: each draws its loops, which takes time."""
        return training_flops(StudyRun.from_fields(scaled(fields, PROBED_STEPS), self.output_dir).arguments)


def scaled(fields: Fields, max_steps: int) -> Fields:
    """The fields of a run of `max_steps`, with all else that is counted in steps in the same relation to them."""
    ratio = max_steps / int(fields["max_steps"])
    counted = {name: int(int(fields[name]) * ratio) for name in ("warmup_steps", "decay_steps")}
    schedules = {
        size: growth
        | {"interval": max(1, int(int(growth["interval"]) * ratio)), "hold": int(int(growth["hold"]) * ratio)}
        for size, growth in fields["schedules"].items()
    }
    return fields | counted | {"max_steps": max_steps, "schedules": schedules}
