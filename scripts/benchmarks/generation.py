"""Generation to be timed: a looped language model beside a stock GPT-2 of as many blocks, with and without a cache."""

import argparse
from collections.abc import Callable

import torch
from transformers import GPT2Config, GPT2LMHeadModel

from modeling_looped_gpt2 import LoopedGPT2Config, LoopedGPT2LMHeadModel


PROMPT_TOKENS = 16


def n_heads(n_embd: int) -> int:
    """Attention heads of 64 channels, or one."""
    return n_embd // 64 or 1


def build_models(sizes: argparse.Namespace, device: torch.device) -> tuple[LoopedGPT2LMHeadModel, GPT2LMHeadModel]:
    """One block looped, and stock GPT-2 with a block for every loop."""
    shared = {"n_embd": sizes.n_embd, "n_head": n_heads(sizes.n_embd), "vocab_size": sizes.vocab_size}
    shared |= {"n_positions": PROMPT_TOKENS + sizes.n_tokens, "bos_token_id": 0, "eos_token_id": None}
    shared |= {"activation_function": "gelu_pytorch_tanh"}  # in one pass, which GPT-2 gains from as well
    looped = LoopedGPT2LMHeadModel(LoopedGPT2Config(n_layer=1, n_loops=sizes.n_loops, **shared))
    stock = GPT2LMHeadModel(GPT2Config(n_layer=sizes.n_loops, **shared))
    return looped.to(device).eval(), stock.to(device).eval()


def cases(
    looped: LoopedGPT2LMHeadModel, stock: GPT2LMHeadModel, sizes: argparse.Namespace
) -> dict[str, Callable[[int], int]]:
    """Return functions by name: each generates the given number of tokens and returns the bytes of its cache."""
    prompt = torch.ones(sizes.batch_size, PROMPT_TOKENS, dtype=torch.long, device=looped.device)

    def case(model: GPT2LMHeadModel | LoopedGPT2LMHeadModel, **settings) -> Callable[[int], int]:
        def run(n_tokens: int) -> int:
            outputs = model.generate(
                prompt,
                attention_mask=torch.ones_like(prompt),
                max_new_tokens=n_tokens,
                do_sample=False,
                return_dict_in_generate=True,
                pad_token_id=0,
                **settings,
            )
            cache = outputs.past_key_values
            return 0 if cache is None else LoopedGPT2LMHeadModel.cache_bytes(cache)

        return run

    fewer = max(1, sizes.n_loops // 4)
    return {
        "stock GPT-2": case(stock),
        "looped": case(looped),
        f"looped, {fewer} loops": case(looped, n_loops=fewer),
        f"looped, {fewer} loops per slot": case(looped, loops_per_slot=fewer),
        "looped, one slot for all": case(looped, loops_per_slot=sizes.n_loops),
        "looped, no cache": case(looped, use_cache=False),
    }
