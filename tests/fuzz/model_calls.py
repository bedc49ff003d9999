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


N_DIMS, MAX_POINTS, MAX_TOKENS, N_TOKENS = 3, 7, 13, 11
SIZES = (
    {},
    {"n_layer": 2},
    {"n_prelude": 1, "n_coda": 1},
    {"input_injection": "multiply"},
    {"input_injection": "none"},
)
HEADS = (LoopedGPT2ForInContextRegression, LoopedGPT2ForInContextClassification, LoopedGPT2LMHeadModel)
TOLERANCE = {"rtol": 2e-3, "atol": 2e-4}


@cache
def model_of(head: int, size: int) -> torch.nn.Module:
    """A model that is loud enough for loops to matter."""
    torch.manual_seed(head)
    settings = {"n_embd": 16, "n_head": 2, "n_dims": N_DIMS, "n_loops": 3, "num_labels": 3, "initializer_range": 0.2}
    settings |= {"n_positions": MAX_TOKENS, "vocab_size": N_TOKENS if HEADS[head] is LoopedGPT2LMHeadModel else None}
    return HEADS[head](LoopedGPT2Config(**settings, **SIZES[size], pad_token_id=0)).eval()


@cache
def exact_model_of(head: int, size: int) -> torch.nn.Module:
    """The same in float64."""
    return copy.deepcopy(model_of(head, size)).double()


def plain_states(model: torch.nn.Module, embeds: torch.Tensor, n_loops: int, tolerance: float | None):
    """States of one prompt `(1, T, E)` after the loops that it takes, by the equations alone; and their number."""
    body, config = model.transformer, model.config
    n_tokens = embeds.shape[1]
    mask = torch.full((n_tokens, n_tokens), torch.finfo(embeds.dtype).min, dtype=embeds.dtype).triu(1)[None, None]

    def run(blocks, states):
        for block in blocks:
            states = block(states, None, mask)
        return states

    positions = body.wpe.weight[:n_tokens]
    if body.prelude:
        embeds, positions = run(body.prelude, embeds + positions), torch.zeros_like(positions)
    start = {"add": torch.zeros_like(embeds), "multiply": torch.ones_like(embeds), "none": embeds}
    state, kind = start[config.input_injection], config.input_injection
    loops = 0
    while loops < n_loops:
        loops, before = loops + 1, state
        injected = {"add": state + embeds, "multiply": state * embeds, "none": state}[kind]
        output = run(body.h, injected + positions)
        state = body.ln_f(output)
        change = (state[:, -1] - before[:, -1]).norm() / state[:, -1].norm()
        if tolerance is not None and change.item() < tolerance:
            break
    return (body.ln_f(run(body.coda, output)) if body.coda else state), loops


@torch.no_grad()
def plain_answer(head: int, size: int, inputs: dict[str, Any], row: int) -> tuple[torch.Tensor, int]:
    """What one row of a call is to give, and the loops that it takes."""
    model = exact_model_of(head, size)
    n_loops = model.config.n_loops if inputs.get("n_loops") is None else int(inputs["n_loops"])
    tolerance = inputs.get("exit_tolerance")
    if HEADS[head] is LoopedGPT2LMHeadModel:
        mask = inputs.get("attention_mask")
        seen = torch.ones(inputs["input_ids"].shape[1]) if mask is None else mask[row]
        ids = inputs["input_ids"][row : row + 1, seen.bool()]
        states, loops = plain_states(model, model.transformer.wte(ids), n_loops, tolerance)
        return model.lm_head(states)[0], loops
    xs, ys = inputs["xs"][row : row + 1].double(), inputs["ys"][row : row + 1, : inputs["xs"].shape[1] - 1]
    if HEADS[head] is LoopedGPT2ForInContextRegression:
        tokens = torch.zeros(1, 2 * xs.shape[1] - 1, N_DIMS, dtype=torch.float64)
        tokens[:, ::2], tokens[:, 1::2, 0] = xs, ys.double()
        states, loops = plain_states(model, model.read_in(tokens), n_loops, tolerance)
        return model.read_out(states[:, ::2])[0, :, 0], loops
    embeds = torch.zeros(1, 2 * xs.shape[1] - 1, model.config.n_embd, dtype=torch.float64)
    embeds[:, ::2], embeds[:, 1::2] = model.read_in(xs), model.embed_class(ys.long())
    states, loops = plain_states(model, embeds, n_loops, tolerance)
    return model.score(states[:, ::2])[0], loops


