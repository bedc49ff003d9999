"""Calls of the heads, compared with a plain loop in float64 that runs one prompt at a time."""

import copy
import inspect
from functools import cache
from numbers import Integral, Real
from random import Random
from typing import Any

import torch

from modeling_looped_gpt2 import (
    LoopedGPT2Config,
    LoopedGPT2ForInContextClassification,
    LoopedGPT2ForInContextRegression,
    LoopedGPT2LMHeadModel,
)
from tests.fuzz.outcome import ODD, REFUSALS, Fault, check, check_message, describe
from tests.modeling_looped_gpt2.mechanisms import shake


N_DIMS, MAX_POINTS, MAX_TOKENS, N_TOKENS = 3, 7, 13, 11
SIZES = (
    {},
    {"n_layer": 2},
    {"n_prelude": 1, "n_coda": 1},
    {"input_injection": "multiply"},
    {"input_injection": "none"},
    {"input_injection": "concat", "block_loops": [2]},
    {"input_injection": "gated", "residual_loops": True, "exit_gate": True},
    {"position_embedding": "none", "attention_window": 3, "exit_gate": True},
    {"loop_encoding": "share", "n_layer": 2, "block_loops": [1, 2]},
    {"loop_encoding": "step", "adapter_rank": 2, "n_adapters": 2, "exit_gate": True},
    {"solver": "implicit", "n_prelude": 1, "attention_window": 2},
    {"example_order": "set", "n_coda": 1, "residual_loops": True},
    {"example_order": "set", "exit_gate": True, "input_injection": "concat"},
)
HEADS = (LoopedGPT2ForInContextRegression, LoopedGPT2ForInContextClassification, LoopedGPT2LMHeadModel)
TOLERANCE = {"rtol": 2e-3, "atol": 2e-4}
EXITS = ("exit_tolerance", "exit_confidence", "exit_probability")


@cache
def model_of(head: int, size: int) -> torch.nn.Module:
    """A model that is loud enough for loops to matter."""
    torch.manual_seed(head)
    settings = {"n_embd": 16, "n_head": 2, "n_dims": N_DIMS, "n_loops": 3, "num_labels": 3, "initializer_range": 0.2}
    settings |= {"n_positions": MAX_TOKENS, "vocab_size": N_TOKENS if HEADS[head] is LoopedGPT2LMHeadModel else None}
    settings |= SIZES[size]
    if HEADS[head] is LoopedGPT2LMHeadModel:
        settings.pop("example_order", None)  # of the in-context heads
    return shake(HEADS[head](LoopedGPT2Config(**settings, pad_token_id=0))).eval()


@cache
def exact_model_of(head: int, size: int) -> torch.nn.Module:
    """The same in float64."""
    return copy.deepcopy(model_of(head, size)).double()


def plain_states(model: torch.nn.Module, embeds: torch.Tensor, inputs: dict[str, Any], n_examples: int | None):
    """
    States of one prompt `(1, T, E)` after the loops that it takes, by the equations alone; and their number.

    `n_examples` are those of a set, the first of its tokens; `None`: the tokens are a text.
    """
    body, config = model.transformer, model.config
    n_loops = config.n_loops if inputs.get("n_loops") is None else int(inputs["n_loops"])
    hidden = hidden_tokens(config, embeds.shape[1], n_examples)
    mask = torch.zeros(hidden.shape, dtype=embeds.dtype).masked_fill(hidden, torch.finfo(embeds.dtype).min)[None, None]

    def run(blocks, states, changes=None, times=None):
        for index, block in enumerate(blocks):
            own = changes[index] if changes else {}
            for _ in range(times[index] if times else 1):
                states = block(states, None, mask, *own.values(), names=tuple(own))
        return states

    places = torch.arange(embeds.shape[1]) * (n_examples is None)
    positions = body.wpe(places)
    if body.prelude or config.residual_loops:
        embeds, positions = run(body.prelude, embeds + positions), torch.zeros_like(positions)
    state, gone_on = plain_start(config, embeds), 1.0
    seen = body.ln_f(state) if config.residual_loops else state
    for loops in range(1, n_loops + 1):
        injected = plain_injection(body, state, embeds)
        output = run(body.h, injected + positions, body.loop_weights(loops, n_loops), config.block_loops)
        before, seen = seen, body.ln_f(output)
        state = output if config.residual_loops else seen
        last, before = (states[0, -1 if n_examples is None else n_examples :] for states in (seen, before))
        if body.exit_gate is not None:
            gone_on = gone_on * (1 - body.exit_gate(last).sigmoid())  # of every token that is judged
        if plain_exits(model, inputs, before, last, gone_on):
            break
    return (body.ln_f(run(body.coda, output)) if body.coda else seen), loops


