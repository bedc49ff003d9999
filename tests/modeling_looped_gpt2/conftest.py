import numpy as np
import pytest
import torch
from torch import nn
from torch._dynamo.backends.debugging import aot_eager
from transformers.models.gpt2.modeling_gpt2 import GPT2Block

from modeling_looped_gpt2 import LoopedGPT2LMHeadModel, modeling_looped_gpt2


@pytest.fixture
def make_lm(make_config):
    """A language model of 23 tokens that is loud enough for loops to matter."""

    def make(**changes) -> LoopedGPT2LMHeadModel:
        torch.manual_seed(0)
        settings = {"vocab_size": 23, "n_positions": 40, "initializer_range": 0.2, "pad_token_id": 0}
        return LoopedGPT2LMHeadModel(make_config(**(settings | changes))).eval()

    return make


@pytest.fixture
def batch():
    """Two prompts of 7 tokens, the second padded on the left by 3."""
    ids = torch.randint(1, 23, (2, 7), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    ids[1, :3], mask[1, :3] = 0, 0
    return {"input_ids": ids, "attention_mask": mask}


@pytest.fixture
def data():
    """Six examples X, y of a linear function of three features, and four queries."""
    generator = np.random.default_rng(0)
    X = 5 + 3 * generator.normal(size=(6, 3))
    return X, 100 + X @ [1.0, -2.0, 0.5], 5 + 3 * generator.normal(size=(4, 3))


@pytest.fixture
def graphs(monkeypatch):
    """The graphs that the compiler is given, one after another; they run as they are, without generated code."""
    given = []

    def backend(graph, inputs, **kwargs):
        given.append(graph)
        return aot_eager(graph, inputs, **kwargs)

    compiled = torch.compile(modeling_looped_gpt2.run_body, dynamic=True, fullgraph=True, backend=backend)
    monkeypatch.setattr(modeling_looped_gpt2, "compiled_body", lambda mode: compiled)
    monkeypatch.setattr(GPT2Block, "compile", lambda block, **options: nn.Module.compile(block, backend=backend))
    torch.compiler.reset()
    return given
