"""The looped GPT-2: a few GPT-2 blocks applied again and again, the embedded prompt re-injected before every loop.

    e   = embedded prompt
    z_0 = 0 ("add") | 1 ("multiply") | e ("none")
    z_t = ln_f( h( inject(z_{t-1}, e) + wpe ) )      t = 1 ... n_loops

Optional blocks with weights of their own may run once before and after: with a prelude e = prelude(e + wpe) and the
loops add no wpe, with a coda the result is ln_f( coda( h(...) ) ) of the last loop.

Source: Yang, Lee, Nowak, Papailiopoulos, "Looped Transformers are Better at Learning Learning Algorithms" (ICLR 2024).
"""

import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn
from transformers.cache_utils import Cache, DynamicCache
from transformers.modeling_outputs import BaseModelOutputWithPast
from transformers.models.gpt2.modeling_gpt2 import GPT2PreTrainedModel
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from .arguments_looped_gpt2 import (
    BLOCK_OUTPUTS,
    check_cells,
    check_indices,
    check_looks_at_loops,
    check_loops,
    check_mask,
    check_names,
    check_solved_window,
)
from .cache_looped_gpt2 import CacheByEitherName, check_cache, fill, one_cache, slots_of
from .configuration_looped_gpt2 import LoopedGPT2Config
from .implicit_solvers_looped_gpt2 import Solver, run_until_last, solved, solver_of
from .injections_looped_gpt2 import INJECTIONS, InputInjection
from .loop_body_looped_gpt2 import Call, compiled_body, run_body, run_steps
from .loop_weights_looped_gpt2 import LoopAdapters, LoopedGPT2Block, LoopEncoding, LoopWeights
from .masks_looped_gpt2 import make_mask
from .positions_looped_gpt2 import POSITION_EMBEDDINGS, check_positions, next_positions
from .solvers_looped_gpt2 import run_until, truncated, unroll
from .stop_rules_looped_gpt2 import MakeRule, StopRule, backbone_exits, make_rules, normed
from .views_looped_gpt2 import views_of


@dataclass
class LoopedGPT2ModelOutput(BaseModelOutputWithPast, CacheByEitherName):
    """
    Output of [`LoopedGPT2Model`]. B batch, T tokens, E `n_embd`.

    Args:
        last_hidden_state (`torch.Tensor` of shape `(B, T, E)`):
            State after the last loop, layer-normalised.
        cache ([`~transformers.Cache`], returned when `use_cache=True`):
            Keys and values of every loop and block: loop l (from 0) and block i own slot `l * n_layer + i`, behind
            those of the prelude and before those of the coda; with `block_loops` i counts the runs of blocks in a
            loop, of which there are `sum(block_loops)`. `past_key_values`, the name that it had before transformers
            5.24, stays readable.
        hidden_states (`tuple[torch.Tensor]`, returned when `output_hidden_states=True`):
            Input of the first block and output of each executed block, `num_hidden_layers + 1` of shape `(B, T, E)`;
            the last is replaced by `last_hidden_state`, as everywhere in transformers.
        attentions (`tuple[torch.Tensor]`, returned when `output_attentions=True`):
            Attention weights of each executed block, `(B, n_head, T, T)`; needs `attn_implementation="eager"`.
        n_loops_used (`torch.LongTensor` of shape `(B,)`, returned with an `exit_...` or `n_loops` per row):
            Loops that each row ran.
        loop_hidden_states (`tuple[torch.Tensor]`, returned when `output_loop_hidden_states=True`):
            State `(B, T, E)` after each loop of each row's window, layer-normalised; the last is `last_hidden_state`.
            With a coda it is what the coda makes of that state.
        loop_exit_logits (`torch.Tensor` of shape `(B, L, T)`, float32, returned with these states of L loops):
            By a model with `config.exit_gate`: the logits of stopping after each of these loops, at each token.
    """

    n_loops_used: torch.LongTensor | None = None
    loop_hidden_states: tuple[torch.Tensor, ...] | None = None
    loop_exit_logits: torch.Tensor | None = None


