"""The mechanisms of the loop: the settings that ask for each, and the naive twin that computes what they mean.

A new mechanism is an entry of `MECHANISMS`, and one of `TWINS` where the plain twin computes something else.
"""

import copy
import math

import torch
from torch import nn

from modeling_looped_gpt2 import LoopedGPT2LMHeadModel, LoopedGPT2Model


class Twin:
    """
    A language model that reads one text and takes a fresh copy of all weights whenever a part of it runs.

    Args:
        model (`LoopedGPT2LMHeadModel`):
            The looped model; it stays as it is.
    """

    def __init__(self, model: LoopedGPT2LMHeadModel):
        self.model = model
        self.copies = []

    def fresh(self) -> LoopedGPT2Model:
        """A new copy of the backbone, whose weights nothing else uses."""
        self.copies.append(copy.deepcopy(self.model))
        return self.copies[-1].transformer

    def logits(self, ids: torch.Tensor, n_loops: int, loop_window: int | None = None) -> list[torch.Tensor]:
        """The logits (1, T, V) of the text `ids` (T,) after each of the last `loop_window` of `n_loops` loops."""
        loop_window = loop_window or n_loops
        first = self.fresh()
        prompt = first.wte(ids)[None]
        if first.prelude:
            prompt = self.run_blocks(first.prelude, prompt + self.positions(first, len(ids)))
        state, logits = self.start(prompt), []
        for number in range(n_loops):
            if number and number == n_loops - loop_window:
                state = state.detach()
            loop = self.fresh()
            states = self.inject(loop, state, prompt)
            if not first.prelude:
                states = states + self.positions(loop, len(ids))
            output = self.run_loop(loop, states, number)
            state = final = loop.ln_f(output)
            if first.coda:
                end = self.fresh()
                final = end.ln_f(self.run_blocks(end.coda, output))
            self.fresh()
            logits.append(self.copies[-1].lm_head(final))
        return logits[-loop_window:]

    def start(self, prompt: torch.Tensor) -> torch.Tensor:
        """The state before the first loop."""
        return torch.zeros_like(prompt)

    def inject(self, loop: LoopedGPT2Model, state: torch.Tensor, prompt: torch.Tensor) -> torch.Tensor:
        """What a loop makes of its state and the prompt, with the weights of the copy `loop`."""
        return state + prompt

    def positions(self, body: LoopedGPT2Model, n_tokens: int) -> torch.Tensor | float:
        """What is added to the tokens for their places."""
        return body.wpe.weight[:n_tokens]

    def sees(self, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        """Whether the token at `query` sees the one at `key`."""
        return key <= query

    def run_loop(self, loop: LoopedGPT2Model, states: torch.Tensor, number: int) -> torch.Tensor:
        """The output of the blocks of the loop of this number, from 0."""
        return self.run_blocks(loop.h, states)

    def run_blocks(self, blocks: nn.ModuleList, states: torch.Tensor) -> torch.Tensor:
        """Run stock blocks one after another."""
        places = torch.arange(states.shape[1])
        hidden = ~self.sees(places[:, None], places)
        mask = torch.zeros(hidden.shape).masked_fill(hidden, torch.finfo(states.dtype).min)[None, None]
        for block in blocks:
            states = block(states, attention_mask=mask)
        return states

    def summed_gradients(self) -> dict[str, torch.Tensor]:
        """Gradients by the looped model's names, those of the copies added up."""
        sums = {}
        for each in self.copies:
            for name, parameter in each.named_parameters():
                if parameter.grad is not None:
                    sums[name] = sums.get(name, 0) + parameter.grad
        return sums


class MultiplicationTwin(Twin):
    """z * e, from 1."""

    def start(self, prompt):
        return torch.ones_like(prompt)

    def inject(self, loop, state, prompt):
        return state * prompt


class NoInjectionTwin(Twin):
    """z, from e."""

    def start(self, prompt):
        return prompt

    def inject(self, loop, state, prompt):
        return state


class ConcatenationTwin(Twin):
    """A learned map of z and e side by side."""

    def inject(self, loop, state, prompt):
        weight, bias = loop.injection.linear.weight, loop.injection.linear.bias
        n_embd = len(bias)
        return state @ weight[:, :n_embd].T + prompt @ weight[:, n_embd:].T + bias


class GateTwin(Twin):
    """a * z + b * e."""

    def inject(self, loop, state, prompt):
        decay = 1 / (1 + torch.exp(-loop.injection.decay_logit))
        return decay * state + loop.injection.gain * prompt


class TwoOneTwin(Twin):
    """In every loop the first block twice and then the second once."""

    def run_loop(self, loop, states, number):
        for block in (0, 0, 1):
            states = self.run_blocks([self.fresh().h[block]], states)
        return states


class NoPositionsTwin(Twin):
    """Nothing tells a token its place but the mask."""

    def positions(self, body, n_tokens):
        return 0.0


class SinusoidalTwin(Twin):
    """Token t has sin(t / 100^(2 i / E)) at coordinate i of the first half and cosines in the second, by gains."""

    def positions(self, body, n_tokens):
        gain = body.wpe.gain
        half = len(gain) // 2
        waves = [
            [wave(t / 100 ** (i / half)) for wave in (math.sin, math.cos) for i in range(half)]
            for t in range(n_tokens)
        ]
        return torch.tensor(waves) * gain


class FourierTwin(Twin):
    """Token t has sin(pi t (2 i + 1) / E) at coordinate i of the first half and cosines in the second, by gains."""

    def positions(self, body, n_tokens):
        gain = body.wpe.gain
        places = range(len(gain) // 2)
        waves = [
            [wave(math.pi * t * (2 * i + 1) / len(gain)) for wave in (math.sin, math.cos) for i in places]
            for t in range(n_tokens)
        ]
        return torch.tensor(waves) * gain


class WindowTwin(Twin):
    """A token sees itself and the two before it."""

    def sees(self, query, key):
        return (key <= query) & (key >= query - 2)


class EncodingTwin(Twin):
    """Normed inputs times 1 + s, what attention and MLP add times 1 + g, of waves of the loop's number."""

    def run_loop(self, loop, states, number):
        encoding = loop.loop_weights["encoding"]
        angles = [(number + 1) / 10000 ** (wave / 128) for wave in range(128)]
        place = torch.tensor([math.cos(angle) for angle in angles] + [math.sin(angle) for angle in angles])
        factors = encoding.output(nn.functional.silu(encoding.hidden(place))).view(len(loop.h), 4, -1)
        for block, own in zip(loop.h, factors, strict=True):
            for part, factor in zip((block.ln_1, block.ln_2, block.attn.c_proj, block.mlp.c_proj), own, strict=True):
                part.register_forward_hook(lambda _, inputs, output, factor=factor: output * (1 + factor))
        return self.run_blocks(loop.h, states)


class AdaptersTwin(Twin):
    """What adapters of the loop, or of the last that has any, add to the outputs of matrices and norms."""

    def run_loop(self, loop, states, number):
        adapters = loop.loop_weights["adapters"]
        number = min(number, loop.config.n_adapters - 1)
        for index, block in enumerate(loop.h):

            def own(name, kind, index=index):
                return adapters.get_parameter(f"{name.replace('.', '_')}_{kind}")[number, index]

            for name in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"):
                parts = own(name, "weight_lora_A"), own(name, "weight_lora_B"), own(name, "bias_difference")
                block.get_submodule(name).register_forward_hook(
                    lambda _, inputs, output, parts=parts: output + inputs[0] @ parts[0] @ parts[1] + parts[2]
                )
            for name in ("ln_1", "ln_2"):
                parts = own(name, "weight_difference"), own(name, "bias_difference")
                block.get_submodule(name).register_forward_hook(
                    lambda norm, inputs, output, parts=parts: (
                        output + nn.functional.layer_norm(inputs[0], norm.normalized_shape, *parts, norm.eps)
                    )
                )
        return self.run_blocks(loop.h, states)


MECHANISMS = {
    "add": {},
    "multiply": {"input_injection": "multiply"},
    "none": {"input_injection": "none"},
    "concat": {"input_injection": "concat"},
    "gated": {"input_injection": "gated"},
    "block_loops": {"n_layer": 2, "block_loops": [2, 1]},
    "no_positions": {"position_embedding": "none"},
    "sinusoidal": {"position_embedding": "sinusoidal", "sinusoidal_base": 100},
    "fourier": {"position_embedding": "fourier"},
    "window": {"attention_window": 3},
    "encoding": {"loop_encoding": "step"},
    "adapters": {"adapter_rank": 3, "n_adapters": 2},
}
TWINS = {
    "multiply": MultiplicationTwin,
    "none": NoInjectionTwin,
    "concat": ConcatenationTwin,
    "gated": GateTwin,
    "block_loops": TwoOneTwin,
    "no_positions": NoPositionsTwin,
    "sinusoidal": SinusoidalTwin,
    "fourier": FourierTwin,
    "window": WindowTwin,
    "encoding": EncodingTwin,
    "adapters": AdaptersTwin,
}


def twin_of(name: str, model: LoopedGPT2LMHeadModel) -> Twin:
    """The naive twin of a model with the settings `MECHANISMS[name]`."""
    return TWINS.get(name, Twin)(model)


@torch.no_grad()
def shake(model: nn.Module) -> nn.Module:
    """Move every weight from where it starts, so that a mechanism which starts as the plain loop shows."""
    generator = torch.Generator().manual_seed(5)
    for parameter in model.parameters():
        parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model


def check_training(model, twin, ids, counts, window):
    """Compare loss and gradients of texts `ids`, each with its number of loops, with those of the twin."""
    n_loops = counts[0] if len(set(counts)) == 1 else torch.tensor(counts)
    loss = model(ids, labels=ids, n_loops=n_loops, loop_window=window, use_cache=False).loss
    losses = []
    for text, count in zip(ids, counts, strict=True):
        scored = twin.logits(text, count, window)[-(window or 1) :]
        losses += [nn.functional.cross_entropy(each[0, :-1], text[1:]) / len(scored) for each in scored]
    expected = sum(losses) / len(ids)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)
    loss.backward()
    expected.backward()
    gradients = twin.summed_gradients()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name], rtol=1e-3, atol=1e-5, msg=name)
