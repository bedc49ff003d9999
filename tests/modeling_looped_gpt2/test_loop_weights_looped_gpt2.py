"""What differs between loops in the weights of the shared blocks; tests/.../mechanisms.py has the naive twins."""

import copy
import pickle
from functools import partial

import pytest
import torch

from modeling_looped_gpt2 import LoopedGPT2LMHeadModel
from modeling_looped_gpt2.loop_weights_looped_gpt2 import LoopedGPT2Block
from tests.modeling_looped_gpt2.mechanisms import shake


CHANGES = {
    "step": {"loop_encoding": "step", "n_layer": 2},
    "share": {"loop_encoding": "share", "loop_encoding_parts": "gate"},
    "adapters": {"adapter_rank": 3},
    "both": {"loop_encoding": "step", "adapter_rank": 2, "n_adapters": 2, "adapter_beyond": "none"},
}


@pytest.mark.parametrize("settings", CHANGES.values(), ids=CHANGES)
def test_it_starts_as_the_plain_loop(make_lm, batch, settings):
    model = make_lm(**settings)
    plain = make_lm(n_layer=settings.get("n_layer", 1))
    assert not plain.transformer.loop_weights.state_dict()
    own = {name for name in model.state_dict() if name.startswith("transformer.loop_weights.")}
    assert own == model.state_dict().keys() - plain.state_dict().keys()
    plain.load_state_dict({name: weight for name, weight in model.state_dict().items() if name not in own})
    assert torch.equal(model(**batch, n_loops=6).logits, plain(**batch, n_loops=6).logits)
    assert not torch.allclose(shake(model)(**batch).logits, plain(**batch).logits, atol=1e-2)


@pytest.mark.parametrize("autocasts", [False, True])
@pytest.mark.parametrize("settings", CHANGES.values(), ids=CHANGES)
def test_few_tokens_are_answered_as_by_changed_weights(make_lm, monkeypatch, settings, autocasts):
    """Where no gradient is needed, the outputs of matrices are changed in place of the matrices."""
    model, ids = shake(make_lm(**settings)), torch.tensor([[3, 1, 4, 1, 5]])
    merged = []
    monkeypatch.setattr(
        LoopedGPT2Block, "_changed", lambda *args, own=LoopedGPT2Block._changed: merged.append(1) or own(*args)
    )
    with torch.autocast("cpu", torch.bfloat16, enabled=autocasts):
        expected = model(ids).logits
        n_merged = len(merged)
        with torch.no_grad():
            found = model(ids).logits
            assert 0 < n_merged == len(merged)
            model(ids.expand(4, 5))
            assert n_merged < len(merged)
    assert found.dtype == expected.dtype
    assert (found - expected).norm() < (0.05 if autocasts else 1e-5) * expected.norm()


@pytest.mark.parametrize(("parts", "changed"), [("scale", {"ln_1", "ln_2"}), ("gate", {"attn.c_proj", "mlp.c_proj"})])
def test_the_parts_of_an_encoding(make_lm, parts, changed):
    (changes,) = make_lm(loop_encoding="step", loop_encoding_parts=parts).transformer.loop_weights(1, 4)
    assert {name.rsplit(".", 2)[0] for name in changes} == changed


def test_a_share_is_the_same_for_any_number_of_loops(make_lm):
    weights = shake(make_lm(loop_encoding="share")).transformer.loop_weights
    half, same, other = (weights(*place)[0] for place in ((2, 4), (5, 10), (3, 4)))
    for name, factor in half.items():
        torch.testing.assert_close(same[name], factor)
        assert not torch.allclose(other[name], factor, atol=1e-3)


def test_a_share_is_that_of_the_most_loops(make_lm, batch):
    """Where each row ends by itself."""
    model = shake(make_lm(loop_encoding="share"))
    outputs = model(**batch, n_loops=6, exit_tolerance=0.8)
    by_loop = model(**batch, n_loops=6, output_loop_logits=True).loop_logits
    assert outputs.n_loops_used.max() < 6
    for row, n_loops in enumerate(outputs.n_loops_used):
        torch.testing.assert_close(outputs.logits[row], by_loop[n_loops - 1][row], rtol=1e-4, atol=1e-4)


def test_a_share_of_each_rows_own_loops_is_refused(make_lm, batch):
    model = make_lm(loop_encoding="share")
    for call in (model, partial(model.generate, max_new_tokens=2)):
        with pytest.raises(ValueError, match=r"`n_loops` must be one number with `loop_encoding='share'`.* a tensor"):
            call(**batch, n_loops=torch.tensor([2, 3]))


