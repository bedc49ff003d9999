"""The fields of a run on prompts: dataclasses, read from a recipe and then from the command line; the last wins."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Literal

from modeling_looped_gpt2 import LoopedGPT2Config
from modeling_looped_gpt2.example_orders_looped_gpt2 import EXAMPLE_ORDERS, order_of
from scripts.common.fields import MAPPING, FieldGroups, described, read_mapping, unknown
from scripts.training.argument_groups import (
    LoopArguments,
    ModelArguments,
    OptimizationArguments,
    RunArguments,
    changed_fields,
    check_at_least,
    schedule_of,
)
from scripts.training.objectives import OBJECTIVES, Objective
from tasks import TASKS, Task, make_task, task_fields
from tasks.curriculum import Schedule
from tasks.streams import RowLoops, Stream, make_generator


# settings of a task that are fields of a run too, and the sizes that they are the ends of
OWN_FIELDS = {"n_dims": "n_dims_active", "n_points": "n_points"}
GROWTH = ("start", "increment", "interval")


@dataclass
class PromptModelArguments(ModelArguments):
    """Architecture and initial weights, as in `LoopedGPT2Config`."""

    example_order: Literal[tuple(EXAMPLE_ORDERS)] = described(
        "causal",
        "causal: one example after another; set: all at once, in no order, and queries apart from them; cells: a set "
        "that is a table, each cell a token.",
    )
    n_quantiles: int = described(0, "Quantiles of y that a regression model answers with; 0: the prediction alone.")
    n_positions: int | None = described(None, "Longest prompt in tokens. Default: what the task needs.")
    read_in_initializer_range: float = described(0.25, "Standard deviation of the initial read-in weights.")
    position_initializer_range: float = described(0.1, "Standard deviation of the initial position embeddings.")
    initial_model: str | None = described(
        None, "Folder or Hub repository of a model of the same shapes, or fewer positions, that the run starts from."
    )


@dataclass
class TaskArguments:
    """The task and its curriculum."""

    _argument_group_name = "task and curriculum"

    task: Literal[tuple(TASKS)] = field(metadata={"help": "What is learned."})
    task_settings: Mapping | str | None = described(
        None, "Further settings of the task, e.g. '{noise_std: 0.5}'. Default: its own.", metavar=MAPPING
    )
    n_dims: int | None = described(None, "Dimension of x. Default: that of the task.")
    n_points: int | None = described(
        None, "Points of a prompt at the end of the curriculum. Default: that of the task."
    )
    schedules: Mapping | str | None = described(
        None,
        "How sizes of a prompt, or n_loops, grow: '{max_hops: {start: 1, interval: 200, increment: 1, hold: 0}}'.",
        metavar=MAPPING,
    )
    n_dims_start: int | None = described(None, "Dimensions in use at first. Default: all from the start.")
    n_dims_increment: int = described(1, "Dimensions added at a time.")
    n_dims_interval: int = described(5000, "Steps between two additions of dimensions.")
    n_points_start: int | None = described(None, "Points at first. Default: all from the start.")
    n_points_increment: int = described(2, "Points added at a time.")
    n_points_interval: int = described(5000, "Steps between two additions of points.")
    curriculum_hold: int = described(0, "Steps before dimensions and points begin to grow.")
    n_distinct_prompts: int | None = described(None, "Training prompts, met again and again. Default: no end of them.")
    n_distinct_functions: int | None = described(
        None, "Functions that training prompts are of, met again and again. Default: no end of them."
    )

    def __post_init__(self):
        check_at_least(1, self, "n_dims", "n_dims_increment", "n_dims_interval")
        check_at_least(1, self, "n_points", "n_points_increment", "n_points_interval")
        check_at_least(0, self, "curriculum_hold")
        self.task_settings = read_mapping("task_settings", self.task_settings)
        self.schedules = read_mapping("schedules", self.schedules)
        self._settle()
        self._check_growth()

    def build(self) -> Task:
        """The task; raises `ValueError` where a setting of it is out of its range."""
        own = {name: getattr(self, name) for name in OWN_FIELDS if getattr(self, name) is not None}
        try:
            return make_task(self.task, **self.task_settings, **own)
        except TypeError as error:  # text in the place of a number, deep in a mapping
            raise ValueError(f"`task_settings` hold a value of another type: {error}.") from None

    def _settle(self):
        """Look at the settings, and move those that are fields of a run there, where they are recorded."""
        known = task_fields(self.task, self.task_settings)
        for name, value in self.task_settings.items():
            if name not in known:
                cause = unknown(f"the settings of {self.task} are {', '.join(known) or 'none'}, got", name, known)
                raise ValueError(f"`task_settings`: {cause}.")
            if known[name].type in (int, float) and (isinstance(value, bool) or not isinstance(value, int | float)):
                raise ValueError(f"`task_settings`: `{name}` must be a number, got {value!r}.")
        for name in OWN_FIELDS:
            given = getattr(self, name)
            if given is not None and name in self.task_settings:
                raise ValueError(f"`{name}` is given by itself and in `task_settings`: leave one of them out.")
            if given is not None and name not in known:
                raise ValueError(f"`{name}` is no setting of {self.task}: leave it out, got {given}.")
            if name in known:
                default = known[name].default if given is None else given
                setattr(self, name, self.task_settings.pop(name, default))

    def _check_growth(self):
        """Refuse growth that is given twice, of nothing, or by other names than those of [`Schedule`]."""
        sizes = self.build().sizes
        by_fields = [size for size in OWN_FIELDS.values() if size in sizes and size not in self.schedules]
        for name, size in OWN_FIELDS.items():
            changed = changed_fields(self, *(f"{name}_{part}" for part in GROWTH))
            if changed and size not in by_fields:
                cause = "they grow by `schedules` too" if size in sizes else f"{self.task} has none"
                raise ValueError(f"`{changed[0]}` is of `{size}`: {cause}, so leave it out.")
        if self.curriculum_hold and not by_fields:
            raise ValueError(f"`curriculum_hold` is of {', '.join(OWN_FIELDS.values())} alone: leave it out.")
        for size in self.schedules:
            if size not in (names := [*sizes, "n_loops"]):
                raise ValueError(f"`schedules` must be of {', '.join(names)}, {unknown('got', size, names)}.")

    def size_schedules(self, task: Task) -> dict[str, Schedule]:
        """The sizes of `task` at every step."""
        schedules = {}
        for name, size in OWN_FIELDS.items():
            if size in task.sizes and size not in self.schedules:
                end, growth = task.sizes[size], {part: getattr(self, f"{name}_{part}") for part in GROWTH}
                growth |= {"start": end if growth["start"] is None else growth["start"], "hold": self.curriculum_hold}
                schedules[size] = schedule_of(f"`{name}_start` to `{name}`", end=end, **growth)
        return schedules | {size: self.schedule(size, task.sizes[size]) for size in self.schedules}

    def schedule(self, size: str, end: int) -> Schedule:
        """What `schedules` hold for a size that is finally `end`; raises `ValueError` where that is no schedule."""
        growth, known = self.schedules[size], [item.name for item in fields(Schedule) if item.name != "end"]
        if not isinstance(growth, Mapping) or "start" not in growth:
            raise ValueError(f"`schedules`: `{size}` must be a mapping with a `start`, got {growth!r}.")
        for part, value in growth.items():
            if part not in known:
                raise ValueError(f"`schedules`: `{size}` has {', '.join(known)}, {unknown('got', part, known)}.")
            if isinstance(value, bool) or not isinstance(value, int):
                raise ValueError(f"`schedules`: `{part}` of `{size}` must be an integer, got {value!r}.")
        return schedule_of(f"`schedules`: `{size}`", end=end, **growth)


@dataclass
class PromptLoopArguments(LoopArguments):
    """Loops during training."""

    loop_surplus: int | None = described(
        None,
        "Let every prompt run the loops that its task needs and up to this many more, drawn for each, all of which "
        "are scored; n_loops is then at least what the longest prompt needs. Default: all run those of their step.",
    )
    loop_rate: float = described(1.0, "Loops for each that the task needs, with loop_surplus.")
    doubt_weight: float = described(
        0.0,
        "Weight of a second loss, with loop_surplus: how far a prompt is from holding all answers alike in the loops "
        "before it can know.",
    )

    def __post_init__(self):
        super().__post_init__()
        if not 0 <= self.doubt_weight < float("inf"):
            raise ValueError(f"`doubt_weight` must be a finite number >= 0, got {self.doubt_weight}.")
        if self.row_loops is None and (changed := changed_fields(self, "loop_rate", "doubt_weight")):
            raise ValueError(
                f"`{changed[0]}` is of rows with loops of their own: leave it out, or give `loop_surplus`."
            )

    def check(self, config: LoopedGPT2Config):
        """Refuse what a model of this configuration cannot be trained with."""
        super().check(config)
        if self.row_loops is None:
            return
        growth = ("n_loops_start", "n_loops_increment", "n_loops_interval", "n_loops_hold", "n_loops_min")
        if changed := changed_fields(self, "loop_window", *growth):
            raise ValueError(f"`{changed[0]}` is of all rows of a step, whose loops are their own: leave it out.")
        if config.exit_gate or config.solver != "unrolled":
            name, value = ("exit_gate", True) if config.exit_gate else ("solver", config.solver)
            raise ValueError(f"`loop_surplus` scores loops by what each row needs: leave out `{name}`, got {value}.")

    @property
    def row_loops(self) -> RowLoops | None:
        """The loops of every row; `None` where all run those of their step."""
        return None if self.loop_surplus is None else RowLoops(self.loop_rate, self.loop_surplus)


@dataclass
class PromptOptimizationArguments(OptimizationArguments):
    """Steps, learning rates and precision, and what is minimised on prompts."""

    loss_balance: float = described(
        0.0,
        "The loss of every loop and point is divided by this power of its own mean error in the batch: 0 is the "
        "paper's plain mean, 1 makes relative errors count alike.",
    )
    hint_weight: float = described(
        0.0,
        "Weight of a second loss: how far the hints of the task, read linearly from the states, are from true. The "
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
class Arguments(FieldGroups):
    """All fields of a run and the objects they describe; building it refuses what cannot be trained."""

    model: PromptModelArguments
    task: TaskArguments
    loops: PromptLoopArguments
    optimization: PromptOptimizationArguments
    run: RunArguments

    def __post_init__(self):
        self._move_loops()
        if self.loops.row_loops:
            self._raise_loops(self.loops.row_loops, self.stream.task)
        config, task = self.config, self.stream.task
        if task.has_queries and "n_dims" not in task.model_fields and order_of(config).n_columns(config) is not None:
            raise ValueError(
                f"`example_order` must be 'cells' for {task.name}, whose prompts are tables of any number of columns, "
                f"got {config.example_order!r}."
            )
        n_positions = self._of_order(task.n_positions(**task.sizes))
        if config.max_tokens < n_positions:
            raise ValueError(
                f"`n_positions` must be >= {n_positions}, those of a prompt of {task.name}, got {config.n_positions}."
            )
        self.loops.check(config)
        if self.optimization.loss_balance and not hasattr(self.objective, "loss_balance"):
            raise ValueError(
                f"`loss_balance` is nothing for {task.objective}, which {task.name} is: leave it out, got "
                f"{self.optimization.loss_balance}."
            )

        if self.optimization.loss_balance and config.exit_gate:
            raise ValueError(
                f"`loss_balance` weighs the loops, as `exit_gate` does: leave one of them out, got "
                f"{self.optimization.loss_balance}."
            )

    def _move_loops(self):
        """Let `schedules` of the loops be what their own fields say, which are recorded."""
        if "n_loops" not in self.task.schedules:
            return
        names = {part: f"n_loops_{part}" for part in (*GROWTH, "hold")}
        if changed := changed_fields(self.loops, *names.values()):
            raise ValueError(f"`{changed[0]}` is of `n_loops`: they grow by `schedules` too, so leave it out.")
        schedule = self.task.schedule("n_loops", self.model.n_loops)
        for part, name in names.items():
            setattr(self.loops, name, getattr(schedule, part))
        del self.task.schedules["n_loops"]

    @property
    def config(self) -> LoopedGPT2Config:
        """The model's configuration; what the task fixes is not asked for."""
        task = self.task.build()
        settings = task.model_fields | self.model.settings
        if self.model.n_positions is None:
            settings["n_positions"] = self._of_order(settings["n_positions"])
        return LoopedGPT2Config(**settings)

    def _raise_loops(self, row_loops: RowLoops, task: Task):
        """Let `n_loops` be at least what the longest question needs: so a call without it answers what was trained."""
        if task.needed_loops(task.sample(1, make_generator("trial", 0))) is None:
            raise ValueError(f"`loop_surplus` is nothing for {task.name}, which does not know the loops it needs.")
        longest = replace(task, min_length=task.max_length).sample(1, make_generator("trial", 0))
        self.model.n_loops = max(self.model.n_loops, int(row_loops.needed(task.needed_loops(longest))))

    def n_tokens(self, **sizes: int) -> int:
        """Tokens that the model reads of a prompt of these sizes; a task that `has_queries` counts them itself."""
        return self._of_order(self.task.build().n_tokens(**sizes))

    def _of_order(self, n_tokens: int) -> int:
        return n_tokens if self.task.build().has_queries else order_of(self.model).n_tokens(n_tokens)

    @property
    def stream(self) -> Stream:
        """The training stream."""
        task = self.task.build()
        return Stream(
            task,
            self.optimization.batch_size,
            self.task.size_schedules(task),
            seed=self.optimization.seed,
            n_distinct_prompts=self.task.n_distinct_prompts,
            n_distinct_functions=self.task.n_distinct_functions,
            with_hints=self.optimization.hint_weight > 0,
            as_sets=order_of(self.model).is_split and not task.has_queries,
            row_loops=self.loops.row_loops,
        )

    @property
    def objective(self) -> Objective:
        """How the task is learned, its hints left aside."""
        kind = OBJECTIVES[self.task.build().objective]
        return kind(**{item.name: getattr(self.optimization, item.name) for item in fields(kind)})

    @property
    def n_loops_schedule(self) -> Schedule:
        """Loops at every step, before any draw."""
        return self.loops.schedule(self.model.n_loops)


def parse_arguments(argv: Sequence[str] | None = None, description: str | None = None) -> Arguments:
    """
    Read `--recipe FILE` and flags, each flag winning over the recipe.

    Ends the program with status 2 and a message that names the field when a key is misspelt, a type is wrong or a
    value cannot be trained.
    """
    return Arguments.parse(argv, "--recipe FILE --output_dir DIR [--any_field value ...]", description)
