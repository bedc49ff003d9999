"""The fields of a training run: dataclasses, read from a YAML recipe and then from the command line; the last wins."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from modeling_looped_gpt2 import LoopedGPT2Config
from scripts.common.fields import FieldGroups
from tasks import TASKS, make_task
from tasks.curriculum import Schedule, draw_n_loops
from tasks.streams import Stream


# the largest that numpy takes
LARGEST_SEED = 2**32 - 1
# of the number in a checkpoint's name, by which checkpoints are ordered
LARGEST_STEP = 10**9 - 1


def described(default: Any, text: str) -> Any:
    """A dataclass field with its `--help` line."""
    return field(default=default, metadata={"help": text})


def check_at_least(least: int, group: object, *names: str):
    """Raise `ValueError` for the first of the fields `names` of `group` that is below `least`."""
    for name in names:
        if getattr(group, name) < least:
            raise ValueError(f"`{name}` must be >= {least}, got {getattr(group, name)}.")


@dataclass
class ModelArguments:
    """Architecture and initial weights, as in `LoopedGPT2Config`."""

    _argument_group_name = "architecture and initial weights"

    n_layer: int = described(1, "Blocks inside the loop.")
    n_head: int = described(8, "Attention heads.")
    n_embd: int = described(256, "Width, a multiple of n_head.")
    n_positions: int | None = described(None, "Longest prompt in tokens, two a point. Default: 2 * n_points.")
    n_loops: int = described(20, "Loops at the end of training and by default afterwards (the paper's b).")
    input_injection: Literal["add", "multiply", "none"] = described("add", "How the prompt enters every loop.")
    initializer_range: float = described(0.02, "Standard deviation of the blocks' initial weights.")
    read_in_initializer_range: float = described(0.25, "Standard deviation of the initial read-in weights.")
    position_initializer_range: float = described(0.1, "Standard deviation of the initial position embeddings.")
    attn_implementation: str = described("auto", "eager, sdpa, ...; auto: eager on a CPU, sdpa on a GPU.")
    initial_model: str | None = described(
        None, "Folder or Hub repository of a model of the same shapes, or fewer positions, that the run starts from."
    )


@dataclass
class TaskArguments:
    """The function class and its curriculum."""

    _argument_group_name = "function class and curriculum"

    task: Literal[tuple(TASKS)] = field(metadata={"help": "Function class."})
    n_dims: int = described(20, "Dimension of x.")
    n_points: int = described(41, "Points of a prompt at the end of the curriculum.")
    n_dims_start: int | None = described(None, "Dimensions in use at first. Default: all from the start.")
    n_dims_increment: int = described(1, "Dimensions added at a time.")
    n_dims_interval: int = described(5000, "Steps between two additions of dimensions.")
    n_points_start: int | None = described(None, "Points at first. Default: all from the start.")
    n_points_increment: int = described(2, "Points added at a time.")
    n_points_interval: int = described(5000, "Steps between two additions of points.")
    curriculum_hold: int = described(0, "Steps before dimensions and points begin to grow.")
    n_distinct_prompts: int | None = described(None, "Training prompts, met again and again. Default: no end of them.")

    def __post_init__(self):
        check_at_least(1, self, "n_dims", "n_dims_increment", "n_dims_interval")
        check_at_least(1, self, "n_points", "n_points_increment", "n_points_interval")
        check_at_least(0, self, "curriculum_hold")


@dataclass
class LoopArguments:
    """Loops during training."""

    _argument_group_name = "loops during training"

    loop_window: int | None = described(None, "Last loops with loss and gradient (the paper's T). Default: all.")
    n_loops_start: int | None = described(None, "Loops at first. Default: n_loops.")
    n_loops_increment: int = described(2, "Loops added at a time.")
    n_loops_interval: int = described(500, "Steps between two additions of loops.")
    n_loops_min: int | None = described(
        None, "Draw each step's loops uniformly from n_loops_min to the scheduled count. Default: no draw."
    )

    def __post_init__(self):
        check_at_least(1, self, "n_loops_increment", "n_loops_interval")

    def schedule(self, n_loops: int) -> Schedule:
        """Loops at every step, before any draw, for a model of `n_loops`."""
        return _schedule("n_loops", self.n_loops_start, n_loops, self.n_loops_increment, self.n_loops_interval)

    def at(self, step: int, n_loops: int, seed: int) -> tuple[int, int | None]:
        """Loops and window of `step` in a run of finally `n_loops`; the window is `None` where it is all of them."""
        n_loops = self.schedule(n_loops).at(step)
        if self.n_loops_min is not None:
            n_loops = draw_n_loops(seed, step, self.n_loops_min, n_loops)
        return n_loops, None if self.loop_window is None else min(self.loop_window, n_loops)

    def check(self, config: LoopedGPT2Config):
        """Refuse what a model of this configuration cannot be trained with."""
        n_loops, start = config.n_loops, self.schedule(config.n_loops).start
        if self.loop_window is not None and not 1 <= self.loop_window <= n_loops:
            raise ValueError(f"`loop_window` must be in 1 ... `n_loops` = {n_loops}, got {self.loop_window}.")
        if self.n_loops_min is not None and not 1 <= self.n_loops_min <= start:
            raise ValueError(f"`n_loops_min` must be in 1 ... the first loop count {start}, got {self.n_loops_min}.")
        if config.input_injection == "none" and self.loop_window not in (None, n_loops):
            raise ValueError("`loop_window` must be left out with `input_injection: none`, which trains all loops.")


@dataclass
class OptimizationArguments:
    """Steps, learning rates and precision."""

    _argument_group_name = "optimization"

    max_steps: int = field(metadata={"help": "Optimizer steps."})
    batch_size: int = described(64, "Prompts of an optimizer step, over all processes and accumulation steps.")
    gradient_accumulation_steps: int = described(1, "Parts in which each process runs its prompts of a step.")
    optimizer: Literal["adamw", "muon"] = described(
        "muon", "adamw, or muon: torch.optim.Muon for the blocks' matrices and AdamW for all else."
    )
    learning_rate: float = described(1e-3, "Peak learning rate of AdamW.")
    muon_learning_rate: float = described(0.02, "Peak learning rate of Muon.")
    weight_decay: float = described(0.0, "Decoupled weight decay of matrices and embeddings.")
    warmup_steps: int = described(0, "First steps, over which the learning rate rises linearly to its peak.")
    decay_steps: int = described(0, "Last steps, over which the learning rate falls linearly to zero.")
    max_grad_norm: float = described(1.0, "Gradients are clipped to this norm; 0: never.")
    mixed_precision: Literal["auto", "no", "bf16"] = described(
        "auto", "auto: bf16 where the device computes in it natively, no elsewhere."
    )
    compile: Literal["auto", "no", "default", "reduce-overhead"] = described(
        "auto", "Mode of torch.compile for the blocks; auto: reduce-overhead (CUDA graphs) on a GPU, no on a CPU."
    )
    average_decay: float | None = described(
        None, "Keep, evaluate and export an exponential moving average of the weights with this decay. Default: none."
    )
    seed: int = described(42, "Seed of the initial weights, the prompts and the drawn loop counts.")

    def __post_init__(self):
        check_at_least(1, self, "max_steps", "batch_size", "gradient_accumulation_steps")
        check_at_least(0, self, "seed", "warmup_steps", "decay_steps")
        for name, largest in (("seed", LARGEST_SEED), ("max_steps", LARGEST_STEP)):
            if getattr(self, name) > largest:
                raise ValueError(f"`{name}` must be <= {largest}, got {getattr(self, name)}.")
        for name in ("learning_rate", "muon_learning_rate", "weight_decay", "max_grad_norm"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"`{name}` must be a finite number >= 0, got {getattr(self, name)}.")
        if self.average_decay is not None and not 0 < self.average_decay < 1:
            raise ValueError(f"`average_decay` must be in (0, 1), got {self.average_decay}.")
        if self.warmup_steps + self.decay_steps > self.max_steps:
            raise ValueError(
                f"`warmup_steps` + `decay_steps` must be <= `max_steps` = {self.max_steps}, got "
                f"{self.warmup_steps} + {self.decay_steps}: lower them too."
            )


@dataclass
class InContextOptimizationArguments(OptimizationArguments):
    """Steps, learning rates and precision, and what is minimised on prompts of examples."""

    loss_balance: float = described(
        0.0,
        "The loss of every loop and point is divided by this power of its own mean error in the batch: 0 is the "
        "paper's plain mean, 1 makes relative errors count alike.",
    )
    hint_weight: float = described(
        0.0,
        "Weight of a second loss: how far the hints of the class, read linearly from the states, are from true. The "
        "readers are left behind.",
    )

    def __post_init__(self):
        super().__post_init__()
        if not 0 <= self.loss_balance <= 1:
            raise ValueError(f"`loss_balance` must be in [0, 1], got {self.loss_balance}.")
        if not 0 <= self.hint_weight < float("inf"):
            raise ValueError(f"`hint_weight` must be a finite number >= 0, got {self.hint_weight}.")
        if self.loss_balance and self.gradient_accumulation_steps > 1:
            raise ValueError(
                "`loss_balance` looks at all prompts of a step at once: leave out `gradient_accumulation_steps`, got "
                f"{self.gradient_accumulation_steps}."
            )


@dataclass
class RunArguments:
    """Where and how often results are written; none of these changes the trained weights."""

    _argument_group_name = "the run and its records"

    output_dir: str = field(metadata={"help": "Folder of the run. Started again with it, a run goes on."})
    log_every: int = described(10, "Steps between two lines of log.jsonl.")
    eval_every: int = described(100, "Steps between two evaluations on held-out prompts; 0: never.")
    n_eval_prompts: int = described(256, "Held-out prompts of an evaluation.")
    save_every: int = described(100, "Steps between two checkpoints.")
    log_with: str | None = described(None, "Tracker beside log.jsonl by its Accelerate name, e.g. tensorboard.")

    def __post_init__(self):
        check_at_least(1, self, "log_every", "n_eval_prompts", "save_every")
        check_at_least(0, self, "eval_every")


@dataclass
class Arguments(FieldGroups):
    """All fields of a run and the objects they describe; building it refuses what cannot be trained."""

    model: ModelArguments
    task: TaskArguments
    loops: LoopArguments
    optimization: InContextOptimizationArguments
    run: RunArguments

    def __post_init__(self):
        config, _ = self.config, self.stream
        if config.n_positions < 2 * self.task.n_points - 1:
            raise ValueError(
                f"`n_positions` must be >= 2 * `n_points` - 1 = {2 * self.task.n_points - 1}, "
                f"got {config.n_positions}."
            )
        self.loops.check(config)

    @property
    def config(self) -> LoopedGPT2Config:
        """The model's configuration; the attention implementation depends on the machine and is no part of it."""
        settings = asdict(self.model)
        for name in ("attn_implementation", "initial_model"):
            settings.pop(name)
        if settings["n_positions"] is None:
            settings["n_positions"] = 2 * self.task.n_points
        return LoopedGPT2Config(**settings, n_dims=self.task.n_dims)

    @property
    def stream(self) -> Stream:
        """The training stream."""
        task = self.task
        function_class = make_task(task.task, n_dims=task.n_dims, n_points=task.n_points)
        dims = (task.n_dims_increment, task.n_dims_interval, task.curriculum_hold)
        points = (task.n_points_increment, task.n_points_interval, task.curriculum_hold)
        return Stream(
            function_class,
            self.optimization.batch_size,
            {
                "n_points": _schedule("n_points", task.n_points_start, task.n_points, *points),
                "n_dims_active": _schedule("n_dims", task.n_dims_start, task.n_dims, *dims),
            },
            seed=self.optimization.seed,
            n_distinct_prompts=task.n_distinct_prompts,
            with_hints=self.optimization.hint_weight > 0,
        )

    @property
    def n_loops_schedule(self) -> Schedule:
        """Loops at every step, before any draw."""
        return self.loops.schedule(self.model.n_loops)


def _schedule(name: str, start: int | None, end: int, *growth: int) -> Schedule:
    try:
        return Schedule(end if start is None else start, end, *growth)
    except ValueError as error:
        raise ValueError(f"`{name}_start` to `{name}`: {error}") from None


def parse_arguments(argv: Sequence[str] | None = None, description: str | None = None) -> Arguments:
    """
    Read `--recipe FILE` and flags, each flag winning over the recipe.

    Ends the program with status 2 and a message that names the field when a key is misspelt, a type is wrong or a
    value cannot be trained.
    """
    return Arguments.parse(argv, "--recipe FILE --output_dir DIR [--any_field value ...]", description)