@pytest.mark.parametrize("beyond", ["last", "none"])
def test_loops_beyond_those_with_adapters(make_lm, beyond):
    weights = shake(make_lm(adapter_rank=2, n_adapters=2, adapter_beyond=beyond)).transformer.loop_weights
    (first,), (last,), (next_one,) = (weights(number, 4) for number in (1, 2, 3))
    for name, change in next_one.items():
        assert torch.equal(change, last[name] if beyond == "last" else torch.zeros_like(change))
        assert not torch.equal(first[name], last[name])


def test_the_number_of_adapters_is_that_of_the_loops_when_built(make_config, make_lm, tmp_path):
    assert make_config(adapter_rank=2).n_adapters == 4
    assert make_config().n_adapters is None
    model = shake(make_lm(adapter_rank=2))
    model.save_pretrained(tmp_path)
    deeper = LoopedGPT2LMHeadModel.from_pretrained(tmp_path, n_loops=9)
    assert (deeper.config.n_loops, deeper.config.n_adapters) == (9, 4)
    for name, weight in model.state_dict().items():
        assert torch.equal(deeper.state_dict()[name], weight)


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")  # torch's, of the loops before the window
@pytest.mark.parametrize("reentrant", [True, False])
def test_activation_checkpointing_keeps_the_gradients(make_lm, batch, reentrant):
    """Blocks of a loop share the layers that make their factors, and are computed again one by one."""
    model = shake(make_lm(loop_encoding="step", adapter_rank=2, n_layer=2, resid_pdrop=0.2)).train()
    gradients = []
    # renamed in transformers 5.23
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    for prepare in (lambda settings: None, enable):
        prepare({"use_reentrant": reentrant})
        torch.manual_seed(1)  # of dropout
        model(**batch, labels=batch["input_ids"], loop_window=2, use_cache=False).loss.backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
        model.zero_grad()
    for grad, expected in zip(*reversed(gradients), strict=True):
        assert expected.any()
        torch.testing.assert_close(grad, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("has_gradient", [False, True])
def test_every_executed_block_shows_what_it_did_once(make_lm, batch, has_gradient):
    model = shake(make_lm(loop_encoding="step", adapter_rank=2, n_layer=2, attn_implementation="eager"))
    with torch.set_grad_enabled(has_gradient):
        outputs = model(**batch, n_loops=3, output_hidden_states=True, output_attentions=True)
    assert (len(outputs.hidden_states), len(outputs.attentions)) == (7, 6)
    assert len({state.sum().item() for state in outputs.hidden_states}) == 7


def test_a_copy_runs_its_own_weights(make_lm, batch):
    model = shake(make_lm(loop_encoding="step"))
    logits = model(**batch).logits
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(twin(**batch).logits, logits)
        shake(twin)
        assert not torch.allclose(twin(**batch).logits, logits, atol=1e-2)
        assert torch.equal(model(**batch).logits, logits)


@pytest.mark.parametrize("injection", ["add", "multiply", "none"])
@pytest.mark.parametrize("parts", [{}, {"n_prelude": 1, "n_coda": 1}])
def test_residual_loops_by_their_formula(make_lm, batch, injection, parts):
    model = make_lm(input_injection=injection, residual_loops=True, n_layer=2, **parts)
    backbone, ids = model.transformer, batch["input_ids"]
    mask = torch.full((7, 7), torch.finfo(torch.float32).min).triu(1)[None, None]

    def run(blocks, states):
        for block in blocks:
            states = block(states, attention_mask=mask)
        return states

    prompt = run(backbone.prelude, backbone.wte(ids) + backbone.wpe.weight[:7])
    state = {"add": torch.zeros_like(prompt), "multiply": torch.ones_like(prompt), "none": prompt}[injection]
    expected = []
    for _ in range(3):
        state = run(backbone.h, {"add": state + prompt, "multiply": state * prompt, "none": state}[injection])
        expected.append(model.lm_head(backbone.ln_f(run(backbone.coda, state))))
    loops = model(ids, n_loops=3, output_loop_logits=True).loop_logits
    torch.testing.assert_close(torch.stack(loops), torch.stack(expected), rtol=1e-4, atol=1e-4)
    by_row = model(ids, n_loops=torch.tensor([3, 2])).logits
    torch.testing.assert_close(by_row, torch.stack((expected[2][0], expected[1][1])), rtol=1e-4, atol=1e-4)
