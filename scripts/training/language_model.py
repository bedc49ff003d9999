"""The model of a run on text: from nothing, from a looped language model or from a GPT-2."""

import torch
from transformers import GPT2LMHeadModel, PreTrainedTokenizerBase

from modeling_looped_gpt2 import LoopedGPT2LMHeadModel
from scripts.common.model_loading import LOADING_ERRORS, load_model
from scripts.training.lm_arguments import LMArguments, LMModelArguments


# fields that a GPT-2 does not have
CHANGES = ("n_loops", "input_injection", "residual_loops", "loop_encoding", "loop_encoding_parts")
CHANGES += ("adapter_rank", "adapter_beyond", "block_loops", "attention_window", "exit_gate")


def build_model(arguments: LMArguments, tokenizer: PreTrainedTokenizerBase) -> LoopedGPT2LMHeadModel:
    """
    The model of a run: from nothing, from a looped language model or from a GPT-2.

    Raises:
        `ValueError`: there is no such model, or it has fewer tokens than the tokenizer.
    """
    settings = arguments.model
    n_tokens = max(tokenizer.get_vocab().values()) + 1
    tokens = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    if settings.source is None:
        config = arguments.config
        return LoopedGPT2LMHeadModel(type(config)(**(config.to_dict() | tokens | {"vocab_size": n_tokens})))
    model = (
        loop_gpt2(settings) if settings.initial_model is None else load_model(settings.source, LoopedGPT2LMHeadModel)
    )
    if n_tokens > model.config.vocab_size:
        raise ValueError(
            f"`tokenizer` must have at most the {model.config.vocab_size} tokens of {settings.source}, got {n_tokens}."
        )
    loops = {name: getattr(settings, name) for name in ("n_loops", "solver", "solver_steps")}
    model.config.update(tokens | loops)
    model.generation_config.update(**tokens)
    if getattr(model.generation_config, "n_loops", None) is not None:  # it would win over the configuration
        model.generation_config.n_loops = settings.n_loops
    return model


def loop_gpt2(settings: LMModelArguments) -> LoopedGPT2LMHeadModel:
    """The looped model of a GPT-2; raises `ValueError` where it cannot be loaded or looped."""
    n_prelude = settings.n_prelude
    changes = {name: getattr(settings, name) for name in CHANGES}
    try:
        loading = {"output_loading_info": True, "ignore_mismatched_sizes": True}
        gpt2, report = GPT2LMHeadModel.from_pretrained(settings.gpt2, dtype=torch.float32, **loading)
        for kind in ("missing_keys", "mismatched_keys"):
            if report[kind]:
                raise ValueError(f"{kind.replace('_', ' ')} {', '.join(sorted(map(str, report[kind]))[:3])}")
        blocks = range(gpt2.config.n_layer)
        end = len(blocks) - settings.n_coda
        parts = {"prelude": blocks[:n_prelude], "loop": blocks[n_prelude:end], "coda": blocks[end:]}
        return LoopedGPT2LMHeadModel.from_gpt2(gpt2, **parts, shared=settings.shared, **changes)
    except LOADING_ERRORS as error:
        raise ValueError(f"`gpt2` {settings.gpt2} cannot be the start: {error}") from None
