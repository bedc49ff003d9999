import copy
from dataclasses import replace

import pytest
import torch

from scripts import optimizers
from scripts.arguments import OptimizationArguments
from scripts.hints import HintReader
from scripts.optimizers import Muon, build_optimizers, learning_rate_factor


ARGUMENTS = OptimizationArguments(max_steps=100, warmup_steps=10, decay_steps=20, weight_decay=0.1)


def parameters_of(groups):
    return [id(parameter) for group in groups for parameter in group["params"]]


def test_every_parameter_has_one_optimizer(make_model):
    model = make_model(n_layer=2)
    adamw, muon = build_optimizers(model, ARGUMENTS)
    together = parameters_of(adamw.param_groups) + parameters_of(muon.param_groups)
    assert sorted(together) == sorted(id(parameter) for parameter in model.parameters())
    assert parameters_of(muon.param_groups) == [id(p) for p in model.transformer.h.parameters() if p.ndim == 2]
    (only,) = build_optimizers(model, replace(ARGUMENTS, optimizer="adamw"))
    assert sorted(parameters_of(only.param_groups)) == sorted(together)


def test_the_reader_of_hints_is_trained_by_adamw(make_model):
    model, reader = make_model(), HintReader(16, 3)
    adamw, muon = build_optimizers(model, ARGUMENTS, reader)
    assert {id(parameter) for parameter in reader.parameters()} <= set(parameters_of(adamw.param_groups))
    _, without = build_optimizers(model, ARGUMENTS)
    assert parameters_of(muon.param_groups) == parameters_of(without.param_groups)


def test_biases_and_norms_do_not_decay(make_model):
    model = make_model()
    for optimizer in build_optimizers(model, ARGUMENTS):
        for group in optimizer.param_groups:
            decays = {parameter.ndim >= 2 for parameter in group["params"]}
            assert decays == {group["weight_decay"] == 0.1}


def test_the_learning_rate_rises_holds_and_falls():
    factors = [learning_rate_factor(step, ARGUMENTS) for step in range(100)]
    assert factors[0] == pytest.approx(1 / 11)
    assert factors[:11] == sorted(factors[:11])
    assert factors[10:80] == [1.0] * 70
    assert factors[79:] == sorted(factors[79:], reverse=True)
    assert factors[99] == pytest.approx(1 / 21)


@pytest.mark.parametrize("native", [True, False])
def test_muon_orthogonalises_in_either_precision(native, monkeypatch):
    monkeypatch.setattr(optimizers, "has_bfloat16", lambda device: native)
    weight = torch.nn.Parameter(torch.zeros(24, 16))
    twin = copy.deepcopy(weight)
    ours, stock = Muon([weight], lr=0.1, weight_decay=0.0), torch.optim.Muon([twin], lr=0.1, weight_decay=0.0)
    for _ in range(3):
        weight.grad = torch.randn(24, 16)
        twin.grad = weight.grad.clone()
        before = weight.detach().clone()
        ours.step()
        stock.step()
        # lr * sqrt(24 / 16) times a matrix whose singular values Newton-Schulz brings near 1
        singular_values = torch.linalg.svdvals((weight - before).detach() / (0.1 * 1.5**0.5))
        assert ((singular_values > 0.3) & (singular_values < 1.3)).all()
    if native:
        assert torch.equal(weight, twin)
    else:
        torch.testing.assert_close(weight, twin, rtol=0, atol=0.02)
