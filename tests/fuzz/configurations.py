"""Configurations: every field with odd values gives a model that runs, or a refusal that names the field."""

import dataclasses
from random import Random
from typing import Any

import torch

from modeling_looped_gpt2 import LoopedGPT2Config, LoopedGPT2ForInContextRegression
from modeling_looped_gpt2.example_orders_looped_gpt2 import EXAMPLE_ORDERS
from modeling_looped_gpt2.implicit_solvers_looped_gpt2 import SOLVERS
from modeling_looped_gpt2.injections_looped_gpt2 import INJECTIONS
from modeling_looped_gpt2.loop_weights_looped_gpt2 import ENCODED_PARTS, LOOP_ENCODINGS, SHARES_BEYOND
from modeling_looped_gpt2.positions_looped_gpt2 import POSITION_EMBEDDINGS
from tests.fuzz.outcome import ODD, REFUSALS, Fault, check, check_message, describe, some


OWN = ("n_loops", "n_prelude", "n_coda", "input_injection", "n_dims", "read_in_initializer_range")
OWN += ("position_initializer_range", "n_layer", "n_head", "n_embd", "n_positions", "n_inner", "vocab_size")
OWN += ("activation_function", "resid_pdrop", "embd_pdrop", "attn_pdrop", "initializer_range", "layer_norm_epsilon")
OWN += (
    "block_loops",
    "position_embedding",
    "sinusoidal_base",
    "attention_window",
    "solver",
    "solver_steps",
    "exit_gate",
    "residual_loops",
)
OWN += ("loop_encoding", "loop_encoding_parts", "adapter_rank", "n_adapters", "adapter_beyond", "n_outputs")
OWN += ("example_order",)
# what fields can hold that take no number
RIGHT = {
    "input_injection": tuple(INJECTIONS),
    "block_loops": ([1], [2], [2, 1], [10**9]),
    "position_embedding": tuple(POSITION_EMBEDDINGS),
    "solver": tuple(SOLVERS),
    "exit_gate": (True,),
    "residual_loops": (True,),
    "loop_encoding": tuple(LOOP_ENCODINGS),
    "loop_encoding_parts": tuple(ENCODED_PARTS),
    "adapter_beyond": tuple(SHARES_BEYOND),
    "example_order": tuple(EXAMPLE_ORDERS),
}
SMALL = {"n_embd": 16, "n_head": 2, "n_dims": 3, "n_positions": 14, "n_loops": 2}
MOST_NUMBERS = 2**20  # of a model that is built


def fuzz_configuration(rng: Random) -> str:
    """One configuration; `"answered"` or `"refused"`."""
    changed = {
        name: rng.choice(ODD if rng.random() < 0.2 else RIGHT.get(name, (1, 2, 3, 0.5))) for name in some(rng, OWN, 3)
    }
    if rng.random() < 0.2:  # a misspelt field
        name = rng.choice([name for name in OWN if len(name) > 5])
        changed = {name[:-2] + name[-1]: 3}
    what = describe(changed)
    try:
        config = LoopedGPT2Config(**(SMALL | changed))
    except REFUSALS as error:
        check_message(str(error.__cause__ or error).splitlines()[-1], [*changed, "num_hidden_layers"])
        return "refused"
    except Exception as error:
        raise Fault(f"{type(error).__name__}: {error}; {what}") from error
    unknown = changed.keys() - {field.name for field in dataclasses.fields(LoopedGPT2Config)}
    check(not unknown, f"took a field that is none: {what}")
    for name, value in changed.items():
        is_default = name == "n_adapters" and value is None
        check(is_default or getattr(config, name) == value, f"`{name}` became {getattr(config, name)!r}: {what}")
    check(LoopedGPT2Config.from_dict(config.to_dict()).to_dict() == config.to_dict(), f"does not come back: {what}")
    run(config, what)
    return "answered"


def run(config: LoopedGPT2Config, what: Any):
    """The model of a configuration that is not too large answers with finite numbers."""
    if config.n_prelude + config.n_layer + config.n_coda + sum(config.block_loops or ()) > MOST_NUMBERS:
        return
    sizes = config.n_embd * (config.n_embd * 12 * config.with_loops(1).num_hidden_layers + config.n_positions)
    if max(sizes, config.n_dims * config.n_embd, config.num_hidden_layers * 2**10) > MOST_NUMBERS:
        return
    if (config.n_inner or 1) * config.n_embd * max(config.n_layer, config.n_adapters or 0) > MOST_NUMBERS:
        return
    n_points = 2 if config.max_tokens >= 3 else 1
    ys = torch.randn(1, n_points - 1, *([config.n_outputs] if config.n_outputs > 1 else []))
    try:
        model = LoopedGPT2ForInContextRegression(config).eval()
        with torch.no_grad():
            predictions = model(torch.randn(1, n_points, config.n_dims), ys).predictions
    except REFUSALS as error:  # weights of 1e300 give no answer
        check_message(str(error))
        return
    except Exception as error:
        raise Fault(f"{type(error).__name__}: {error}; {what}") from error
    check(bool(predictions.isfinite().all()), f"an answer that is not finite: {what}")
