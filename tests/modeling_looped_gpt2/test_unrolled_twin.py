"""Prelude, loops and coda beside a twin of stock blocks with weights of its own for every executed block."""

import copy

import pytest
import torch
from torch import nn


N_LOOPS = 4
START = {"add": torch.zeros_like, "multiply": torch.ones_like, "none": lambda prompt: prompt}
INJECT = {"add": torch.add, "multiply": torch.mul, "none": lambda state, prompt: state}


class Twin(nn.Module):
    """Copies of all parts, one for every time that they run; a text goes through them alone."""

    def __init__(self, model):
        super().__init__()
        body = model.transformer
        self.injection = model.config.input_injection
        self.parts = nn.ModuleDict({name: copy.deepcopy(getattr(body, name)) for name in ("wte", "wpe", "prelude")})
        self.loops = nn.ModuleList(
            nn.ModuleDict({"h": copy.deepcopy(body.h), "ln_f": copy.deepcopy(body.ln_f)}) for _ in range(N_LOOPS)
        )
        self.end = nn.ModuleDict({"coda": copy.deepcopy(body.coda), "ln_f": copy.deepcopy(body.ln_f)})
        self.head = copy.deepcopy(model.lm_head)

    def forward(self, ids, n_loops, loop_window):
        """Logits after each loop of the window for the text `ids` (T,)."""
        positions = self.parts["wpe"].weight[: len(ids)]
        prompt = self.parts["wte"](ids)[None]
        if self.parts["prelude"]:
            prompt = self.run_blocks(self.parts["prelude"], prompt + positions)
            positions = 0
        state, logits = START[self.injection](prompt), []
        for number, loop in enumerate(self.loops[:n_loops]):
            if number == n_loops - loop_window and number:
                state = state.detach()
            output = self.run_blocks(loop["h"], INJECT[self.injection](state, prompt) + positions)
            state = final = loop["ln_f"](output)
            if self.end["coda"]:
                final = self.end["ln_f"](self.run_blocks(self.end["coda"], output))
            logits.append(self.head(final))
        return logits[-loop_window:]

    def run_blocks(self, blocks, states):
        n_tokens = states.shape[1]
        mask = torch.full((n_tokens, n_tokens), torch.finfo(states.dtype).min).triu(1)[None, None]
        for block in blocks:
            states = block(states, attention_mask=mask)
        return states

    def summed_gradients(self):
        """Gradients by the looped model's names, those of the copies added up."""
        sums = {"wte.weight": self.head.weight.grad}  # tied
        for modules in (self.parts, self.end, *self.loops):
            for name, parameter in modules.named_parameters():
                if parameter.grad is not None:
                    sums[name] = sums.get(name, 0) + parameter.grad
        return {f"transformer.{name}": gradient for name, gradient in sums.items()}


# without injection a window would not train the prompt
@pytest.mark.parametrize(
    ("injection", "window"),
    [("none", None), *((injection, window) for injection in ("add", "multiply") for window in (None, 1, 2))],
)
@pytest.mark.parametrize("shape", [{}, {"n_prelude": 1, "n_layer": 2, "n_coda": 1}, {"n_coda": 2}])
@pytest.mark.parametrize("counts", [[4, 4, 4], [4, 2, 3]])
def test_losses_and_gradients_are_those_of_the_twin(make_lm, injection, window, shape, counts):
    """Of all texts with one number of loops, or of each with its own."""
    model = make_lm(**shape, input_injection=injection).train()
    twin = Twin(model)
    ids = torch.randint(1, 23, (3, 6), generator=torch.Generator().manual_seed(1))
    n_loops = 4 if len(set(counts)) == 1 else torch.tensor(counts)
    loss = model(ids, labels=ids, n_loops=n_loops, loop_window=window, use_cache=False).loss
    losses = []
    for text, count in zip(ids, counts, strict=True):
        logits = twin(text, count, window or count)
        scored = logits[-1:] if window is None else logits
        losses += [nn.functional.cross_entropy(each[0, :-1], text[1:]) / len(scored) for each in scored]
    expected = sum(losses) / len(ids)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)
    loss.backward()
    expected.backward()
    gradients = twin.summed_gradients()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name], rtol=1e-3, atol=1e-5, msg=name)