def draw_inputs(rng: Random, head: int) -> dict[str, Any]:
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
        shape = (n_rows, n_points - rng.randint(0, 1))
        classes = HEADS[head] is LoopedGPT2ForInContextClassification
        ys = torch.randint(0, 3, shape) if classes else torch.randn(shape)
        inputs = {"xs": torch.randn(n_rows, n_points, N_DIMS), "ys": ys}
    if rng.random() < 0.7:
        inputs["n_loops"] = rng.randint(1, 6)
    if rng.random() < 0.4:
        inputs["exit_tolerance"] = rng.choice((0.3, 0.1, 0.03))
    return inputs


def spoil(rng: Random, head: int, inputs: dict[str, Any]) -> tuple[str, bool | None]:
    """Change one input; returns its name and whether the call must now be refused, `None` where it may be."""
    numbers = {"n_loops": is_count, "loop_window": None, "exit_tolerance": is_tolerance}
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
        return spoil_tensor(rng, inputs)
    inputs[kind] = rng.choice(ODD)
    if kind == "loop_window":
        n_loops = inputs.get("n_loops") or 3
        right = inputs[kind] is None or (is_count(inputs[kind]) and inputs[kind] <= n_loops)
        return kind, not right or (inputs.get("exit_tolerance") is not None and inputs[kind] not in (None, n_loops))
    return kind, not (inputs[kind] is None or numbers[kind](inputs[kind]))


def is_count(value: Any) -> bool:
    """Whether a number of loops may be this."""
    return isinstance(value, Integral) and not isinstance(value, bool) and value >= 1


def is_tolerance(value: Any) -> bool:
    """Whether a tolerance may be this."""
    return isinstance(value, Real) and not isinstance(value, bool) and 0 < value < float("inf")


def spoil_tensor(rng: Random, inputs: dict[str, Any]) -> tuple[str, bool | None]:
    """Change one tensor of the call; `None` where it may be refused or answered."""
    name = rng.choice([name for name in ("xs", "ys", "input_ids", "attention_mask") if name in inputs])
    tensor = inputs[name]
    changes = {
        "list": (lambda: tensor.tolist(), name != "attention_mask"),
        "flat": (lambda: tensor.flatten(), True),
        "none": (lambda: None, name != "attention_mask"),
        "long": (lambda: torch.cat([tensor] * 14, dim=1), True),
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
    inputs, verdicts = draw_inputs(rng, head), {}
    for _ in range(rng.choice((0, 1, 1, 1, 2))):
        try:
            name, refused = spoil(rng, head, inputs)
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
    tolerance = inputs.get("exit_tolerance")
    for row in range(len(answers)):
        expected, loops = plain_answer(head, size, inputs, row)
        answer = answers[row]
        mask = inputs.get("attention_mask")
        if mask is not None:
            answer = answer[mask[row].bool()]
        if tolerance is not None:
            used = int(outputs.n_loops_used[row])
            if used != loops:  # at the very edge of the tolerance round-off decides
                check(abs(used - loops) == 1 and tolerance < 1, f"{used} loops instead of {loops}: {what}")
                continue
        scale = max(1.0, expected.abs().max().item())
        close = torch.allclose(answer.double() / scale, expected / scale, **TOLERANCE)
        check(close, f"row {row}: {answer} instead of {expected}: {what}")
