"""Prelude, loops and coda beside a twin of stock blocks with weights of its own for every executed block."""

import pytest
import torch
from torch import nn

from tests.modeling_looped_gpt2.mechanisms import twin_of


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
    twin = twin_of(injection, model)
    ids = torch.randint(1, 23, (3, 6), generator=torch.Generator().manual_seed(1))
    n_loops = 4 if len(set(counts)) == 1 else torch.tensor(counts)
    loss = model(ids, labels=ids, n_loops=n_loops, loop_window=window, use_cache=False).loss
    losses = []
    for text, count in zip(ids, counts, strict=True):
        logits = twin.logits(text, count, window)
        scored = logits[-1:] if window is None else logits
        losses += [nn.functional.cross_entropy(each[0, :-1], text[1:]) / len(scored) for each in scored]
    expected = sum(losses) / len(ids)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)
    loss.backward()
    expected.backward()
    gradients = twin.summed_gradients()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name], rtol=1e-3, atol=1e-5, msg=name)
