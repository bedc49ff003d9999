"""Prelude, loops and coda beside a twin of stock blocks with weights of its own for every executed block."""

import pytest
import torch

from tests.modeling_looped_gpt2.mechanisms import check_training, twin_of


# a window of 2 is that of all mechanisms in test_mechanisms.py; without injection it would not train the prompt
@pytest.mark.parametrize(("injection", "window"), [("none", None), ("add", 1), ("multiply", None)])
@pytest.mark.parametrize("shape", [{}, {"n_prelude": 1, "n_layer": 2, "n_coda": 1}, {"n_coda": 2}])
@pytest.mark.parametrize("counts", [[4, 4, 4], [4, 2, 3]])
def test_losses_and_gradients_are_those_of_the_twin(make_lm, injection, window, shape, counts):
    """Of all texts with one number of loops, or of each with its own."""
    model = make_lm(**shape, input_injection=injection).train()
    twin = twin_of(injection, model)
    ids = torch.randint(1, 23, (3, 6), generator=torch.Generator().manual_seed(1))
    check_training(model, twin, ids, counts, window)
