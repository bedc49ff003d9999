"""Configurations: every field with odd values gives a model that runs, or a refusal that names the field."""

import dataclasses
from random import Random
from typing import Any

import torch

from modeling_looped_gpt2 import LoopedGPT2Config, LoopedGPT2ForInContextRegression
from tests.fuzz.outcome import ODD, REFUSALS, Fault, check, check_message, describe, some


OWN = ("n_loops", "n_prelude", "n_coda", "input_injection", "n_dims", "read_in_initializer_range")
OWN += ("position_initializer_range", "n_layer", "n_head", "n_embd", "n_positions", "n_inner", "vocab_size")
OWN += ("activation_function", "resid_pdrop", "embd_pdrop", "attn_pdrop", "initializer_range", "layer_norm_epsilon")
SMALL = {"n_embd": 16, "n_head": 2, "n_dims": 3, "n_positions": 14, "n_loops": 2}
MOST_NUMBERS = 2**20  # of a model that is built


def fuzz_configuration(rng: Random) -> str:
    """One configuration; `"answered"` or `"refused"`."""
    changed = {name: rng.choice(ODD if rng.random() < 0.5 else (1, 2, 3, 0.5)) for name in some(rng, OWN, 3)}
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
        check(getattr(config, name) == value, f"`{name}` became {getattr(config, name)!r}: {what}")
    check(LoopedGPT2Config.from_dict(config.to_dict()).to_dict() == config.to_dict(), f"does not come back: {what}")
    run(config, what)
    return "answered"


def run(config: LoopedGPT2Config, what: Any):
    """The model of a configuration that is not too large answers with finite numbers."""
    sizes = config.n_embd * (config.n_embd * 12 * config.with_loops(1).num_hidden_layers + config.n_positions)
    if max(sizes, config.n_dims * config.n_embd, config.num_hidden_layers * 2**10) > MOST_NUMBERS:
        return
    if (config.n_inner or 1) * config.n_embd > MOST_NUMBERS:
        return
    try:
        model = LoopedGPT2ForInContextRegression(config).eval()
        with torch.no_grad():
            predictions = model(torch.randn(1, 1, config.n_dims), torch.randn(1, 1)).predictions
    except REFUSALS as error:  # weights of 1e300 give no answer
        check_message(str(error))
        return
    except Exception as error:
        raise Fault(f"{type(error).__name__}: {error}; {what}") from error
    check(bool(predictions.isfinite().all()), f"an answer that is not finite: {what}")
