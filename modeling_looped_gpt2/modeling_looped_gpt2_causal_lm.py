"""The looped GPT-2 as a language model; every call can choose its number of loops."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import torch
from torch import nn
from transformers.cache_utils import Cache
from transformers.generation import GenerationConfig, GenerationMixin
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.modeling_utils import slice_logits_to_keep
from transformers.models.gpt2.modeling_gpt2 import GPT2LMHeadModel
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs, can_return_tuple

from .arguments_looped_gpt2 import check_labels, check_loops, check_no_exits
from .cache_looped_gpt2 import CACHE_NAME, CacheByEitherName, cache_bytes, one_cache
from .configuration_looped_gpt2 import LoopedGPT2Config
from .gpt2_blocks_looped_gpt2 import (
    as_blocks_ran,
    as_gpt2,
    blocks_of_parts,
    fit_adapters,
    load_means,
    shared_blocks,
)
from .masks_looped_gpt2 import make_mask
from .modeling_looped_gpt2 import LoopedGPT2Model, LoopedGPT2PreTrainedModel
from .plan_looped_gpt2 import PARTS
from .stop_rules_looped_gpt2 import confidence_exit


# arguments of `forward` that `generate` and `GenerationConfig` take too
LOOP_ARGUMENTS = ("n_loops", "exit_tolerance", "exit_confidence", "exit_probability", "loops_per_slot")
# arguments of transformers' loss that `forward` takes too
LOSS_ARGUMENTS = ("shift_labels", "ignore_index")


@dataclass
class LoopedGPT2CausalLMOutput(CausalLMOutputWithPast, CacheByEitherName):
    """
    Output of [`LoopedGPT2LMHeadModel`]. B batch, T tokens whose logits are kept, V `vocab_size`.

    Args:
        loss (`torch.Tensor` of shape `()`, returned when `labels` is given):
            Cross-entropy of the next token in nats: of the last loop, or the mean over the loops of `loop_window`.
        logits (`torch.Tensor` of shape `(B, T, V)`):
            Scores of the next token after the last loop.
        cache, hidden_states, attentions, n_loops_used:
            As in [`LoopedGPT2ModelOutput`].
        loop_logits (`tuple[torch.Tensor]`, returned when `output_loop_logits=True`):
            Scores `(B, T, V)` after each loop of the window; the last is `logits`.
        loop_exit_logits (`torch.Tensor` of shape `(B, L, T)`, returned where loops are looked at):
            By a model with `config.exit_gate`: what its gate says at each token after each of L loops of the window,
            float32.
    """

    n_loops_used: torch.LongTensor | None = None
    loop_logits: tuple[torch.Tensor, ...] | None = None
    loop_exit_logits: torch.Tensor | None = None


class LoopedGPT2LMHeadModel(LoopedGPT2PreTrainedModel, GenerationMixin):
    """
    Looped GPT-2 that predicts the next token; its output layer is tied to the token embedding.

    `n_loops`, `exit_tolerance`, `exit_confidence`, `exit_probability` and `loops_per_slot` are arguments of
    [`~LoopedGPT2LMHeadModel.forward`], of `generate` and fields of a `GenerationConfig` alike; an argument wins over a
    configuration. Give `n_loops` per row as an argument: a configuration that holds a tensor cannot be saved.

    Args:
        config ([`LoopedGPT2Config`]):
            With a `vocab_size`.

    Raises:
        `ValueError`: the configuration has no vocabulary, or an order of examples.
    """

    _tied_weights_keys = {"lm_head.weight": "transformer.wte.weight"}  # noqa: RUF012

    def __init__(self, config: LoopedGPT2Config):
        if config.vocab_size is None:
            raise ValueError("`vocab_size` must be an integer >= 1 for a language model, got None.")
        if config.example_order != "causal":
            raise ValueError(
                f"`example_order` is of the in-context heads and must be 'causal' for a language model, got "
                f"{config.example_order!r}: leave it out."
            )
        super().__init__(config)
        self.loss_type = "ForCausalLM"
        self.transformer = LoopedGPT2Model(config)
        self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        self.post_init()
        # else transformers drops the loop arguments that a user sets on it when the model is loaded again
        self.generation_config._from_model_config = False

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        cache: Cache | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        labels: torch.LongTensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        n_loops: int | torch.LongTensor | None = None,
        loop_window: int | None = None,
        exit_tolerance: float | None = None,
        exit_confidence: float | None = None,
        exit_probability: float | None = None,
        loops_per_slot: int = 1,
        output_loop_logits: bool = False,
        past_key_values: Cache | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> LoopedGPT2CausalLMOutput:
        r"""
        Score the next token after every token. B batch, T tokens.

        Args:
            input_ids, cache, past_key_values, attention_mask, position_ids, inputs_embeds, use_cache, n_loops,
            exit_tolerance, exit_probability, loops_per_slot:
                As in [`LoopedGPT2Model`].
            exit_confidence (`float`, *optional*):
                End the loops of a row once the likeliest next token after its last has this probability, in (0, 1).
                Not with a coda.
            labels (`torch.LongTensor` of shape `(B, T)`, *optional*):
                Token ids, usually `input_ids`, shifted by one inside the model; -100 is not scored. Gives the `loss`.
            logits_to_keep (`int` or `torch.Tensor`, defaults to 0):
                Score only this many last tokens, or those at these places; 0: all.
            loop_window (`int`, *optional*):
                Last loops of each row that are scored and carry a gradient, in 1 ... the smallest `n_loops`. Default:
                the last loop is scored and all carry a gradient.
            output_loop_logits (`bool`, defaults to `False`):
                Also return the scores of each loop of the window (default: of all loops).

        Raises:
            `ValueError`: an argument is not as above.
            `TypeError`: an argument has another name.
        """
        loss_arguments = {name: kwargs.pop(name) for name in LOSS_ARGUMENTS if name in kwargs}
        self._check_names(kwargs)
        scores_loops = loop_window is not None and labels is not None
        exits = {"exit_tolerance": exit_tolerance, "exit_probability": exit_probability}
        rules = confidence_exit(exit_confidence, self.lm_head, self.config.n_coda)
        if scores_loops or output_loop_logits:
            check_no_exits(exits | rules, ("loop_window", "output_loop_logits"))
        outputs = self.transformer(
            input_ids,
            cache=one_cache(cache, past_key_values),
            attention_mask=attention_mask,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            n_loops=n_loops,
            loop_window=loop_window,
            **exits,
            exit_rules=rules,
            loops_per_slot=loops_per_slot,
            output_loop_hidden_states=scores_loops or output_loop_logits,
            **kwargs,
        )
        states = outputs.loop_hidden_states or (outputs.last_hidden_state,)
        loop_logits = [self.lm_head(slice_logits_to_keep(state, logits_to_keep)) for state in states]

        scored = loop_logits if scores_loops else loop_logits[-1:]
        loss = None if labels is None else self._mean_loss(scored, labels, **loss_arguments, **kwargs)
        return LoopedGPT2CausalLMOutput(
            loss,
            loop_logits[-1],
            outputs.cache,
            n_loops_used=outputs.n_loops_used,
            loop_logits=tuple(loop_logits) if output_loop_logits else None,
            loop_exit_logits=outputs.loop_exit_logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )

    def _mean_loss(self, loop_logits: Sequence[torch.Tensor], labels: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        """The mean over loops of the loss of their logits, each `(B, T, V)`; `kwargs` are those of the function."""
        if "shift_labels" not in kwargs:
            check_labels(labels, loop_logits[-1], kwargs.get("ignore_index", -100))
        arguments = {"labels": labels, "vocab_size": self.config.vocab_size, **kwargs}
        return sum(self.loss_function(logits, **arguments) for logits in loop_logits) / len(loop_logits)

    def _prepare_generation_config(
        self, generation_config: GenerationConfig | None, **kwargs: Any
    ) -> tuple[GenerationConfig, dict[str, Any]]:
        """Pass the loop arguments on to `forward`, which transformers does for arguments of its own only."""
        if "cache" in kwargs:
            kwargs[CACHE_NAME] = kwargs.pop("cache")
        generation_config, model_kwargs = super()._prepare_generation_config(generation_config, **kwargs)
        # a model that drafts for another runs as its own configuration says, not as its target does
        source = self.generation_config if generation_config.is_assistant else generation_config
        for name in vars(source).keys() - vars(GenerationConfig()).keys() - set(LOOP_ARGUMENTS):
            if close := get_close_matches(name, LOOP_ARGUMENTS, 1):
                raise ValueError(f"`{name}` of the `GenerationConfig` is not an argument, did you mean `{close[0]}`?")
        for name in LOOP_ARGUMENTS:
            if model_kwargs.get(name) is None:
                model_kwargs.pop(name, None)
                if getattr(source, name, None) is not None:
                    model_kwargs[name] = getattr(source, name)
        n_loops = model_kwargs.get("n_loops", self.config.n_loops)
        check_loops(n_loops, loops_per_slot=model_kwargs.get("loops_per_slot", 1))
        return generation_config, model_kwargs

    def _get_candidate_generator(self, *args, model_kwargs: dict[str, Any], **kwargs):
        """Keep the loop arguments from the model that drafts, which need not be a looped one."""
        model_kwargs = {name: value for name, value in model_kwargs.items() if name not in LOOP_ARGUMENTS}
        return super()._get_candidate_generator(*args, model_kwargs=model_kwargs, **kwargs)

    def prepare_inputs_for_generation(
        self,
        input_ids: torch.LongTensor,
        *args,
        attention_mask: torch.Tensor | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        is_first_iteration: bool = False,
        **kwargs,
    ) -> dict[str, Any]:
        """As in transformers; refuses texts that have grown longer than the model has positions, and packs none."""
        named = {"attention_mask": attention_mask, "inputs_embeds": inputs_embeds}
        inputs = super().prepare_inputs_for_generation(
            input_ids, *args, **named, is_first_iteration=is_first_iteration, **kwargs
        )
        positions = inputs.get("position_ids")
        length = input_ids.shape[1] if attention_mask is None else attention_mask.shape[-1]
        # positions are checked only when they may have run out, not for every token: a GPU would have to wait
        looks = positions is not None and (is_first_iteration or length > self.config.max_tokens)
        if looks and positions.max() >= self.config.max_tokens:
            raise ValueError(
                f"`n_positions` is {self.config.n_positions} tokens, and the text has grown to "
                f"{positions.max() + 1}: ask for fewer `max_new_tokens`."
            )
        if positions is not None and inputs.get("attention_mask") is None and inputs.get(CACHE_NAME) is None:
            # else given positions that count digits, say, would be taken for those of packed sequences
            inputs["attention_mask"] = positions.new_ones((len(input_ids), positions.shape[-1]))
        return inputs

    @staticmethod
    def create_masks_for_generate(
        config: LoopedGPT2Config,
        inputs_embeds: torch.Tensor,
        attention_mask: torch.Tensor | None,
        position_ids: torch.LongTensor | None = None,
        **kwargs,
    ) -> torch.Tensor | None:
        """Make the mask that `generate` hands to `forward` with a static cache, as `forward` would."""
        return make_mask(config, inputs_embeds, attention_mask, kwargs[CACHE_NAME], position_ids)

    def _prepare_cache_for_generation(self, generation_config: GenerationConfig, model_kwargs: dict, *args, **kwargs):
        """Let transformers build the cache for the loops of this call; it knows those of `self.config` only."""
        implementation = generation_config.cache_implementation or ""
        if implementation.startswith("offloaded") and self.device.type == "cpu":
            raise ValueError(
                f"`cache_implementation` {implementation!r} keeps the slots of a model on a GPU in the processor's "
                "memory, and this model is on the processor: leave it out, or move the model to a GPU."
            )
        loops_per_slot = model_kwargs.get("loops_per_slot", 1)
        max_loops, _ = check_loops(model_kwargs.get("n_loops", self.config.n_loops), loops_per_slot=loops_per_slot)
        config = self.config
        self.config = config.with_loops(max_loops, loops_per_slot)
        try:
            return super()._prepare_cache_for_generation(generation_config, model_kwargs, *args, **kwargs)
        finally:
            self.config = config

    def init_continuous_batching(self, *args, **kwargs):
        """Refuse: paged attention finds a block's keys by its index in the stack, so all loops would share them."""
        raise NotImplementedError(
            "Continuous batching keeps one place for the keys of a block, and a looped block needs one for each loop: "
            "use `generate` on a padded batch instead."
        )

    def save_pretrained(self, *args, **kwargs):
        """As in transformers; a folder with its own code also loads as backbone with `AutoModel`."""
        if self._auto_class is not None:
            backbone = type(self.transformer)
            self.config.auto_map = {"AutoModel": f"{backbone.__module__.rsplit('.', 1)[-1]}.{backbone.__name__}"}
        super().save_pretrained(*args, **kwargs)

    @staticmethod
    def cache_bytes(cache: Cache) -> int:
        """
        Return the bytes that a cache holds.

        Args:
            cache ([`~transformers.Cache`]):
                That of this model's output or of `generate(..., return_dict_in_generate=True)`.
        """
        return cache_bytes(cache)

    @classmethod
    def from_gpt2(
        cls,
        model: GPT2LMHeadModel | str | os.PathLike,
        loop: Sequence[int] | None = None,
        prelude: Sequence[int] = (),
        coda: Sequence[int] = (),
        shared: str | None = None,
        adapter_rank: int = 0,
        **changes: Any,
    ) -> "LoopedGPT2LMHeadModel":
        """
        Build a looped model from the weights of a GPT-2. With all blocks once it is exactly that GPT-2.

        With `shared` or an `adapter_rank` the blocks of the loop are taken for `n_loops` loops that follow each other,
        and become the loops of a few shared blocks: block i of loop l stands for block `l * n_layer + i` of them. What
        the shared block lacks comes from the adapters of its loop, the truncated singular value decomposition of the
        missing matrix and all that is missing of a bias or norm. The nearer to full rank, `adapter_rank=n_embd`, the
        nearer the weights; at full rank it is that GPT-2 again, to round-off. The loops form one residual stream, as
        the blocks did. Source: Bae et al., "Relaxed Recursive Transformers" (ICLR 2025).

        Args:
            model ([`~transformers.GPT2LMHeadModel`], `str` or `os.PathLike`):
                The model, or a folder or Hub repository to load it from. It is copied and stays as it is.
            loop (`Sequence[int]`, *optional*):
                Indices of its blocks that form the loop, in order, at least one. Default: all that are in neither
                prelude nor coda.
            prelude, coda (`Sequence[int]`, default to none):
                Indices of its blocks that run once before and after the loops. Every block of the GPT-2 has one place
                in the three.
            shared (`str`, *optional*, defaults to `"average"` with an `adapter_rank`):
                What the shared blocks start from: `"average"`, the mean of the blocks that each stands for; `"step"`,
                blocks at even steps from the first to the last; `"first"`, the blocks of the first loop. `None`: no
                blocks are shared, all are blocks of the loop.
            adapter_rank (`int`, defaults to 0):
                Rank of the adapters of each loop, in 0 ... `n_embd`.
            changes:
                Fields of [`LoopedGPT2Config`] that change no shape, e.g. `n_loops=4`; one loop by default. With shared
                blocks `n_loops` divides the blocks of the loop, and the prompt enters before the first loop only
                (`input_injection="none"`, `residual_loops=True`) and runs each of them once.

        Raises:
            `ValueError`: the model is not a GPT-2, an index is not that of a block, a block is left out or in two
                places, the loop is empty, its blocks cannot be cut into `n_loops`, or a change would change a shape.

        Example:

        ```python
        >>> parts = {"prelude": range(4), "loop": range(4, 8), "coda": range(8, 12)}
        >>> model = LoopedGPT2LMHeadModel.from_gpt2("gpt2", **parts, n_loops=3)
        >>> relaxed = LoopedGPT2LMHeadModel.from_gpt2("gpt2", n_loops=3, adapter_rank=64)
        ```
        """
        source = as_gpt2(model)
        parts = blocks_of_parts(source.config.n_layer, prelude, loop, coda)
        origins = {part: [[index] for index in indices] for part, indices in parts.items()}
        shared = shared or ("average" if adapter_rank else None)
        if shared is not None:
            origins["loop"] = shared_blocks(source.config, parts["loop"], changes.get("n_loops"), shared)
            changes = as_blocks_ran(changes) | {"adapter_rank": adapter_rank}
        sizes = dict(zip(("n_prelude", "n_layer", "n_coda"), map(len, origins.values()), strict=True))
        for name in (*sizes, "n_adapters", "n_embd", "n_inner", "n_positions", "position_embedding", "vocab_size"):
            if name in changes:
                raise ValueError(f"`{name}` follows from the model and its blocks: leave it out, got {changes[name]}.")
        config = LoopedGPT2Config.from_gpt2(source.config, **sizes, **changes)
        looped = cls(config).to(source.dtype)
        for name in ("wte", "wpe", "ln_f"):
            getattr(looped.transformer, name).load_state_dict(getattr(source.transformer, name).state_dict())
        for part, blocks in zip(PARTS, origins.values(), strict=True):
            load_means(getattr(looped.transformer, part), source.transformer.h, blocks)
        if adapter_rank:
            layers = [source.transformer.h[index] for index in parts["loop"]]
            fit_adapters(looped.transformer.loop_weights["adapters"], looped.transformer.h, layers)
        if not config.tie_word_embeddings:
            looped.lm_head.load_state_dict(source.lm_head.state_dict())
        return looped.to(source.device)


__all__ = ["LoopedGPT2LMHeadModel"]