def hidden_tokens(config: LoopedGPT2Config, n_tokens: int, n_examples: int | None) -> torch.Tensor:
    """Whether the token of a row does not see the one of a column."""
    query, key = torch.arange(n_tokens)[:, None], torch.arange(n_tokens)
    if n_examples is not None:
        return (key >= n_examples) & (key != query)
    return (key > query) | (key <= query - (config.attention_window or n_tokens))


def plain_start(config: LoopedGPT2Config, embeds: torch.Tensor) -> torch.Tensor:
    """The state before the first loop."""
    if config.input_injection == "none":
        return embeds
    return torch.ones_like(embeds) if config.input_injection == "multiply" else torch.zeros_like(embeds)


def plain_injection(body: torch.nn.Module, state: torch.Tensor, embeds: torch.Tensor) -> torch.Tensor:
    """What a loop makes of its state and the prompt."""
    kind, injection = body.config.input_injection, body.injection
    if kind == "concat":
        return injection.linear(torch.cat((state, embeds), dim=-1))
    if kind == "gated":
        return injection.decay_logit.sigmoid() * state + injection.gain * embeds
    return {"add": state + embeds, "multiply": state * embeds, "none": state}[kind]


def plain_exits(model: torch.nn.Module, inputs: dict[str, Any], before, last: torch.Tensor, gone_on: Any) -> bool:
    """Whether a prompt's loops end, by the states `(A, E)` of its last token, or its queries, around a loop."""
    tolerance, confidence, probability = (inputs.get(name) for name in EXITS)
    if tolerance is not None and ((last - before).norm() / last.norm()).item() < tolerance:
        return True
    if confidence is not None:
        read_out = model.lm_head if hasattr(model, "lm_head") else model.score
        if read_out(last).softmax(-1).amax(-1).mean().item() >= confidence:
            return True
    return probability is not None and 1 - gone_on.mean().item() >= probability


@torch.no_grad()
def plain_answer(head: int, size: int, inputs: dict[str, Any], row: int) -> tuple[torch.Tensor, int]:
    """What one row of a call is to give, and the loops that it takes."""
    model = exact_model_of(head, size)
    if HEADS[head] is LoopedGPT2LMHeadModel:
        mask = inputs.get("attention_mask")
        seen = torch.ones(inputs["input_ids"].shape[1]) if mask is None else mask[row]
        ids = inputs["input_ids"][row : row + 1, seen.bool()]
        states, loops = plain_states(model, model.transformer.wte(ids), inputs, None)
        return model.lm_head(states)[0], loops
    is_regression = HEADS[head] is LoopedGPT2ForInContextRegression
    xs, ys = inputs["xs"][row : row + 1].double(), inputs["ys"][row : row + 1, : inputs["xs"].shape[1] - 1]
    if is_set(model):
        n_examples = ys.shape[1]
        embeds = model.read_in(xs)
        embeds[:, :n_examples] += model.read_in_y(ys.double()[..., None]) if is_regression else model.embed_class(ys)
        states, loops = plain_states(model, embeds, inputs, n_examples)
        states = states[:, n_examples:]
    else:
        embeds = torch.zeros(1, 2 * xs.shape[1] - 1, model.config.n_embd, dtype=torch.float64)
        embeds[:, ::2] = model.read_in(xs)
        values = torch.nn.functional.pad(ys.double()[..., None], (0, N_DIMS - 1))
        embeds[:, 1::2] = model.read_in(values) if is_regression else model.embed_class(ys.long())
        states, loops = plain_states(model, embeds, inputs, None)
        states = states[:, ::2]
    return (model.read_out(states)[0, :, 0] if is_regression else model.score(states)[0]), loops


def is_set(model: torch.nn.Module) -> bool:
    """Whether a head reads the examples of a prompt as a set."""
    return model.config.example_order == "set"


