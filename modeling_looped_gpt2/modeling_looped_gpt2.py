"""The looped GPT-2: a few GPT-2 blocks applied again and again, the embedded prompt re-injected before every loop.

    e   = embedded prompt
    z_0 = 0 ("add") | 1 ("multiply") | e ("none")
    z_t = ln_f( h( inject(z_{t-1}, e) + wpe ) )      t = 1 ... n_loops

Optional blocks with weights of their own may run once before and after: with a prelude e = prelude(e + wpe) and the
loops add no wpe, with a coda the result is ln_f( coda( h(...) ) ) of the last loop.

Source: Yang, Lee, Nowak, Papailiopoulos, "Looped Transformers are Better at Learning Learning Algorithms" (ICLR 2024).
"""

import inspect
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from numbers import Integral, Real

import torch
from torch import nn
from transformers import initialization as init
from transformers.cache_utils import Cache, DynamicCache
from transformers.modeling_outputs import BaseModelOutputWithPast
from transformers.models.gpt2.modeling_gpt2 import GPT2Block, GPT2PreTrainedModel
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from .cache_looped_gpt2 import CacheByEitherName, LoopSlots, RunningRows, fill, has_plain_layers, one_cache
from .configuration_looped_gpt2 import LoopedGPT2Config
from .masks_looped_gpt2 import make_mask


# arguments that transformers hands to any model, down to its attention
SHARED_ARGUMENTS = TransformersKwargs.__optional_keys__


@dataclass
class LoopedGPT2ModelOutput(BaseModelOutputWithPast, CacheByEitherName):
    """
    Output of [`LoopedGPT2Model`]. B batch, T tokens, E `n_embd`.

    Args:
        last_hidden_state (`torch.Tensor` of shape `(B, T, E)`):
            State after the last loop, layer-normalised.
        cache ([`~transformers.Cache`], returned when `use_cache=True`):
            Keys and values of every loop and block: loop l (from 0) and block i own slot `l * n_layer + i`, behind
            those of the prelude and before those of the coda. `past_key_values`, the name that it had before
            transformers 5.24, stays readable.
        hidden_states (`tuple[torch.Tensor]`, returned when `output_hidden_states=True`):
            Input of the first block and output of each executed block, `num_hidden_layers + 1` of shape `(B, T, E)`;
            the last is replaced by `last_hidden_state`, as everywhere in transformers.
        attentions (`tuple[torch.Tensor]`, returned when `output_attentions=True`):
            Attention weights of each executed block, `(B, n_head, T, T)`; needs `attn_implementation="eager"`.
        n_loops_used (`torch.LongTensor` of shape `(B,)`, returned when `exit_tolerance` is given):
            Loops that each row ran.
        loop_hidden_states (`tuple[torch.Tensor]`, returned when `output_loop_hidden_states=True`):
            State `(B, T, E)` after each loop of the window, layer-normalised; the last is `last_hidden_state`. With a
            coda it is what the coda makes of that state.
    """

    n_loops_used: torch.LongTensor | None = None
    loop_hidden_states: tuple[torch.Tensor, ...] | None = None


