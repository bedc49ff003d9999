"""What a token may see: the masks of the backbone and of the in-context heads, built by transformers.

A rule says which of two tokens sees the other. It is a mask function of transformers: of the places of the batch, the
head, the token that looks (`query`) and the token that is looked at (`key`), counted from the first of the cache, it
returns a truth value. Rules are combined by `and_masks` and `or_masks` of transformers.
"""

from collections.abc import Callable

import torch
from transformers.cache_utils import Cache
from transformers.masking_utils import and_masks, create_causal_mask
from transformers.models.gpt2.configuration_gpt2 import GPT2Config
from transformers.utils.generic import is_flash_attention_requested


def make_mask(
    config: GPT2Config,
    inputs_embeds: torch.Tensor,
    attention_mask: torch.Tensor | None = None,
    cache: Cache | None = None,
    position_ids: torch.LongTensor | None = None,
    rule: Callable | None = None,
    place: Callable | None = None,
    looks_ahead: bool = False,
) -> torch.Tensor | None:
    """
    Make the mask by which a token sees itself and those before it, as far as `rule` and a window allow it.

    Args:
        config ([`~transformers.GPT2Config`]):
            Its attention implementation decides the kind of mask; `attention_window` hides tokens too far back.
        inputs_embeds (`torch.Tensor` of shape `(B, T, E)`):
            The tokens of the call.
        attention_mask (`torch.Tensor` of shape `(B, tokens of the cache + T)`, *optional*):
            1 for tokens to attend to, 0 for padding. A mask of four dimensions is returned as it is.
        cache ([`~transformers.Cache`], *optional*):
            Holds the tokens before those of the call.
        position_ids (`torch.LongTensor` of shape `(B, T)` or `(1, T)`, *optional*):
            Positions that start again within a row part it into sequences that do not see each other.
        rule (`Callable`, *optional*):
            Which of these tokens are seen. Default: all.
        place (`Callable`, *optional*):
            The place in the sequence of the token at a place of the batch, which a window counts back from. Default:
            the same.
        looks_ahead (`bool`, defaults to `False`):
            Whether a token also sees those after it that `rule` shows.

    Returns:
        `torch.Tensor` of shape `(B, 1, T, tokens of the cache + T)`, or `None` where attention needs no mask.

    Raises:
        `ValueError`: flash attention, which reads no such mask, is to see a window.
    """
    if config.attention_window is not None:
        if is_flash_attention_requested(config):
            raise ValueError(
                f"`attention_window` = {config.attention_window} needs attention that reads a mask, got "
                f"`attn_implementation` {config._attn_implementation!r}: use 'sdpa' or 'eager'."
            )
        window = see_last(config.attention_window, place or (lambda query: query))
        rule = window if rule is None else and_masks(rule, window)
    return create_causal_mask(
        config,
        inputs_embeds,
        attention_mask,
        cache,
        position_ids=position_ids,
        or_mask_function=rule if looks_ahead else None,
        and_mask_function=rule,
    )


def see_last(window: int, place: Callable) -> Callable:
    """The rule of tokens that see the last `window` of those up to their `place`, themselves included."""
    return lambda batch, head, query, key: (key > place(query) - window) | (key == query)


def see_context(n_seen: int) -> Callable:
    """The rule of queries to a context, and of a set: each sees the first `n_seen` tokens, the context, and itself."""
    return lambda batch, head, query, key: (key < n_seen) | (key == query)


def see_examples_before(n_tokens: int) -> Callable:
    """
    The rule of one query for each x of a prompt.

    The tokens x_1 y_1 ... x_P of the prompt come first, `n_tokens` of them, and see each other; the P queries come
    behind them. Query i sees the i - 1 examples before x_i and itself.
    """
    return lambda batch, head, query, key: (query < n_tokens) | (key < 2 * (query - n_tokens)) | (key == query)


def place_in_prompt(n_tokens: int) -> Callable:
    """The places of the tokens of [`see_examples_before`]: query i has that of x_i."""
    return lambda query: torch.where(query < n_tokens, query, 2 * (query - n_tokens))