def draw_inputs(rng: Random, head: int, size: int) -> dict[str, Any]:
    """A call that is right."""
    torch.manual_seed(rng.randrange(2**31))
    n_rows, n_points = rng.randint(1, 3), rng.randint(1, MAX_POINTS)
    if HEADS[head] is LoopedGPT2LMHeadModel:
        inputs = {"input_ids": torch.randint(1, N_TOKENS, (n_rows, n_points))}
        if rng.random() < 0.6:  # pads before or after the text
            mask = torch.ones_like(inputs["input_ids"])
            for row in range(n_rows):
                n_pads = rng.randrange(n_points)
                mask[row, slice(0, n_pads) if rng.random() < 0.5 else slice(n_points - n_pads, None)] = 0
            inputs |= {"attention_mask": mask, "position_ids": (mask.cumsum(1) - 1).clamp(min=0)}
    else:
        model = model_of(head, size)
        shape = (n_rows, n_points - (rng.randint(1, n_points) if is_set(model) else rng.randint(0, 1)))
        classes = HEADS[head] is LoopedGPT2ForInContextClassification
        ys = torch.randint(0, 3, shape) if classes else torch.randn(shape)
        inputs = {"xs": torch.randn(n_rows, n_points, N_DIMS), "ys": ys}
    if rng.random() < 0.7:
        inputs["n_loops"] = rng.randint(1, 6)
    for name, values in zip(EXITS, ((0.3, 0.1, 0.03), (0.2, 0.4), (0.5, 0.8)), strict=True):
        if rng.random() < 0.3 and can_exit(head, size, name, inputs):
            inputs[name] = rng.choice(values)
    return inputs


def can_exit(head: int, size: int, name: str, inputs: dict[str, Any]) -> bool:
    """Whether the loops of a call can end by the rule of an argument."""
    model = model_of(head, size)
    if name == "exit_confidence":
        return not model.config.n_coda and HEADS[head] is not LoopedGPT2ForInContextRegression
    return name == "exit_tolerance" or model.config.exit_gate


def spoil(rng: Random, head: int, size: int, inputs: dict[str, Any]) -> tuple[str, bool | None]:
    """Change one input; returns its name and whether the call must now be refused, `None` where it may be."""
    numbers = {"n_loops": is_count, "loop_window": None, "exit_tolerance": is_tolerance}
    numbers |= {"exit_confidence": is_share, "exit_probability": is_share}
    numbers = {
        name: rule for name, rule in numbers.items() if name in inspect.signature(HEADS[head].forward).parameters
    }
    kinds = [*numbers, "unknown", "tensor"]
    kind = rng.choice(kinds)
    if kind == "unknown":
        names = [name for name in inspect.signature(HEADS[head].forward).parameters if len(name) > 5]
        name = rng.choice(names)
        place = rng.randrange(1, len(name) - 1)
        name = name[:place] + name[place + 1 :] if rng.random() < 0.5 else name[:place] + "x" + name[place:]
        inputs[name] = rng.choice((1, None, 0.5, True))
        return name, True
    if kind == "tensor":
        return spoil_tensor(rng, inputs, model_of(head, size).transformer.wpe.is_limited)
    can = kind not in EXITS or can_exit(head, size, kind, inputs)
    inputs[kind] = rng.choice(ODD)
    if kind == "loop_window":
        n_loops = inputs.get("n_loops") or 3
        right = inputs[kind] is None or (is_count(inputs[kind]) and inputs[kind] <= n_loops)
        exits = any(inputs.get(name) is not None for name in EXITS)
        return kind, not right or (exits and inputs[kind] not in (None, n_loops))
    return kind, not (inputs[kind] is None or (can and numbers[kind](inputs[kind])))


def is_count(value: Any) -> bool:
    """Whether a number of loops may be this."""
    return isinstance(value, Integral) and not isinstance(value, bool) and value >= 1


def is_tolerance(value: Any) -> bool:
    """Whether a tolerance may be this."""
    return isinstance(value, Real) and not isinstance(value, bool) and 0 < value < float("inf")


def is_share(value: Any) -> bool:
    """Whether a confidence or probability may be this."""
    return is_tolerance(value) and value < 1