class LoopedGPT2PreTrainedModel(GPT2PreTrainedModel):
    """Weight initialisation and loading shared by all looped GPT-2 models."""

    config: LoopedGPT2Config
    base_model_prefix = "transformer"
    _skip_keys_device_placement = ("past_key_values", "cache")  # two names of one argument

    @classmethod
    def is_custom_code(cls) -> bool:
        # for fear of in-place writes over loaded weights, transformers skips `_init_weights` for all modules of custom
        # code that hold other modules only, such as GPT2MLP; ours writes through `transformers.initialization` alone
        return False

    @torch.no_grad()
    def _init_weights(self, module: nn.Module):
        super()._init_weights(module)
        if isinstance(module, LoopedGPT2Model):
            init.normal_(module.wpe.weight, mean=0.0, std=self.config.position_initializer_range)

    def _check_names(self, names: Iterable[str]):
        """Refuse arguments of `forward` that nothing reads, such as misspelt ones."""
        for name in names:
            if name not in SHARED_ARGUMENTS:
                known = {*inspect.signature(self.forward).parameters, *SHARED_ARGUMENTS} - {"kwargs"}
                close = get_close_matches(name, sorted(known), 1)
                hint = f", did you mean `{close[0]}`?" if close else "."
                raise TypeError(f"`{name}` is no argument of {type(self).__name__}.forward{hint}")


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
        self.wpe = nn.Embedding(config.n_positions, config.n_embd)
        self.drop = nn.Dropout(config.embd_pdrop)
        # a block's index is its slot in the first loop
        blocks = [GPT2Block(config, layer_idx=i) for i in range(config.with_loops(1).num_hidden_layers)]
        after_loop = config.n_prelude + config.n_layer
        self.prelude = nn.ModuleList(blocks[: config.n_prelude])
        self.h = nn.ModuleList(blocks[config.n_prelude : after_loop])
        self.coda = nn.ModuleList(blocks[after_loop:])
        self.ln_f = nn.LayerNorm(config.n_embd, eps=config.layer_norm_epsilon)
        self.gradient_checkpointing = False
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding | None:
        return self.wte

    def set_input_embeddings(self, new_embeddings: nn.Embedding):
        self.wte = new_embeddings

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
        n_loops: int | None = None,
        loop_window: int | None = None,
        exit_tolerance: float | None = None,
        loops_per_slot: int = 1,
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
                1 for tokens to attend to, 0 for padding. Masks of four dimensions are taken as they are.
            position_ids (`torch.LongTensor` of shape `(B, T)` or `(1, T)`, *optional*):
                Positions, below `config.n_positions`. Default: 0, 1, 2, ... after those of the cache.
            inputs_embeds (`torch.FloatTensor` of shape `(B, T, E)`, *optional*):
                The embedded prompt e.
            use_cache (`bool`, *optional*, defaults to `config.use_cache`):
                Return a cache for the tokens to come.
            n_loops (`int`, *optional*, defaults to `config.n_loops`):
                Loops of this call, >= 1; may be far more than the model was trained with.
            loop_window (`int`, *optional*, defaults to `n_loops`):
                Last loops that carry a gradient, in 1 ... `n_loops` (the paper's T). The loops before them run without
                gradient (truncated backpropagation). The forward values do not depend on it.
            exit_tolerance (`float`, *optional*):
                End the loops of a row once its last token has settled, that is once a loop changes its state by less
                than this share of its norm (> 0); at most `n_loops`. The last token is the last that `attention_mask`
                shows. Rows that have ended are no longer computed, keep their state and leave the keys and values of
                their last loop in the cache for all later ones. No row depends on another.
            loops_per_slot (`int`, defaults to 1):
                Loops that share a slot of the cache, >= 1, which divides its memory. Such a group of loops reads, of
                tokens from earlier calls, what the group's last loop left; tokens of one call see each other as
                always. 1 is exact; `n_loops` or more: all loops read the last loop's keys and values.
            output_loop_hidden_states (`bool`, defaults to `False`):
                Also return the state after each loop of the window.

        Raises:
            `ValueError`: inputs, sequence length, `n_loops`, `loop_window`, `exit_tolerance` or `loops_per_slot` are
                not as above, or the cache was filled with another number of loops.
            `TypeError`: an argument has another name.
        """
        self._check_names(kwargs)
        cache = one_cache(cache, past_key_values)
        n_loops, loop_window = self._check_loops(n_loops, loop_window, loops_per_slot)
        self._check_exit(exit_tolerance, loop_window < n_loops, output_loop_hidden_states, kwargs)
        for name in ("output_attentions", "output_hidden_states"):  # captured by the decorator, not by the blocks
            kwargs.pop(name, None)
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("Give either `input_ids` or `inputs_embeds`, and not both.")
        if inputs_embeds is None:
            if self.wte is None:
                raise ValueError("`input_ids` need a token embedding and this model has none: give `inputs_embeds`.")
            self._check_indices("input_ids", input_ids, self.config.vocab_size)
            inputs_embeds = self.wte(input_ids)
        if output_loop_hidden_states and self.coda and cache is not None:
            raise ValueError("`output_loop_hidden_states` runs the coda after every loop: leave out `cache`.")
        if use_cache and cache is None:
            cache = DynamicCache(config=self.config.with_loops(n_loops, loops_per_slot))
        self._check_cache(cache, n_loops, loops_per_slot)
        self._check_mask_and_positions(attention_mask, position_ids, inputs_embeds, cache)
        given_positions = position_ids
        if position_ids is None:
            position_ids = self._next_positions(inputs_embeds, cache)
        # positions are looked through for packed sequences, which would make a GPU wait: only those that are given
        causal_mask = make_mask(self.config, inputs_embeds, attention_mask, cache, given_positions)
        if exit_tolerance is not None:
            last_tokens = _last_tokens(inputs_embeds, attention_mask, 0 if cache is None else cache.get_seq_length())
        # a checkpointed block runs twice and would add its keys twice
        filled_cache = None if self.gradient_checkpointing and self.training else cache
        slots = _slots_by_loop(filled_cache, self.config.n_layer, n_loops, loops_per_slot)
        position_embeds = self.wpe(position_ids)
        if self.prelude:
            inputs_embeds = self.drop(inputs_embeds + position_embeds)
            once = None if filled_cache is None else LoopSlots(filled_cache, 0)
            inputs_embeds = _run(self.prelude, inputs_embeds, causal_mask, position_ids, once, kwargs)
            position_embeds = None
        inputs = (inputs_embeds, position_embeds, causal_mask, position_ids)

        loop_hidden_states = [] if output_loop_hidden_states else None
        n_loops_used = None
        if exit_tolerance is None:
            hidden_states = self._run_loops(inputs, slots, loop_window, loop_hidden_states, kwargs)
        else:
            hidden_states, n_loops_used = self._run_until_settled(
                inputs, slots, float(exit_tolerance), last_tokens, kwargs
            )
        return LoopedGPT2ModelOutput(
            hidden_states,
            cache if use_cache else None,
            n_loops_used=n_loops_used,
            loop_hidden_states=tuple(loop_hidden_states) if output_loop_hidden_states else None,
        )

    def _run_loops(
        self, inputs: tuple, slots: list[LoopSlots | None], loop_window: int, states: list | None, kwargs: dict
    ) -> torch.Tensor:
        """Run one loop for each of `slots`; the final state. Those of the window are added to `states`."""
        state = self._initial_state(inputs[0])
        for loop, loop_slots in enumerate(slots):
            is_last = loop == len(slots) - 1
            in_window = loop >= len(slots) - loop_window
            with torch.set_grad_enabled(in_window and torch.is_grad_enabled()):
                output = self._run_blocks(state, *inputs, loop_slots, kwargs)
                state = self.ln_f(output)
            if is_last or (in_window and states is not None):
                final_state = self._run_coda(output, state, inputs, loop_slots if is_last else None, kwargs)
            if in_window and states is not None:
                states.append(final_state)
        return final_state

    def _run_until_settled(
        self,
        inputs: tuple,
        slots: list[LoopSlots | None],
        tolerance: float,
        last_tokens: torch.LongTensor,
        kwargs: dict,
    ) -> tuple[torch.Tensor, torch.LongTensor]:
        """Run each row until its last token has settled; the final states and the loops used."""
        latest, all_inputs = {}, inputs
        outputs = final_outputs = state = self._initial_state(inputs[0])
        rows = torch.arange(len(state), device=state.device)
        n_loops_used = torch.full_like(rows, len(slots))
        for loop, loop_slots in enumerate(slots):
            running = None if loop_slots is None else RunningRows(loop_slots, rows, latest)
            previous = _at(state, last_tokens)
            outputs = self._run_blocks(state, *inputs, running, kwargs)
            state = self.ln_f(outputs)
            last = _at(state, last_tokens)
            settled = (last - previous).norm(dim=-1) < tolerance * last.norm(dim=-1)
            if settled.any():
                final_outputs = final_outputs.index_copy(0, rows[settled], outputs[settled])
                n_loops_used[rows[settled]] = loop + 1
                rows, outputs, state = rows[~settled], outputs[~settled], state[~settled]
                last_tokens = last_tokens[~settled]
                inputs = tuple(_select_rows(tensor, ~settled) for tensor in inputs)
            if not len(rows):
                if loop_slots is not None:
                    fill(slots[loop:] if not loop_slots.keeps else slots[loop + 1 :], latest)
                break
        final_outputs = final_outputs.index_copy(0, rows, outputs)
        state = self.ln_f(final_outputs)
        return self._run_coda(final_outputs, state, all_inputs, slots[-1], kwargs), n_loops_used

    def _run_blocks(
        self,
        state: torch.Tensor,
        inputs_embeds: torch.Tensor,
        position_embeds: torch.Tensor | None,
        causal_mask: torch.Tensor | None,
        position_ids: torch.LongTensor,
        slots: LoopSlots | None,
        kwargs: dict,
    ) -> torch.Tensor:
        """One loop: inject the prompt and run the blocks; not normalised."""
        hidden_states = self._inject(state, inputs_embeds)
        if position_embeds is not None:
            hidden_states = self.drop(hidden_states + position_embeds)
        return _run(self.h, hidden_states, causal_mask, position_ids, slots, kwargs)

    def _run_coda(
        self, output: torch.Tensor, state: torch.Tensor, inputs: tuple, slots: LoopSlots | None, kwargs: dict
    ) -> torch.Tensor:
        """What the coda makes of a loop's output, normalised; without a coda the loop's own state."""
        if not self.coda:
            return state
        _, _, causal_mask, position_ids = inputs
        return self.ln_f(_run(self.coda, output, causal_mask, position_ids, slots, kwargs))

    def _next_positions(self, inputs_embeds: torch.Tensor, cache: Cache | None) -> torch.LongTensor:
        n_seen = 0 if cache is None else cache.get_seq_length()
        n_tokens = inputs_embeds.shape[1]
        # a static cache keeps its length in a tensor, which a check would have to wait for
        if isinstance(n_seen, int) and n_seen + n_tokens > self.config.n_positions:
            raise ValueError(
                f"`n_positions` is {self.config.n_positions} tokens, got a sequence of {n_seen + n_tokens}."
            )
        return (torch.arange(n_tokens, device=inputs_embeds.device) + n_seen).unsqueeze(0)

    def _check_loops(self, n_loops: int | None, loop_window: int | None, loops_per_slot: int = 1) -> tuple[int, int]:
        n_loops = self.config.n_loops if n_loops is None else n_loops
        if not _is_integer(n_loops) or n_loops < 1:
            raise ValueError(f"`n_loops` must be an integer >= 1, got {n_loops!r}.")
        if not _is_integer(loops_per_slot) or loops_per_slot < 1:
            raise ValueError(f"`loops_per_slot` must be an integer >= 1, got {loops_per_slot!r}.")
        loop_window = n_loops if loop_window is None else loop_window
        if not _is_integer(loop_window) or not 1 <= loop_window <= n_loops:
            raise ValueError(f"`loop_window` must be an integer in 1 ... `n_loops` = {n_loops}, got {loop_window!r}.")
        if self.config.input_injection == "none" and loop_window < n_loops and torch.is_grad_enabled():
            raise ValueError(
                f"`loop_window` must equal `n_loops` = {n_loops} with `input_injection='none'`, got {loop_window}: "
                "the prompt enters before the first loop only, and a shorter window would never train its embedding."
            )
        return n_loops, loop_window

    def _check_exit(self, exit_tolerance: float | None, has_window: bool, output_loops: bool, kwargs: dict):
        if exit_tolerance is None:
            return
        is_number = isinstance(exit_tolerance, Real) and not isinstance(exit_tolerance, bool)
        if not is_number or not 0 < exit_tolerance < float("inf"):
            raise ValueError(f"`exit_tolerance` must be a finite number > 0, got {exit_tolerance!r}.")
        outputs = {name: kwargs.get(name) for name in ("output_hidden_states", "output_attentions")}
        unfit = {"loop_window": has_window, "output_loop_hidden_states": output_loops, **outputs}
        for name, given in unfit.items():
            if given:
                raise ValueError(
                    f"`{name}` cannot be had with `exit_tolerance`: rows end after different loops. Leave one out."
                )

    def _check_indices(self, name: str, indices: torch.LongTensor, n_rows: int):
        """Refuse what is no index of an embedding of `n_rows`; looks at values where that costs no wait for a GPU."""
        if not isinstance(indices, torch.Tensor) or indices.ndim != 2 or indices.dtype not in (torch.int, torch.long):
            got = f"{indices.dtype} of shape {tuple(indices.shape)}" if isinstance(indices, torch.Tensor) else indices
            raise ValueError(f"`{name}` must be a `torch.LongTensor` of two dimensions, got {got!s:.80}.")
        if indices.device.type == "cpu" and not torch.compiler.is_compiling() and indices.numel():
            least, most = indices.min().item(), indices.max().item()
            if not 0 <= least <= most < n_rows:
                raise ValueError(f"`{name}` must be in 0 ... {n_rows - 1}, got {least} to {most}.")

    def _check_mask_and_positions(
        self,
        attention_mask: torch.Tensor | None,
        position_ids: torch.LongTensor | None,
        inputs_embeds: torch.Tensor,
        cache: Cache | None,
    ):
        batch_size, n_tokens = inputs_embeds.shape[:2]
        if position_ids is not None:
            self._check_indices("position_ids", position_ids, self.config.n_positions)
            if tuple(position_ids.shape) not in ((batch_size, n_tokens), (1, n_tokens)):
                raise ValueError(
                    f"`position_ids` must have shape {(batch_size, n_tokens)} or {(1, n_tokens)}, got "
                    f"{tuple(position_ids.shape)}."
                )
        n_seen = 0 if cache is None else cache.get_seq_length()
        # a static cache keeps its length in a tensor; masks of four dimensions are the caller's own
        shape = getattr(attention_mask, "shape", ())
        if attention_mask is not None and len(shape) != 4 and isinstance(n_seen, int):
            expected = (batch_size, n_seen + n_tokens)
            if not isinstance(attention_mask, torch.Tensor) or tuple(shape) != expected:
                raise ValueError(
                    f"`attention_mask` must be a tensor of shape {expected}, one entry per token of the cache and of "
                    f"the call, got {type(attention_mask).__name__} of shape {tuple(shape)}."
                )

    def _check_cache(self, cache: Cache | None, n_loops: int, loops_per_slot: int):
        if cache is None:
            return
        if not hasattr(cache, "layers"):
            raise ValueError(
                "`cache` must be a cache of transformers for a decoder, e.g. `DynamicCache`, got "
                f"{type(cache).__name__}."
            )
        n_slots, n_layer = len(cache.layers), self.config.n_layer
        expected = self.config.with_loops(n_loops, loops_per_slot).num_hidden_layers
        grows = cache.layer_class_to_replicate is not None and not cache.get_seq_length()
        if n_slots != expected and not grows:
            n_loops_held = (n_slots - self.config.n_prelude - self.config.n_coda) / n_layer
            raise ValueError(
                f"`cache` has {n_slots} slots, {n_loops_held:g} loops of {n_layer} block(s), and this call "
                f"needs {expected} for `n_loops` = {n_loops}: go on with as many loops as the cache was filled with, "
                f"or start a new one for `config.with_loops({n_loops}, {loops_per_slot})`."
            )
        if loops_per_slot > 1 and (cache.offloading or not has_plain_layers(cache)):
            raise ValueError(
                "`loops_per_slot` > 1 needs a `DynamicCache` or `StaticCache` that stays on its device, got "
                f"{type(cache).__name__} (offloading={cache.offloading})."
            )

    def _initial_state(self, inputs_embeds: torch.Tensor) -> torch.Tensor:
        if self.config.input_injection == "none":
            return inputs_embeds
        return torch.full_like(inputs_embeds, 0.0 if self.config.input_injection == "add" else 1.0)

    def _inject(self, hidden_states: torch.Tensor, inputs_embeds: torch.Tensor) -> torch.Tensor:
        if self.config.input_injection == "none":
            return hidden_states
        if self.config.input_injection == "add":
            return hidden_states + inputs_embeds
        return hidden_states * inputs_embeds


def _slots_by_loop(cache: Cache | None, n_layer: int, n_loops: int, loops_per_slot: int) -> list[LoopSlots | None]:
    """The slots of each loop; the last loop of every group of `loops_per_slot` keeps its keys and values."""
    if cache is None:
        return [None] * n_loops
    keeps = [loop == n_loops - 1 or loop % loops_per_slot == loops_per_slot - 1 for loop in range(n_loops)]
    return [LoopSlots(cache, loop // loops_per_slot * n_layer, keeps[loop]) for loop in range(n_loops)]


def _run(
    blocks: nn.ModuleList,
    hidden_states: torch.Tensor,
    causal_mask: torch.Tensor | None,
    position_ids: torch.LongTensor,
    slots: LoopSlots | None,
    kwargs: dict,
) -> torch.Tensor:
    """Run blocks one after another."""
    for block in blocks:
        hidden_states = block(hidden_states, slots, causal_mask, position_ids=position_ids, **kwargs)
    return hidden_states


def _select_rows(tensor: torch.Tensor | None, rows: torch.BoolTensor) -> torch.Tensor | None:
    """The given rows of a tensor that has as many, or the tensor itself where one row stands for all."""
    return tensor[rows] if tensor is not None and len(rows) > 1 and tensor.shape[0] == len(rows) else tensor


def _last_tokens(inputs_embeds: torch.Tensor, mask: torch.Tensor | None, n_seen: int) -> torch.LongTensor:
    """Places (B,) of each row's last token that the mask shows, of the T tokens behind `n_seen` of a cache."""
    batch_size, n_tokens = inputs_embeds.shape[:2]
    last = torch.full((batch_size,), n_tokens - 1, device=inputs_embeds.device)
    if mask is None:
        return last
    start, end = int(n_seen), int(n_seen) + n_tokens
    shape = tuple(mask.shape) if isinstance(mask, torch.Tensor) else ()
    is_square = len(shape) == 4 and shape[2] == n_tokens
    if not (len(shape) == 2 or is_square) or shape[-1] < end:
        raise ValueError(
            "`exit_tolerance` judges a row by the last token that `attention_mask` shows: give a mask of shape "
            f"{(batch_size, end)}, 1 for tokens and 0 for padding, got {type(mask).__name__} of shape {shape}."
        )
    shown = mask[..., start:end]
    threshold = 0
    if is_square:  # a token that is shown sees itself
        shown = shown[:, 0].diagonal(dim1=-2, dim2=-1)
        threshold = torch.finfo(mask.dtype).min / 2 if mask.is_floating_point() else 0
    # in a row of padding alone, which nothing looks at, that is the last token of all
    return last - (shown > threshold).int().flip(-1).argmax(-1)


def _at(state: torch.Tensor, places: torch.LongTensor) -> torch.Tensor:
    """The states (B, E) of one token (B,) of each row of (B, T, E)."""
    return state[torch.arange(len(state), device=state.device), places]


def _is_integer(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


__all__ = ["LoopedGPT2Model", "LoopedGPT2PreTrainedModel"]
