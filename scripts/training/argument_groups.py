"""The groups of fields that every training run has."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from modeling_looped_gpt2 import LoopedGPT2Config
from modeling_looped_gpt2.implicit_solvers_looped_gpt2 import SOLVERS, solver_of
from modeling_looped_gpt2.injections_looped_gpt2 import INJECTIONS
from modeling_looped_gpt2.loop_weights_looped_gpt2 import ENCODED_PARTS, LOOP_ENCODINGS, SHARES_BEYOND
from modeling_looped_gpt2.positions_looped_gpt2 import POSITION_EMBEDDINGS
from scripts.common.fields import LIST, described, read_integers
from tasks.curriculum import Schedule, draw_n_loops


# the largest that numpy takes
LARGEST_SEED = 2**32 - 1
# of the number in a checkpoint's name, by which checkpoints are ordered
LARGEST_STEP = 10**9 - 1


def check_at_least(least: int, group: object, *names: str):
    """Raise `ValueError` for the first of the fields `names` of `group` that is given and below `least`."""
    for name in names:
        value = getattr(group, name)
        if value is not None and value < least:
            raise ValueError(f"`{name}` must be >= {least}, got {value}.")


def changed_fields(group: object, *names: str) -> list[str]:
    """Those of the fields `names` of a group that have another value than their default."""
    return [item.name for item in fields(group) if item.name in names and getattr(group, item.name) != item.default]


def schedule_of(where: str, **numbers: int) -> Schedule:
    """The [`Schedule`] of these numbers; raises `ValueError` that says `where` they are given."""
    try:
        return Schedule(**numbers)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


@dataclass
class ModelArguments:
    """Architecture and initial weights, as in `LoopedGPT2Config`."""

    _argument_group_name = "architecture and initial weights"

    n_layer: int = described(1, "Blocks inside the loop.")
    n_prelude: int = described(0, "Blocks before the loop, with weights of their own.")
    n_coda: int = described(0, "Blocks after the loop, with weights of their own.")
    n_head: int = described(8, "Attention heads.")
    n_embd: int = described(256, "Width, a multiple of n_head.")
    n_loops: int = described(20, "Loops at the end of training and by default afterwards (the paper's b).")
    input_injection: Literal[tuple(INJECTIONS)] = described("add", "How the prompt enters every loop.")
    solver: str = described("unrolled", f"How gradients reach the loops: {', '.join(SOLVERS)}.")
    solver_steps: int | None = described(
        None, "Steps of a solver for each gradient. Default: at most 32 of implicit, 4 of damped."
    )
    exit_gate: bool = described(False, "Give the model a gate that can end its loops, and train it (exit_prior_...).")
    block_loops: Sequence | str | None = described(
        None, "Times that each block of the loop runs in a row, e.g. [2, 1]. Default: once.", metavar=LIST
    )
    position_embedding: Literal[tuple(POSITION_EMBEDDINGS)] = described("learned", "What tells a token its place.")
    sinusoidal_base: float = described(1e4, "Longest wave of sinusoidal positions, in tokens over 2 pi.")
    attention_window: int | None = described(None, "Last tokens that a token sees, itself included. Default: all.")
    residual_loops: bool = described(
        False, "The loops are one residual stream: positions before the first, the final norm after the last alone."
    )
    loop_encoding: str | None = described(
        None, f"What the blocks learn of their loop: {', '.join(LOOP_ENCODINGS)}. Default: nothing."
    )
    loop_encoding_parts: str = described("both", f"What that multiplies: {', '.join(ENCODED_PARTS)}.")
    adapter_rank: int = described(0, "Rank of the adapters of every loop; 0: none.")
    n_adapters: int | None = described(None, "Loops with adapters of their own. Default: n_loops.")
    adapter_beyond: str = described("last", f"Adapters of the loops after those: {', '.join(SHARES_BEYOND)}.")
    initializer_range: float = described(0.02, "Standard deviation of the blocks' initial weights.")
    attn_implementation: str = described("auto", "eager, sdpa, ...; auto: eager on a CPU, sdpa on a GPU.")
    initial_model: str | None = described(None, "Folder or Hub repository of a model that the run starts from.")

    def __post_init__(self):
        self.block_loops = read_integers("block_loops", self.block_loops)

    @property
    def settings(self) -> dict[str, Any]:
        """Those that are fields of the configuration; where the weights come from is none, nor what runs attention."""
        others = ("attn_implementation", "initial_model")
        return {name: value for name, value in asdict(self).items() if name not in others and value is not None}


@dataclass
class LoopArguments:
    """Loops during training."""

    _argument_group_name = "loops during training"

    loop_window: int | None = described(
        None, "Last loops with loss and gradient (the paper's T). Default: all, 1 with a solver."
    )
    n_loops_start: int | None = described(None, "Loops at first. Default: n_loops.")
    n_loops_increment: int = described(2, "Loops added at a time.")
    n_loops_interval: int = described(500, "Steps between two additions of loops.")
    n_loops_hold: int = described(0, "Steps before loops begin to grow.")
    n_loops_min: int | None = described(
        None, "Draw each step's loops uniformly from n_loops_min to the scheduled count. Default: no draw."
    )

    exit_prior_weight: float = described(
        0.05, "Weight of how far the loops that exit_gate stops after are from a prior, in units of the loss."
    )
    exit_prior_rate: float = described(
        0.0, "The prior stops after every loop with this probability; 0: all loops of the window are alike."
    )

    def __post_init__(self):
        check_at_least(1, self, "n_loops_increment", "n_loops_interval")
        check_at_least(0, self, "n_loops_hold")
        if not 0 <= self.exit_prior_weight < float("inf"):
            raise ValueError(f"`exit_prior_weight` must be a finite number >= 0, got {self.exit_prior_weight}.")
        if not 0 <= self.exit_prior_rate < 1:
            raise ValueError(f"`exit_prior_rate` must be in [0, 1), got {self.exit_prior_rate}.")

    def schedule(self, n_loops: int) -> Schedule:
        """Loops at every step, before any draw, for a model of `n_loops`."""
        start = n_loops if self.n_loops_start is None else self.n_loops_start
        growth = {part: getattr(self, f"n_loops_{part}") for part in ("increment", "interval", "hold")}
        return schedule_of("`n_loops_start` to `n_loops`", start=start, end=n_loops, **growth)

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
        if solver_of(config) is not None and self.loop_window not in (None, 1):
            raise ValueError(
                f"`loop_window` must be 1 or left out with `solver: {config.solver}`, which has a gradient for the "
                f"last loop alone, got {self.loop_window}."
            )
        window = 1 if solver_of(config) is not None else self.loop_window or n_loops
        if config.exit_gate and window == 1:
            raise ValueError(
                "`exit_gate` learns which of the loops that are scored to stop after: leave it out, or score more "
                f"than one, got `n_loops` {n_loops}, `loop_window` {self.loop_window} and `solver` {config.solver}."
            )
        if not config.exit_gate and (changed := changed_fields(self, "exit_prior_weight", "exit_prior_rate")):
            raise ValueError(f"`{changed[0]}` is of a gate: leave it out, or train a model with `exit_gate`.")
        enters_every_loop = INJECTIONS[config.input_injection].enters_every_loop
        if not enters_every_loop and self.loop_window not in (None, n_loops):
            raise ValueError(
                f"`loop_window` must be left out with `input_injection: {config.input_injection}`, which trains all "
                f"loops, got {self.loop_window}."
            )


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
        "auto", "Mode of torch.compile for the loop; auto: reduce-overhead (CUDA graphs) on a GPU, no on a CPU."
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
