"""A GPT-2 whose blocks become the loops of shared blocks with adapters."""

from itertools import pairwise

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import GPT2Config, GPT2LMHeadModel

from modeling_looped_gpt2 import LoopedGPT2LMHeadModel
from tests.modeling_looped_gpt2.mechanisms import shake


SIZES = {"vocab_size": 23, "n_positions": 40, "n_embd": 32, "n_head": 4, "initializer_range": 0.2}


def make_gpt2(n_layer=6, **changes):
    torch.manual_seed(0)
    config = GPT2Config(**SIZES, **changes, n_layer=n_layer, bos_token_id=None, eos_token_id=None)
    return shake(GPT2LMHeadModel(config)).eval()


def looped(gpt2, **settings):
    return LoopedGPT2LMHeadModel.from_gpt2(gpt2, **settings).eval()


@pytest.mark.parametrize("shared", ["average", "step", "first"])
@pytest.mark.parametrize("parts", [{}, {"prelude": [0], "loop": [2, 1, 3, 4], "coda": [5]}])
@pytest.mark.parametrize("changes", [{}, {"n_inner": 20}])
def test_at_full_rank_it_is_the_gpt2(batch, shared, parts, changes):
    gpt2 = make_gpt2(**changes)
    model = looped(gpt2, n_loops=2, shared=shared, adapter_rank=32, **parts)
    order = [*parts.get("prelude", ()), *parts.get("loop", range(6)), *parts.get("coda", ())]
    gpt2.transformer.h = torch.nn.ModuleList(gpt2.transformer.h[index] for index in order)
    expected = gpt2(**batch, use_cache=False).logits
    torch.testing.assert_close(model(**batch).logits, expected, rtol=1e-4, atol=1e-4)
    assert model.config.num_hidden_layers == 6
    for cache in (True, False):
        settings = {"max_new_tokens": 5, "do_sample": False, "pad_token_id": 0, "use_cache": cache}
        assert torch.equal(
            model.generate(**batch, **settings), gpt2.generate(**batch, **settings | {"use_cache": False})
        )


@pytest.mark.parametrize("shared", ["average", "step", "first"])
def test_the_nearer_to_full_rank_the_nearer_the_weights(shared):
    """What is left is the singular values that the rank leaves out, in every matrix; vectors are exact."""
    gpt2, errors = make_gpt2(), []
    for rank in (0, 1, 4, 9, 31):
        model = looped(gpt2, n_loops=3, shared=shared, adapter_rank=rank).transformer
        errors.append(0)
        for index, layer in enumerate(gpt2.transformer.h):
            number, place = divmod(index, 2)
            block = model.h[place]
            own = block._changed(model.loop_weights(number + 1, 3)[place])
            for name, weight in layer.named_parameters():
                error = (weight - own.get(f"block.{name}", block.get_parameter(name))).norm().item()
                if weight.ndim == 2:
                    missing = torch.linalg.svdvals(weight - block.get_parameter(name))
                    assert error == pytest.approx(missing[rank:].norm().item(), rel=1e-3, abs=1e-5)
                    errors[-1] += error
                elif rank:
                    assert error < 1e-6
    assert all(more > less for more, less in pairwise(errors))


def test_the_nearer_the_weights_the_nearer_the_scores(batch):
    gpt2 = make_gpt2()
    with torch.no_grad():  # of blocks that differ little, as those of deep models do
        for block in gpt2.transformer.h[1:]:
            for weight, first in zip(block.parameters(), gpt2.transformer.h[0].parameters(), strict=True):
                weight.copy_(first + 0.1 * (weight - first))
    expected = gpt2(**batch).logits
    ranks = [{"shared": "average"}, *({"adapter_rank": rank} for rank in (4, 16, 28, 32))]
    errors = [(looped(gpt2, n_loops=3, **rank)(**batch).logits - expected).norm().item() for rank in ranks]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-4 * errors[0]


@pytest.mark.parametrize(
    ("shared", "origins"),
    [("average", [(0, 3), (1, 4), (2, 5)]), ("step", [(0,), (2,), (5,)]), ("first", [(0,), (1,), (2,)])],
)
def test_what_the_shared_blocks_start_from(shared, origins):
    gpt2 = make_gpt2()
    model = looped(gpt2, n_loops=2, shared=shared)
    assert not model.transformer.loop_weights
    for block, origin in zip(model.transformer.h, origins, strict=True):
        for name, weight in block.named_parameters():
            layers = [gpt2.transformer.h[index].get_parameter(name) for index in origin]
            torch.testing.assert_close(weight, torch.stack(layers).mean(0))


def test_it_goes_on_beyond_its_loops(batch):
    """With the adapters of the last, and in the dtype of the GPT-2."""
    model = looped(make_gpt2().to(torch.bfloat16), n_loops=3, adapter_rank=4, loop_encoding="step")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert model(**batch, n_loops=5).logits.isfinite().all()


BAD = {
    "no loops": ({"adapter_rank": 2}, "`n_loops` must be given with `shared` or `adapter_rank`"),
    "uneven": (
        {"adapter_rank": 2, "n_loops": 4},
        "`n_loops` must divide the 6 blocks of the loop to share them, got 4",
    ),
    "zero": ({"shared": "first", "n_loops": 0}, "`n_loops` must be an integer >= 1, got 0"),
    "start": ({"shared": "last", "n_loops": 2}, r"`shared` must be one of \('average', 'step', 'first'\), got 'last'"),
    "rank": ({"adapter_rank": 33, "n_loops": 2}, "`adapter_rank` must be in 0 ... `n_embd` = 32, got 33"),
    "injection": (
        {"adapter_rank": 2, "n_loops": 2, "input_injection": "add"},
        r"`input_injection` must be 'none' where loops stand for the blocks of a GPT-2 .*, got 'add': leave it out",
    ),
    "stream": (
        {"shared": "first", "n_loops": 2, "residual_loops": False},
        "`residual_loops` must be True where .*, got False",
    ),
    "order": (
        {"adapter_rank": 2, "n_loops": 2, "block_loops": [2, 1, 1]},
        r"`block_loops` must be None where .*, got \[2, 1, 1\]",
    ),
    "adapters": ({"adapter_rank": 2, "n_loops": 2, "n_adapters": 3}, "`n_adapters` follows from the model"),
}


@pytest.mark.parametrize(("settings", "message"), BAD.values(), ids=BAD)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises((ValueError, StrictDataclassError), match=message):
        looped(make_gpt2(), **settings)


def test_attention_that_knows_its_place_is_not_shared():
    with pytest.raises(ValueError, match="`scale_attn_by_inverse_layer_idx` must be False"):
        looped(make_gpt2(scale_attn_by_inverse_layer_idx=True), n_loops=2, adapter_rank=32)
