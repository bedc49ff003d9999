"""The fields of a run of a language model, and what the model to start from makes of them."""

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from transformers import GPT2Config

from modeling_looped_gpt2 import LoopedGPT2Config, LoopedGPT2LMHeadModel
from modeling_looped_gpt2.gpt2_blocks_looped_gpt2 import SHARED, shared_blocks
from modeling_looped_gpt2.injections_looped_gpt2 import INJECTIONS
from modeling_looped_gpt2.positions_looped_gpt2 import POSITION_EMBEDDINGS
from scripts.common.fields import FieldGroups, described
from scripts.common.model_loading import LOADING_ERRORS, check_architecture, check_name
from scripts.training.argument_groups import LoopArguments, ModelArguments, OptimizationArguments, RunArguments
from tasks.curriculum import Schedule


# of a model from nothing
SIZES = {"n_layer": 2, "n_prelude": 0, "n_coda": 0, "n_head": 4, "n_embd": 128, "n_loops": 4}
SIZES |= {"input_injection": "add", "block_loops": None, "position_embedding": "learned", "attention_window": None}
SIZES |= {"sinusoidal_base": 1e4, "solver": "unrolled", "exit_gate": False, "initializer_range": 0.1}
SIZES |= {"residual_loops": False, "loop_encoding": None, "loop_encoding_parts": "both"}
SIZES |= {"adapter_rank": 0, "n_adapters": None, "adapter_beyond": "last"}
# that a model goes on with where a run does not say
KEPT = ("n_loops", "solver")
# of the loops that shared blocks of a GPT-2 make: those that its own blocks made
SHARED_SIZES = {"input_injection": "none", "residual_loops": True}
N_POSITIONS = 256


def from_start(name: str) -> Any:
    """The field `name` of [`ModelArguments`], by default that of the model to start from, if any, or of `SIZES`."""
    (text,) = (item.metadata["help"] for item in fields(ModelArguments) if item.name == name)
    return described(None, text if "Default:" in text else f"{text} Default: {SIZES[name]}.")


@dataclass
class LMModelArguments(ModelArguments):
    """Architecture and initial weights, as in `LoopedGPT2Config`; defaults are of a model from nothing."""

    n_layer: int | None = from_start("n_layer")
    n_prelude: int | None = from_start("n_prelude")
    n_coda: int | None = from_start("n_coda")
    n_head: int | None = from_start("n_head")
    n_embd: int | None = from_start("n_embd")
    n_loops: int | None = from_start("n_loops")
    input_injection: Literal[tuple(INJECTIONS)] | None = from_start("input_injection")
    solver: str | None = from_start("solver")
    exit_gate: bool | None = from_start("exit_gate")
    position_embedding: Literal[tuple(POSITION_EMBEDDINGS)] | None = from_start("position_embedding")
    sinusoidal_base: float | None = from_start("sinusoidal_base")
    residual_loops: bool | None = from_start("residual_loops")
    loop_encoding: str | None = from_start("loop_encoding")
    loop_encoding_parts: str | None = from_start("loop_encoding_parts")
    adapter_rank: int | None = from_start("adapter_rank")
    n_adapters: int | None = from_start("n_adapters")
    adapter_beyond: str | None = from_start("adapter_beyond")
    initializer_range: float | None = from_start("initializer_range")
    initial_model: str | None = described(
        None, "Looped language model to start from, folder or repository; the sizes are its own."
    )
    gpt2: str | None = described(
        None,
        "GPT-2 to start from, folder or repository: its first n_prelude and last n_coda blocks run once, others loop.",
    )
    shared: str | None = described(
        None,
        f"What the shared blocks start from where the loops stand for those others: {', '.join(SHARED)}. Default: "
        "average with an adapter_rank, else none are shared.",
    )

    @property
    def source(self) -> str | None:
        """The model to start from, if any."""
        return self.gpt2 if self.initial_model is None else self.initial_model

    @property
    def shares(self) -> bool:
        """Whether the loops stand for blocks of the GPT-2 to start from."""
        return self.gpt2 is not None and bool(self.shared or self.adapter_rank)


@dataclass
class TextArguments:
    """The text and its tokens."""

    _argument_group_name = "text and tokens"

    train_file: str = field(
        metadata={"help": "Plain text, or JSON lines with one document a line (.jsonl, .json, .ndjson); also .gz, ..."}
    )
    validation_file: str | None = described(None, "Held-out text. Default: no evaluation.")
    text_column: str = described("text", "Field of the JSON lines that holds the text.")
    tokenizer: str | None = described(
        None,
        "bytes; bpe:N, GPT-2's kind, trained on the file; or a folder or repository. Default: that of gpt2 or "
        "initial_model, or bytes.",
    )
    n_positions: int | None = described(
        None, "Tokens of a sequence. Default: 256, or all that gpt2 or initial_model has where these are fewer."
    )
    # what the files hold, by which a run that goes on knows them again
    train_sha256: str | None = field(default=None, init=False)
    validation_sha256: str | None = field(default=None, init=False)