class LoopedGPT2PreTrainedModel(GPT2PreTrainedModel):
    """Weight initialisation and loading shared by all looped GPT-2 models."""

    config: LoopedGPT2Config
    base_model_prefix = "transformer"
    _no_split_modules = ["LoopedGPT2Block"]  # noqa: RUF012
    _skip_keys_device_placement = ("past_key_values", "cache")  # two names of one argument

    @classmethod
    def is_custom_code(cls) -> bool:
        # to protect loaded weights from in-place writes, transformers skips `_init_weights` for all modules of custom
        # code that hold only other modules, such as GPT2MLP; ours writes through `transformers.initialization` alone
        return False

    @torch.no_grad()
    def _init_weights(self, module: nn.Module):
        super()._init_weights(module)
        if isinstance(module, LoopedGPT2Model):
            module.wpe.init_weights(self.config.position_initializer_range)
        if isinstance(module, InputInjection):
            module.init_weights()
        if isinstance(module, LoopEncoding | LoopAdapters):
            module.reset_parameters()

    def _check_names(self, names: Iterable[str]):
        """Refuse arguments of `forward` that nothing reads, such as misspelt ones."""
        check_names(names, self.forward, type(self).__name__)


class LoopedGPT2Model(LoopedGPT2PreTrainedModel):
    """
    The looped backbone: token ids or embeddings in, the state after the last loop out.

    Args:
        config ([`LoopedGPT2Config`]):
            The token embedding exists only where `config.vocab_size` is not `None`.
        add_token_embedding (`bool`, defaults to `True`):
            `False` leaves the token embedding out whatever the vocabulary, for heads that embed their own input.
    """

    def __init__(self, config: LoopedGPT2Config, add_token_embedding: bool = True):
        super().__init__(config)
        has_tokens = add_token_embedding and config.vocab_size is not None
        self.wte = nn.Embedding(config.vocab_size, config.n_embd) if has_tokens else None
        self.wpe = POSITION_EMBEDDINGS[config.position_embedding](config)
        self.drop = nn.Dropout(config.embd_pdrop)
        index = itertools.count()  # of a block among all
        for part, n_blocks in config.n_blocks.items():
            blocks = (LoopedGPT2Block(config, layer_idx=next(index)) for _ in range(n_blocks))
            self.add_module(part, nn.ModuleList(blocks))
        self.ln_f = nn.LayerNorm(config.n_embd, eps=config.layer_norm_epsilon)
        self.injection = INJECTIONS[config.input_injection](config)
        self.exit_gate = nn.Linear(config.n_embd, 1) if config.exit_gate else None
        self.loop_weights = LoopWeights(config, self.h[0])
        self.gradient_checkpointing = False
        self._compile_mode: str | None = None
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding | None:
        return self.wte

    def set_input_embeddings(self, new_embeddings: nn.Embedding):
        self.wte = new_embeddings

    @property
    def solver(self) -> Solver | None:
        """What solves for the gradients of a call now; `None` where none flow, or loops are unrolled."""
        return solver_of(self.config) if torch.is_grad_enabled() else None

    def compile_loops(self, mode: str = "default"):
        """
        Compile what a loop does, and the blocks before and after the loops, in place.

        One compilation serves any number of loops, prompts and tokens, and every model of the same configuration.
        Calls with a cache, and those that return the states or the attention of blocks, stay as they are.

        Args:
            mode (`str`, defaults to `"default"`):
                That of `torch.compile`.
        """
        self._compile_mode = mode
        for block in (*self.prelude, *self.coda):
            block.compile(mode=mode, dynamic=True)

    @merge_with_config_defaults
    @capture_outputs
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        cache: Cache | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        use_cache: bool | None = None,
        n_loops: int | torch.LongTensor | None = None,
        loop_window: int | None = None,
        exit_tolerance: float | None = None,
        exit_probability: float | None = None,
        exit_rules: Mapping[str, MakeRule] | None = None,
        loops_per_slot: int = 1,
        n_cells: int | None = None,
        judged_tokens: torch.LongTensor | None = None,
        output_loop_hidden_states: bool = False,
        past_key_values: Cache | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> LoopedGPT2ModelOutput:
        r"""
        Apply the blocks `n_loops` times. B batch, T tokens, E `n_embd`.

        Args:
            input_ids (`torch.LongTensor` of shape `(B, T)`, *optional*):
                Token ids; needs a vocabulary. Give either these or `inputs_embeds`.
            cache, past_key_values ([`~transformers.Cache`], *optional*):
                Any stock cache, empty or filled by calls of the same `n_loops`; the tokens given here come after its.
                The second name is that of transformers before 5.24 and deprecated since.
            attention_mask (`torch.Tensor` of shape `(B, tokens of the cache + T)`, *optional*):
                1 for tokens to attend to, 0 for padding. Masks of four dimensions are taken as they are, without
                `config.attention_window`.
            position_ids (`torch.LongTensor` of shape `(B, T)` or `(1, T)`, *optional*):
                Positions, below `config.n_positions`. Default: 0, 1, 2, ... after those of the cache. Without
                `attention_mask` and cache, a position that does not follow the one before it starts a sequence that
                does not see those before it; give a mask with positions that count anything else, such as digits.
            inputs_embeds (`torch.FloatTensor` of shape `(B, T, E)`, *optional*):
                The embedded prompt e.
            use_cache (`bool`, *optional*, defaults to `config.use_cache`):
                Return a cache for the tokens to come; not where gradients flow and each row has its own `loop_window`.
            n_loops (`int` or `torch.LongTensor` of shape `(B,)`, *optional*, defaults to `config.n_loops`):
                Loops of this call, or of each row, >= 1; may be far more than the model was trained with. Each row
                gets what a call with its number of loops alone gives, and is no longer computed once it has run them.
                The cache of such a call has the slots of the largest number; later calls must give the same numbers.
            loop_window (`int`, *optional*, defaults to `n_loops`):
                Last loops of each row that carry a gradient, in 1 ... the smallest `n_loops` (the paper's T). The
                loops before them run without gradient (truncated backpropagation). The forward values do not depend
                on it. With a `config.solver` other than `"unrolled"` it is 1 where gradients flow.
            exit_tolerance (`float`, *optional*):
                End the loops of a row once its last token has settled, that is once a loop changes its state by less
                than this share of its norm (> 0); at most `n_loops`. The last token is the last that `attention_mask`
                shows. Rows that have ended are no longer computed, keep their state and leave the keys and values of
                their last loop in the cache for all later ones, here and with `n_loops` per row. No row depends on
                another.
            exit_probability (`float`, *optional*):
                End the loops of a row once the gate of `config.exit_gate` has stopped it with this probability, in
                (0, 1), judged by its last token too. Of several `exit_...` the first to come ends a row.
            exit_rules (`Mapping[str, Callable]`, *optional*):
                Further rules by the name that errors give them. Each is called with the places `(B, A)` of the tokens
                that rows are judged by and returns a rule (see `stop_rules_looped_gpt2.py`). Heads use it for what
                they read out.
            loops_per_slot (`int`, defaults to 1):
                Loops that share a slot of the cache, >= 1, which divides its memory. Such a group of loops reads, of
                tokens from earlier calls, what the group's last loop left; tokens of one call see each other as
                always. 1 is exact; `n_loops` or more: all loops read the last loop's keys and values.
            n_cells (`int`, *optional*):
                The tokens are the cells of a table, row after row with so many in each, >= 1. Blocks see in turns the
                columns, under an `attention_mask` `(1, 1, P, rows of the cache + P)` of the P rows, and the rows, all
                of each. A cache keeps the columns alone, `n_cells` of them for each row of the batch.
            judged_tokens (`torch.LongTensor` of shape `(A,)`, *optional*):
                Tokens that an `exit_...` judges a row by, in the place of the last one.
            output_loop_hidden_states (`bool`, defaults to `False`):
                Also return the state after each loop of the window, which must be given where rows run different
                numbers of loops: each row shows its own last loops.

        Raises:
            `ValueError`: inputs, sequence length, `n_loops`, `loop_window`, an `exit_...` or `loops_per_slot` are
                not as above, or the cache was filled with another number of loops.
            `TypeError`: an argument has another name.
        """
        self._check_names(kwargs)
        cache = one_cache(cache, past_key_values)
        inputs_embeds = self._embed(input_ids, inputs_embeds)
        batch_size, n_tokens = inputs_embeds.shape[:2]
        n_loops = self.config.n_loops if n_loops is None else n_loops
        loop_window = self._own_window(loop_window, shows_loops := output_loop_hidden_states)
        max_loops, loop_window = check_loops(n_loops, loop_window, loops_per_slot, batch_size, shows_loops)
        exits = backbone_exits(exit_tolerance, exit_probability, self.exit_gate) | dict(exit_rules or {})
        self._check_coda(shows_loops, cache)
        rows_apart = self._check_window(loop_window, max_loops, n_loops, exits, cache)
        has_window = loop_window < max_loops and self.solver is None
        check_looks_at_loops(n_loops, exits, has_window, shows_loops, kwargs)
        captured = [kwargs.pop(name, None) for name in BLOCK_OUTPUTS]  # by the decorator, not by the blocks
        if use_cache and cache is None and not rows_apart:
            cache = DynamicCache(config=self.config.with_loops(max_loops, loops_per_slot))
        plan = self.config.plan(max_loops, loops_per_slot)
        check_cache(cache, plan, loops_per_slot)
        n_seen = cache.get_seq_length() if cache is not None else 0
        check_positions(position_ids, batch_size, n_tokens, self.config.max_tokens)
        check_mask(attention_mask, batch_size, n_seen, n_tokens)
        rows_end = bool(exits) or isinstance(n_loops, torch.Tensor)
        check_cells(n_cells, n_tokens, attention_mask, rows_end and cache is not None)
        # transformers looks for packed sequences in positions, and a GPU has to wait for that: only in given ones
        causal_mask = make_mask(self.config, inputs_embeds, attention_mask, cache, position_ids)
        if position_ids is None:
            position_ids = next_positions(inputs_embeds, n_seen, self.config.max_tokens)
        n_loops, rules = make_rules(n_loops, exits, inputs_embeds, attention_mask, n_seen, judged_tokens)
        # a checkpointed block runs twice and would add its keys twice
        filled_cache = None if self.gradient_checkpointing and self.training else cache
        body = run_body if cache is not None or any(captured) else self._body
        sight = self.wpe(position_ids), causal_mask, position_ids, views_of(n_cells)
        call = Call(plan, body, filled_cache, inputs_embeds, *sight, {}, kwargs)
        states, n_loops_used = self._run_plan(call, n_loops, loop_window, shows_loops, rules)
        return LoopedGPT2ModelOutput(
            states[-1],
            cache if use_cache else None,
            n_loops_used=n_loops_used,
            loop_hidden_states=tuple(states) if shows_loops else None,
            loop_exit_logits=self._exit_logits(states) if shows_loops else None,
        )

    def _exit_logits(self, states: list[torch.Tensor]) -> torch.Tensor | None:
        if self.exit_gate is None:
            return None
        return torch.stack([self.exit_gate(state).squeeze(-1).float() for state in states], dim=1)

    @property
    def _body(self) -> Callable:
        return run_body if self._compile_mode is None else compiled_body(self._compile_mode)

    def _embed(self, input_ids: torch.LongTensor | None, inputs_embeds: torch.Tensor | None) -> torch.Tensor:
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("Give either `input_ids` or `inputs_embeds`, and not both.")
        if inputs_embeds is not None:
            return inputs_embeds
        if self.wte is None:
            raise ValueError("`input_ids` need a token embedding and this model has none: give `inputs_embeds`.")
        check_indices("input_ids", input_ids, self.config.vocab_size)
        return self.wte(input_ids)

    def _own_window(self, loop_window: int | None, shows_loops: bool) -> int | None:
        """Return the window of a call, that of its solver if it has one."""
        if self.solver is None:
            return loop_window
        return check_solved_window(loop_window, shows_loops, self.config.solver)

    def _check_coda(self, shows_loops: bool, cache: Cache | None):
        """Refuse to keep what the coda sees after every loop: a cache has a slot for the last alone."""
        if shows_loops and self.coda and cache is not None:
            raise ValueError("`output_loop_hidden_states` runs the coda after every loop: leave out `cache`.")

    def _check_window(
        self,
        loop_window: int,
        max_loops: int,
        n_loops: int | torch.LongTensor,
        exits: Iterable[str],
        cache: Cache | None,
    ) -> bool:
        """Return whether each row has a window of its own: rows before it run apart from rows in it."""
        is_solved = self.solver is not None
        if isinstance(n_loops, torch.Tensor):
            self.loop_weights.check_by_row()
        if not torch.is_grad_enabled() or (loop_window == max_loops and not is_solved):
            return False
        if not self.injection.enters_every_loop:
            raise ValueError(
                f"`loop_window` must equal `n_loops` = {max_loops} with `input_injection="
                f"{self.config.input_injection!r}`, got {loop_window}: the prompt enters before the first loop only, "
                "and a shorter window would never train its embedding."
            )
        by_row = isinstance(n_loops, torch.Tensor) or (is_solved and bool(exits))
        if by_row and cache is not None:
            name = f"`solver={self.config.solver!r}`" if is_solved else "`loop_window`"
            raise ValueError(f"{name} runs rows that end after different loops apart: leave out `cache`.")
        return by_row

    def _run_plan(
        self, call: Call, n_loops: int | torch.LongTensor, loop_window: int, shows_window: bool, rules: list[StopRule]
    ) -> tuple[list[torch.Tensor], torch.LongTensor | None]:
        """Run all steps; returns the final states of the window's loops, or the last's alone, and each row's loops."""
        if self.prelude or self.config.residual_loops:
            prompt = self.drop(call.prompt + call.position_embeds)
            prompt = run_steps(self, call.plan.prelude, prompt, call, slots_of(call.cache, call.plan.prelude))
            call = call._replace(prompt=prompt, position_embeds=None)
        loop, finish, solver = partial(self._loop, call), partial(self._finish, call), self.solver
        if solver is not None:
            loop = solved(loop, solver)
        state, max_loops = self.injection.initial_state(call.prompt), len(call.plan.loops)
        if not rules:
            return unroll(loop, finish, state, max_loops, loop_window, shows_window), None
        if self.config.residual_loops:
            rules = [normed(rule, self.ln_f) for rule in rules]
        if solver is not None:
            outputs, n_loops_used = run_until_last(loop, state, rules)
        else:
            if loop_window < max_loops and torch.is_grad_enabled():
                loop = truncated(loop, n_loops - loop_window)
            outputs, n_loops_used = run_until(loop, state, rules, loop_window if shows_window else 1)
        if call.cache is not None:
            fill(call.cache, call.plan.loops[n_loops_used.max() :], call.latest)
        states = [finish(output, self.ln_f(output), output is outputs[-1]) for output in outputs]
        return states, n_loops_used

    def _loop(
        self, call: Call, state: torch.Tensor, number: int, rows: torch.LongTensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Run one loop of some rows, all for `None`; returns the output of its blocks, and the next state."""
        steps = call.plan.loops[number]
        slots = slots_of(call.cache, steps, rows, call.latest)
        # gradients pass the loop of a solver many times, and what is compiled once, with those of all weights
        body = call.body if self.solver is None else run_body
        changes = self.loop_weights(number + 1, len(call.plan.loops))
        return body(self, state, steps, slots, call.select_rows(rows), changes)

    def _finish(self, call: Call, output: torch.Tensor, state: torch.Tensor, is_last: bool) -> torch.Tensor:
        """Return the coda's output for a loop's output, or that itself without a coda, layer-normalised."""
        if not self.coda:
            return self.ln_f(output) if self.config.residual_loops else state
        slots = slots_of(call.cache if is_last else None, call.plan.coda)
        return self.ln_f(run_steps(self, call.plan.coda, output, call, slots))


__all__ = ["LoopedGPT2Model", "LoopedGPT2PreTrainedModel"]
