"""Configuration of the looped GPT-2."""

import copy
import dataclasses
import sys
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any, ClassVar

from huggingface_hub.dataclasses import strict
from transformers.activations import ACT2FN
from transformers.configuration_utils import PreTrainedConfig
from transformers.models.gpt2.configuration_gpt2 import GPT2Config
from transformers.utils import logging

from .example_orders_looped_gpt2 import EXAMPLE_ORDERS
from .implicit_solvers_looped_gpt2 import SOLVERS
from .injections_looped_gpt2 import INJECTIONS
from .loop_weights_looped_gpt2 import check_loop_weights
from .plan_looped_gpt2 import PARTS, Plan, make_plan
from .positions_looped_gpt2 import POSITION_EMBEDDINGS


logger = logging.get_logger(__name__)


@strict
class LoopedGPT2Config(GPT2Config):
    r"""
    Configuration of a GPT-2 whose `n_layer` blocks are applied `n_loops` times with the same weights.

    The defaults are the model of Yang et al. (ICLR 2024, section 5) for 20-dimensional functions: one block of width
    256 with 8 heads, 20 loops and no dropout. `n_layer=12, n_loops=1` is the standard transformer of that paper.
    Fields that are not listed below are those of [`~transformers.GPT2Config`] and mean the same.

    Args:
        n_layer (`int`, defaults to 1):
            Blocks inside the loop, >= 1.
        n_loops (`int`, defaults to 20):
            Times the blocks are applied when a call does not say, >= 1 (the paper's b).
        n_prelude (`int`, defaults to 0), n_coda (`int`, defaults to 0):
            Blocks with weights of their own that run once before the first loop and once after the last, >= 0 (as in
            Geiping et al. 2025, Gao et al. 2024). With a prelude, its output takes the place of the embedded prompt e
            and the positions enter before it only.
        input_injection (`str`, defaults to `"add"`):
            How the embedded prompt e enters the state z before every loop: `"add"` (z + e, z starts at 0),
            `"multiply"` (z * e, z starts at 1), `"none"` (z starts at e: the paper's weight-tying control), `"concat"`
            (a learned map of [z; e] that starts as `"add"`) or `"gated"` (a * z + b * e with a learned decay
            0 < a < 1 and gain b of each coordinate).
        block_loops (`list[int]`, *optional*, defaults to 1 for each):
            Times that each of the `n_layer` blocks runs in a row within every loop, >= 1, e.g. `[2, 1]` (intra-layer
            recurrence, Nguyen & Lin 2025).
        position_embedding (`str`, defaults to `"learned"`):
            What tells a token its place: `"learned"` (an embedding for each of `n_positions`, added in every loop),
            `"sinusoidal"` (sines and cosines of geometric wavelengths by learned gains, for sequences of any length),
            `"fourier"` (such of evenly spaced frequencies, which tell `n_embd` places apart best) or `"none"` (the
            causal mask alone; sequences may be of any length, and `position_ids` only tell packed sequences apart).
        sinusoidal_base (`float`, defaults to 10000.0):
            The longest wave of sinusoidal positions is almost 2 pi times as many tokens long, > 1. The default is
            that of Vaswani et al. (2017). With 10 or 100 more waves tell the places of short sequences apart.
        attention_window (`int`, *optional*):
            Last tokens that a token sees, itself included, >= 1. `None`: all before it. Caches keep all tokens.
        solver (`str`, defaults to `"unrolled"`):
            How gradients reach the loops; no value depends on it. `"unrolled"`: through every loop of the window.
            `"implicit"` and `"damped"`: the last loop alone keeps what a gradient needs, so that training takes the
            memory of one loop whatever `n_loops`, and a loss sees the last loop only. They take the loops to have
            settled. `"implicit"` adds up what all loops before would hand back, until that changes no more (Bai et
            al. 2019); `"damped"` takes a few damped steps towards it (Geng et al. 2021). Not with
            `input_injection="none"`, nor with `residual_loops` unless the injection is `"gated"`.
        solver_steps (`int`, *optional*):
            Products with the Jacobian of a loop for a gradient, >= 1: at most so many for `"implicit"` (default: 32),
            so many for `"damped"` (default: 4). A row of the batch for which they lead away from a solution, as its
            loops do not settle, keeps the sum up to the smallest product of `"implicit"`.
        exit_gate (`bool`, defaults to `False`):
            Whether the backbone has a gate, a linear map of the state to the logit of stopping after a loop, which
            `exit_probability` ends loops by. It must be trained: by `exit_gate: true` of `scripts/train.py`. Not with
            a coda.
        residual_loops (`bool`, defaults to `False`):
            Whether the loops are one residual stream, as the layers of a GPT-2 are: positions enter before the first
            loop only, and the final norm acts on what is read from the loops, not on the state that they pass on.
        loop_encoding (`str`, *optional*):
            What the blocks learn of the loop that they are in: `"step"`, its number t = 1, 2, ..., whose waves simply
            go on in loops beyond the trained ones; or `"share"`, t / n_loops of the call, in (0, 1] for any number of
            loops, for calls with one `n_loops` for all rows (with `exit_tolerance` it is the most). A small MLP makes
            of it factors of every block, from 1 at the start (Xu and Sato, ICML 2025).
        loop_encoding_parts (`str`, defaults to `"both"`):
            What the factors multiply: `"scale"`, the layer-normed inputs of attention and MLP; `"gate"`, what the two
            add to the residual stream; or `"both"`.
        adapter_rank (`int`, defaults to 0):
            Rank of the adapters (LoRA) of the shared blocks' matrices, one for every loop, in 0 ... `n_embd`; 0: none.
            They start as no change (Hu et al. 2022, Bae et al. 2025).
        n_adapters (`int`, *optional*, defaults to `n_loops`):
            Loops with adapters of their own, >= 1; needs an `adapter_rank`. Fixed when the model is built.
        adapter_beyond (`str`, defaults to `"last"`):
            Adapters of the loops after those: `"last"`, those of the last, or `"none"`.
        n_dims (`int`, defaults to 20):
            Dimension of the inputs x that the in-context heads read in, >= 1.
        n_outputs (`int`, defaults to 1):
            Numbers in a value y of the regression head, in 1 ... `n_dims`.
        n_quantiles (`int`, defaults to 0):
            Quantiles of y that the regression head answers with, at levels (k + 0.5) / n_quantiles for k = 0, 1, ...,
            >= 0, and whose mean it predicts; 0: it answers with the prediction itself. Needs `n_outputs` = 1.
        example_order (`str`, defaults to `"causal"`):
            How the in-context heads take examples: `"causal"`, one after another, with an answer at every x; `"set"`,
            all at once and in no order, with answers at the queries alone; or `"cells"`, as a set that is a table,
            each of its cells a token, with any number of columns (`n_dims` means nothing), whose order does not matter
            either, and NaN for missing values. Cells need `position_embedding="none"` and an even `n_layer`: blocks
            see in turns the columns and the rows.
        n_positions (`int`, defaults to 202):
            Longest sequence in tokens, >= 1; no limit without a position embedding. An in-context prompt takes two
            tokens per example, a point of a set one; a table counts rows.
        vocab_size (`int`, *optional*):
            Tokens of the vocabulary, >= 1. `None`: the model reads embeddings only and owns no token embedding.
        n_embd (`int`, defaults to 256), n_head (`int`, defaults to 8):
            Width and attention heads, >= 1; the width is a multiple of the heads.
        resid_pdrop, embd_pdrop, attn_pdrop (`float`, default to 0.0):
            Dropout probabilities in [0, 1), active in training only.
        activation_function (`str`, defaults to `"gelu_pytorch_tanh"`):
            Activation of the MLPs, by its name in transformers. The default is the function that GPT-2 calls
            `"gelu_new"`, computed in one pass instead of eight.
        read_in_initializer_range (`float`, defaults to 0.25):
            Standard deviation of the initial read-in weights, > 0. Far above GPT-2's 0.02, so that the injected
            prompt is not negligible beside a layer-normalised state of unit variance.
        position_initializer_range (`float`, defaults to 0.1):
            Standard deviation of the initial position embeddings, > 0; of sinusoidal ones their root mean square.

    Raises:
        `huggingface_hub.errors.StrictDataclassError`: a field has the wrong type or a value outside its range; the
            message names the field.
        `ValueError`: a name is almost that of a field. Other names are kept as attributes, as everywhere in
            transformers, and those of a `config.json` only reported: it may be of another version.

    Example:

    ```python
    >>> from modeling_looped_gpt2 import LoopedGPT2Config

    >>> config = LoopedGPT2Config(n_loops=30)
    >>> config.num_hidden_layers  # blocks executed in one forward pass
    30
    ```"""

    model_type = "looped_gpt2"
    # `num_hidden_layers` is left out on purpose: it is the executed depth, a property below
    attribute_map: ClassVar[dict[str, str]] = {
        "hidden_size": "n_embd",
        "max_position_embeddings": "n_positions",
        "num_attention_heads": "n_head",
    }
    base_model_fsdp_plan: ClassVar[dict[str, str]] = {
        "wte": "free_full_weight",
        **{f"{part}.*": "free_full_weight" for part in PARTS},
        "ln_f": "keep_full_weight",
    }

    vocab_size: int | None = None
    n_positions: int = 202
    n_embd: int = 256
    n_layer: int = 1
    n_head: int = 8
    activation_function: str = "gelu_pytorch_tanh"
    resid_pdrop: float | int = 0.0
    embd_pdrop: float | int = 0.0
    attn_pdrop: float | int = 0.0
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None

    n_loops: int = 20
    n_prelude: int = 0
    n_coda: int = 0
    input_injection: str = "add"
    block_loops: list[int] | None = None
    position_embedding: str = "learned"
    sinusoidal_base: float | int = 10000.0
    attention_window: int | None = None
    solver: str = "unrolled"
    solver_steps: int | None = None
    exit_gate: bool = False
    residual_loops: bool = False
    loop_encoding: str | None = None
    loop_encoding_parts: str = "both"
    adapter_rank: int = 0
    n_adapters: int | None = None
    adapter_beyond: str = "last"
    n_dims: int = 20
    n_outputs: int = 1
    n_quantiles: int = 0
    example_order: str = "causal"
    read_in_initializer_range: float = 0.25
    position_initializer_range: float = 0.1

    def __post_init__(self, **kwargs):
        executed_depth = kwargs.pop("num_hidden_layers", None)
        if executed_depth is not None and executed_depth != self.num_hidden_layers:
            raise ValueError(
                f"`num_hidden_layers` is the executed depth {self._depth_formula} = "
                f"{self.num_hidden_layers} and cannot be given, got {executed_depth}: give `n_layer` and `n_loops`."
            )
        misspelt = self._misspelt(kwargs)
        if misspelt and self.transformers_version is None:
            raise ValueError(misspelt)
        if misspelt:
            logger.warning(misspelt)
        if self.adapter_rank and self.n_adapters is None:
            self.n_adapters = self.n_loops
        super().__post_init__(**kwargs)

    @classmethod
    def _misspelt(cls, names: Iterable[str]) -> str | None:
        """Return a message about the first name that is almost that of a field, `None` where there is none."""
        fields = {item.name for item in dataclasses.fields(cls)}
        fields -= {item.name for item in dataclasses.fields(PreTrainedConfig)}
        # all names of special tokens are alike, and there are more of them than fields
        fields = sorted(name for name in fields if not name.endswith("_token_id"))
        for name in names:
            close = get_close_matches(name, fields, 1, cutoff=0.8)
            if close and not hasattr(cls, name):
                return f"`{name}` is not a field of {cls.__name__}, did you mean `{close[0]}`?"
        return None

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs):
        if misspelt := cls._misspelt(kwargs):
            raise ValueError(misspelt)
        return super().from_dict(config_dict, **kwargs)

    @property
    def num_hidden_layers(self) -> int:
        """
        Blocks executed in one forward pass, `n_prelude + n_layer * n_loops + n_coda`, or with `block_loops` their sum
        in the place of `n_layer`: one cache slot and one hidden state for each. Can be set to another such sum, which
        sets `n_loops`.
        """
        plan = self.plan(1)  # every loop has as many steps
        return len(plan.prelude) + len(plan.loops[0]) * self.n_loops + len(plan.coda)

    @num_hidden_layers.setter
    def num_hidden_layers(self, depth: int):  # set by transformers while a model drafts for itself
        self.n_loops = self.loops_of(depth)

    @property
    def _depth_formula(self) -> str:
        return f"n_prelude + {'n_layer' if self.block_loops is None else 'sum(block_loops)'} * n_loops + n_coda"

    @property
    def max_tokens(self) -> int:
        """Longest sequence in tokens: `n_positions`, and without a position embedding as many as can be counted."""
        return self.n_positions if POSITION_EMBEDDINGS[self.position_embedding].is_limited else sys.maxsize

    @property
    def n_blocks(self) -> dict[str, int]:
        """Blocks with weights of their own in each of the model's lists, `PARTS`."""
        return {"prelude": self.n_prelude, "h": self.n_layer, "coda": self.n_coda}

    def plan(self, n_loops: int | None = None, loops_per_slot: int = 1) -> Plan:
        """
        Return which block runs when, and on which slot of the cache, in a call of `n_loops` loops.

        Args:
            n_loops (`int`, *optional*, defaults to `config.n_loops`):
                Loops of the call, >= 1.
            loops_per_slot (`int`, defaults to 1):
                Loops that share a slot of the cache, >= 1 (see [`LoopedGPT2Model`]).
        """
        n_loops = self.n_loops if n_loops is None else n_loops
        return make_plan(self.n_blocks, n_loops, loops_per_slot, self.block_loops)

    def loops_of(self, depth: int) -> int:
        """Return the loops of a call that executes `depth` blocks; raises `ValueError` where there is no such call."""
        plan = self.plan(1)
        n_loops, rest = divmod(depth - len(plan.prelude) - len(plan.coda), len(plan.loops[0]))
        if rest or n_loops < 1:
            raise ValueError(
                f"`num_hidden_layers` must be {self._depth_formula} = {self.n_prelude} + {len(plan.loops[0])} * "
                f"n_loops + {self.n_coda} for a whole `n_loops` >= 1, got {depth}."
            )
        return n_loops

    def with_loops(self, n_loops: int, loops_per_slot: int = 1) -> "LoopedGPT2Config":
        """
        Return a copy of this configuration that a cache for calls of `n_loops` loops (>= 1) is built from.

        With `loops_per_slot` > 1 (see [`LoopedGPT2Model`]) it has the loops that keep their keys and values.
        """
        config = copy.copy(self)
        config.n_loops = -(-n_loops // loops_per_slot)
        return config

    @classmethod
    def from_gpt2(cls, config: GPT2Config, **changes) -> "LoopedGPT2Config":
        """
        Return the configuration of the looped model that is the GPT-2 of `config`: all its blocks once.

        Args:
            config ([`~transformers.GPT2Config`]):
                The configuration of any GPT-2.
            changes:
                Other values for fields of this class, e.g. `n_prelude=2, n_layer=8, n_coda=2, n_loops=4`.
        """
        fields = {item.name for item in dataclasses.fields(GPT2Config)} - {"architectures", "transformers_version"}
        settings = {name: getattr(config, name) for name in fields if hasattr(config, name)}
        return cls(**(settings | {"n_loops": 1} | changes))

    def validate_architecture(self):
        """Refuse values no model can be built from. Run by `@strict` at construction and when saving."""
        super().validate_architecture()
        sizes = ("n_loops", "n_layer", "n_head", "n_embd", "n_positions", "n_dims", "n_outputs")
        for name in (*sizes, "n_inner", "vocab_size", "attention_window", "solver_steps"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or value < 1):
                raise ValueError(f"`{name}` must be an integer >= 1, got {value}.")
        for name in ("n_prelude", "n_coda", "n_quantiles"):
            if isinstance(getattr(self, name), bool) or getattr(self, name) < 0:
                raise ValueError(f"`{name}` must be an integer >= 0, got {getattr(self, name)}.")
        if self.n_outputs > self.n_dims:
            raise ValueError(f"`n_outputs` must be <= `n_dims` = {self.n_dims}, got {self.n_outputs}.")
        if self.n_quantiles and self.n_outputs > 1:
            raise ValueError(f"`n_quantiles` needs `n_outputs` = 1, got {self.n_outputs}: leave one of them out.")
        if self.n_embd % self.n_head:
            raise ValueError(f"`n_embd` must be a multiple of `n_head`, got {self.n_embd} and {self.n_head}.")
        self._check_mechanisms()
        if self.activation_function not in ACT2FN:
            raise ValueError(
                f"`activation_function` must be the name of one in transformers, got {self.activation_function!r}."
            )
        for name in ("resid_pdrop", "embd_pdrop", "attn_pdrop"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be in [0, 1), got {getattr(self, name)}.")
        ranges = ("initializer_range", "read_in_initializer_range", "position_initializer_range")
        for name in (*ranges, "layer_norm_epsilon"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"`{name}` must be a finite number > 0, got {getattr(self, name)}.")
        if self.add_cross_attention:
            raise ValueError("`add_cross_attention` must be False: the looped GPT-2 is a decoder without an encoder.")

    def _check_mechanisms(self):
        """Refuse names that no table has, and mechanisms that exclude each other."""
        if self.input_injection not in INJECTIONS:
            raise ValueError(f"`input_injection` must be one of {tuple(INJECTIONS)}, got {self.input_injection!r}.")
        if self.position_embedding not in POSITION_EMBEDDINGS:
            raise ValueError(
                f"`position_embedding` must be one of {tuple(POSITION_EMBEDDINGS)}, got {self.position_embedding!r}."
            )
        if not 1 < self.sinusoidal_base < float("inf"):
            raise ValueError(f"`sinusoidal_base` must be a finite number > 1, got {self.sinusoidal_base}.")
        times = self.block_loops
        if times is not None and (len(times) != self.n_layer or any(type(each) is bool or each < 1 for each in times)):
            raise ValueError(
                f"`block_loops` must hold an integer >= 1 for each of `n_layer` = {self.n_layer} blocks, got {times}."
            )
        if self.solver not in SOLVERS:
            raise ValueError(f"`solver` must be one of {tuple(SOLVERS)}, got {self.solver!r}.")
        if SOLVERS[self.solver] is not None and not INJECTIONS[self.input_injection].enters_every_loop:
            raise ValueError(
                f"`solver` must be 'unrolled' with `input_injection={self.input_injection!r}`, got {self.solver!r}: "
                "the prompt enters before the first loop only, and a settled state tells nothing of it."
            )
        if (
            SOLVERS[self.solver] is not None
            and self.residual_loops
            and not INJECTIONS[self.input_injection].shrinks_state
        ):
            raise ValueError(
                f"`solver` must be 'unrolled' with `residual_loops` and `input_injection={self.input_injection!r}`, "
                f"got {self.solver!r}: no norm and no decay keeps the state from growing, so it never settles. Take "
                "`input_injection='gated'`, or leave out `residual_loops`."
            )
        if self.exit_gate and self.n_coda:
            raise ValueError(
                f"`exit_gate` judges the state after every loop, and the coda runs after the last alone: leave one of "
                f"them out, got `n_coda` = {self.n_coda}."
            )
        if self.example_order not in EXAMPLE_ORDERS:
            raise ValueError(f"`example_order` must be one of {tuple(EXAMPLE_ORDERS)}, got {self.example_order!r}.")
        EXAMPLE_ORDERS[self.example_order].check(self)
        if SOLVERS[self.solver] is None and self.solver_steps is not None:
            raise ValueError(
                f"`solver_steps` needs a `solver` that takes steps, got {self.solver_steps} with {self.solver!r}: "
                "leave it out."
            )
        if SOLVERS[self.solver] is not None and (self.loop_encoding is not None or self.adapter_rank):
            raise ValueError(
                f"`solver` must be 'unrolled' with a `loop_encoding` or an `adapter_rank`, got {self.solver!r}: loops "
                "that differ from each other have no state to settle in."
            )
        check_loop_weights(self)


__all__ = ["LoopedGPT2Config"]