@dataclass
class LMOptimizationArguments(OptimizationArguments):
    """Steps, learning rates and precision."""

    batch_size: int = described(32, "Sequences of an optimizer step, over all processes and accumulation steps.")


@dataclass
class LMArguments(FieldGroups):
    """All fields of a run; building it refuses what cannot be trained before anything is read or written."""

    model: LMModelArguments
    text: TextArguments
    loops: LoopArguments
    optimization: LMOptimizationArguments
    run: RunArguments

    def __post_init__(self):
        source, fixed, defaults, longest = self.model.source, *sizes_of(self.model)
        for name, value in (defaults | fixed).items():
            given = getattr(self.model, name)
            if name in fixed and given not in (None, value):
                raise ValueError(f"`{name}` is {value} in {source}: leave it out, got {given}.")
            setattr(self.model, name, value if given is None else given)
        text = self.text
        if text.n_positions is None:
            text.n_positions = min(N_POSITIONS, longest)
        if text.n_positions < 2:
            raise ValueError(f"`n_positions` must be >= 2, got {text.n_positions}: the next token is predicted.")
        if text.n_positions > longest:
            raise ValueError(f"`n_positions` must be <= {longest}, those of {source}, got {text.n_positions}.")
        if source is None and text.tokenizer is None:
            text.tokenizer = "bytes"
        self.loops.check(self.config)

    @property
    def config(self) -> LoopedGPT2Config:
        """Configuration of a model of these sizes, but for what depends on the tokenizer."""
        sizes = {name: getattr(self.model, name) for name in SIZES}
        return LoopedGPT2Config(**sizes, solver_steps=self.model.solver_steps, n_positions=self.text.n_positions)

    @property
    def n_loops_schedule(self) -> Schedule:
        """Loops at every step, before any draw."""
        return self.loops.schedule(self.model.n_loops)


def sizes_of(model: LMModelArguments) -> tuple[dict[str, Any], dict[str, Any], float]:
    """
    Return the sizes that the model to start from fixes, the defaults of the others, and its number of positions.

    Raises:
        `ValueError`: there is no such model, it is of another kind, or no block of it is left to the loop.
    """
    if model.gpt2 is not None and model.initial_model is not None:
        raise ValueError("`gpt2` and `initial_model` exclude each other: leave one of them out.")
    if model.shared is not None and model.gpt2 is None:
        raise ValueError(f"`shared` is for blocks of a `gpt2` to start from, got {model.shared!r} without one.")
    if model.initial_model is not None:
        config = read_config("initial_model", model.initial_model, LoopedGPT2Config)
        sizes = {name: getattr(config, name) for name in SIZES}
        return sizes, {name: sizes.pop(name) for name in KEPT}, config.n_positions
    if model.gpt2 is not None:
        config = read_config("gpt2", model.gpt2, GPT2Config)
        n_layer = config.n_layer - (model.n_prelude or 0) - (model.n_coda or 0)
        if n_layer < 1:
            raise ValueError(
                f"`n_prelude` + `n_coda` must leave some of the {config.n_layer} blocks of {model.gpt2} to the loop, "
                f"got {model.n_prelude or 0} + {model.n_coda or 0}."
            )
        sizes = {name: getattr(config, name) for name in ("n_head", "n_embd", "initializer_range")}
        n_loops = SIZES["n_loops"] if model.n_loops is None else model.n_loops
        if model.shares:
            n_layer = len(shared_blocks(config, range(n_layer), n_loops, model.shared or "average"))
            sizes["n_adapters"] = n_loops if model.adapter_rank else None
        sizes |= {"n_layer": n_layer, "position_embedding": "learned"}
        return sizes, SIZES | (SHARED_SIZES if model.shares else {}), config.n_positions
    return {}, SIZES, float("inf")


def read_config(name: str, model: str, config_class: type[GPT2Config]) -> GPT2Config:
    """
    Read the configuration of a model to start from.

    Args:
        name (`str`):
            The field that names it, `"gpt2"` or `"initial_model"`.
        model (`str`):
            Folder or Hub repository.
        config_class (`type`):
            What the configuration must be.

    Raises:
        `ValueError`: there is no such model, or it is of another kind.
    """
    try:
        is_bare = Path(model).parts == (model,)  # such as gpt2, a repository without an owner
        if config_class is LoopedGPT2Config or not is_bare:
            check_name(model)
        content, _ = config_class.get_config_dict(model)
        kind = content.get("model_type")
        if kind != config_class.model_type:
            other = {GPT2Config.model_type: "gpt2", LoopedGPT2Config.model_type: "initial_model"}.get(kind)
            raise ValueError(f"it is of type {kind}" + (f", which `{other}` takes" if other else "") + ".")
        if config_class is LoopedGPT2Config:
            check_architecture(model, content, LoopedGPT2LMHeadModel)
        return config_class.from_dict(content)
    except LOADING_ERRORS as error:
        raise ValueError(f"`{name}` {model} cannot be the start: {error}") from None