def spoil_tensor(rng: Random, inputs: dict[str, Any], is_limited: bool) -> tuple[str, bool | None]:
    """Change one tensor of the call; `None` where it may be refused or answered."""
    name = rng.choice([name for name in ("xs", "ys", "input_ids", "attention_mask") if name in inputs])
    tensor = inputs[name]
    is_long = tensor.numel() and (is_limited or name != "input_ids")  # 14 times as many tokens
    changes = {
        "list": (lambda: tensor.tolist(), name != "attention_mask"),
        "flat": (lambda: tensor.flatten(), True),
        "none": (lambda: None, name != "attention_mask"),
        "long": (lambda: torch.cat([tensor] * 14, dim=1), True if is_long else None),
    }
    seen = name == "xs" or (name == "ys" and bool(tensor[:, : inputs["xs"].shape[1] - 1].numel()))
    if seen and tensor.is_floating_point():
        first = [torch.tensor(0)] * tensor.ndim
        for value in (float("nan"), float("inf"), float("-inf")):
            changes[str(value)] = (lambda value=value: tensor.index_put(first, torch.tensor(value)), True)
        changes["huge"] = (lambda: tensor * 1e25, None)
        changes["tiny"] = (lambda: tensor * 1e-30, False)
        changes["double"] = (lambda: tensor.double(), False)
        changes["beyond"] = (lambda: tensor.double() * 1e200, None)
        changes["int"] = (lambda: tensor.long(), True)
        changes["complex"] = (lambda: tensor + 1j, True)
    if name == "xs":
        changes["wide"] = (lambda: torch.cat((tensor, tensor), dim=2), True)
        changes["empty"] = (lambda: tensor[:0], True)
    kind = rng.choice(list(changes))
    change, refused = changes[kind]
    inputs[name] = change()
    return name, refused


def fuzz_model_call(rng: Random) -> str:
    """One call of a random head; `"answered"` or `"refused"`."""
    head, size = rng.randrange(len(HEADS)), rng.randrange(len(SIZES))
    inputs, verdicts = draw_inputs(rng, head, size), {}
    for _ in range(rng.choice((0, 1, 1, 1, 2))):
        try:
            name, refused = spoil(rng, head, size, inputs)
        except (RuntimeError, AttributeError, TypeError, IndexError):
            break  # what was spoilt before cannot be spoilt so
        verdicts[name] = refused
    if "attention_mask" in verdicts or "input_ids" in verdicts:
        inputs.pop("position_ids", None)  # they were those of the right mask
    n_loops = inputs.get("n_loops")
    if is_count(n_loops) and n_loops > 200:
        inputs["n_loops"] = 5
    before = copy.deepcopy(inputs)
    what = f"{HEADS[head].__name__}, {SIZES[size]}, {describe(inputs)}"
    try:
        with torch.no_grad():
            outputs = model_of(head, size)(**inputs)
    except REFUSALS as error:
        check(bool(verdicts), f"a right call was refused: {error}; {what}")
        check_message(str(error), [*verdicts, "n_positions", "attention_mask"])
        return "refused"
    except Exception as error:
        raise Fault(f"{type(error).__name__}: {error}; {what}") from error
    check(True not in verdicts.values(), f"answered what must be refused, {verdicts}: {what}")
    compare(head, size, before, outputs, what)
    return "answered"


def compare(head: int, size: int, inputs: dict[str, Any], outputs: Any, what: str):
    """The answer of each row is that of the plain loop on the row alone."""
    answers = outputs.predictions if HEADS[head] is LoopedGPT2ForInContextRegression else outputs.logits
    check(bool(answers.isfinite().all()), f"an answer that is not finite: {what}")
    exits = {name: inputs[name] for name in EXITS if inputs.get(name) is not None}
    for row in range(len(answers)):
        expected, loops = plain_answer(head, size, inputs, row)
        answer = answers[row]
        mask = inputs.get("attention_mask")
        if mask is not None:
            answer = answer[mask[row].bool()]
        if exits:
            used = int(outputs.n_loops_used[row])
            if used != loops:  # at the very edge of a rule round-off decides
                check(abs(used - loops) == 1 and max(exits.values()) < 1, f"{used} loops instead of {loops}: {what}")
                continue
        scale = max(1.0, expected.abs().max().item())
        close = torch.allclose(answer.double() / scale, expected / scale, **TOLERANCE)
        check(close, f"row {row}: {answer} instead of {expected}: {what}")
