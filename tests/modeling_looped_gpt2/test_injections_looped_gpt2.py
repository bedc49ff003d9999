"""How the prompt enters a loop: each way by its formula, and one more way as an entry of the table alone."""

import pytest
import torch
from torch import nn

from modeling_looped_gpt2 import LoopedGPT2Config, LoopedGPT2ForInContextRegression
from modeling_looped_gpt2.injections_looped_gpt2 import INJECTIONS, InputInjection


FORMULAS = {
    "add": (lambda e: 0 * e, lambda z, e: z + e),
    "multiply": (lambda e: e * 0 + 1, lambda z, e: z * e),
    "none": (lambda e: e, lambda z, e: z),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_an_injection_by_its_formula(name):
    start, inject = FORMULAS[name]
    injection = INJECTIONS[name](LoopedGPT2Config(input_injection=name))
    prompt, state = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    assert torch.equal(injection.initial_state(prompt), start(prompt))
    assert torch.equal(injection(state, prompt), inject(state, prompt))
    assert list(injection.state_dict()) == []
    moved = not torch.equal(inject(state, prompt), inject(state, prompt + 1))
    assert injection.enters_every_loop == moved


def test_a_map_of_both_starts_as_their_sum(make_model, prompts):
    model = make_model(input_injection="concat")
    plain = make_model()
    plain.load_state_dict({name: value for name, value in model.state_dict().items() if "injection" not in name})
    torch.testing.assert_close(model(**prompts).loss, plain(**prompts).loss)


@pytest.mark.parametrize("logit", [-80.0, 0.0, 2.0, 8.0])
def test_a_gate_keeps_any_state_bounded(logit):
    """Whatever its weights are; "add" grows with every loop."""
    gate = INJECTIONS["gated"](LoopedGPT2Config(input_injection="gated", n_embd=6, n_head=2))
    with torch.no_grad():
        gate.decay_logit.fill_(logit)
        gate.gain.copy_(torch.randn(6))
        decay = gate.decay_logit.sigmoid()
        prompt = torch.randn(2, 3, 6)
        bound = (gate.gain * prompt).abs() / (1 - decay)
        state = gate.initial_state(prompt)
        for _ in range(1000):
            state = gate(state, prompt)
            assert (state.abs() <= bound * 1.001).all()
        other = torch.randn(2, 3, 6)
        shrunk = (gate(state, prompt) - gate(other, prompt)).abs()
        assert (shrunk <= (state - other).abs() * 1.001).all()


def test_initial_weights_survive_loading_from_nothing(make_config):
    for name in ("concat", "gated"):
        config = make_config(input_injection=name)
        loaded = LoopedGPT2ForInContextRegression.from_pretrained(None, config=config, state_dict={})
        fresh = LoopedGPT2ForInContextRegression(config).transformer.injection.state_dict()
        for key, value in loaded.transformer.injection.state_dict().items():
            assert torch.equal(value, fresh[key]), key


class Gate(InputInjection):
    """z + g * e with a learned g."""

    def __init__(self, config):
        super().__init__(config)
        self.gate = nn.Linear(config.n_embd, 1)

    def initial_state(self, prompt):
        return torch.zeros_like(prompt)

    def forward(self, state, prompt):
        return state + self.gate(state).sigmoid() * prompt


def test_a_new_injection_is_a_class_and_an_entry(make_config, prompts, monkeypatch, tmp_path):
    monkeypatch.setitem(INJECTIONS, "gate", Gate)
    model = LoopedGPT2ForInContextRegression(make_config(input_injection="gate")).train()
    assert {name for name in model.state_dict() if "injection" in name} == {
        "transformer.injection.gate.weight",
        "transformer.injection.gate.bias",
    }
    model(**prompts, loop_window=2).loss.backward()
    assert all(parameter.grad.any() for parameter in model.parameters())
    model.save_pretrained(tmp_path)
    loaded = LoopedGPT2ForInContextRegression.from_pretrained(tmp_path)
    assert torch.equal(loaded.transformer.injection.gate.weight, model.transformer.injection.gate.weight)
    assert loaded(**prompts).loss == model.eval()(**prompts).loss


def test_an_injection_says_what_it_is_to_do():
    unwritten = InputInjection(LoopedGPT2Config())
    for call in (lambda: unwritten.initial_state(torch.zeros(1)), lambda: unwritten(torch.zeros(1), torch.zeros(1))):
        with pytest.raises(NotImplementedError, match="InputInjection must say"):
            call()
