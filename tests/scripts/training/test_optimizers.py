from dataclasses import replace

import pytest
import torch

from scripts.training import optimizers
from scripts.training.objectives.hints import HintReader
from scripts.training.optimizers import Muon, blocks_of, build_optimizers, learning_rate_factor
from scripts.training.prompt_arguments import OptimizationArguments


ARGUMENTS = OptimizationArguments(max_steps=100, warmup_steps=10, decay_steps=20, weight_decay=0.1)


def parameters_of(groups):
    return [id(parameter) for group in groups for parameter in group["params"]]


def test_every_parameter_has_one_optimizer(make_model):
    model = make_model(n_layer=2, n_prelude=1, n_coda=1, loop_encoding="step", adapter_rank=2)
    adamw, muon = build_optimizers(model, ARGUMENTS)
    together = parameters_of(adamw.param_groups) + parameters_of(muon.param_groups)
    assert sorted(together) == sorted(id(parameter) for parameter in model.parameters())
    transformer = model.transformer
    blocks = [*transformer.prelude, *transformer.h, *transformer.coda]
    matrices = [id(p) for block in blocks for p in block.parameters() if p.ndim == 2]
    assert len(matrices) == 4 * 4
    assert blocks_of(model) == blocks
    assert sorted(parameters_of(muon.param_groups)) == sorted(matrices)
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


def muon_steps(gradients, optimizer_class=Muon):
    """The steps of an optimizer of rate 1 for matrices that start at zero and have these gradients in turn."""
    weight = torch.nn.Parameter(torch.zeros_like(gradients[0]))
    optimizer, steps = optimizer_class([weight], lr=1.0, weight_decay=0.0), []
    for gradient in gradients:
        before = weight.detach().clone()
        weight.grad = gradient.clone()
        optimizer.step()
        steps.append(before - weight.detach())
    return torch.stack(steps)


def test_muon_takes_the_steps_of_torchs_but_for_its_rounding_to_bfloat16():
    gradients = torch.randn(3, 24, 16)
    steps, expected = muon_steps(gradients), muon_steps(gradients, torch.optim.Muon)
    assert (steps - expected).norm() < 0.03 * expected.norm()


@pytest.mark.parametrize("native", [True, False])
def test_the_steps_are_exact_to_float32_whatever_the_processor_has(native, monkeypatch):
    """Runs of any number of processes differ by round-off, which bfloat16 would make a hundredth of a step."""
    monkeypatch.setattr(optimizers, "has_bfloat16", lambda device: native)
    gradient = torch.randn(24, 16)
    (step,) = muon_steps(gradient[None])
    left, values, right = torch.linalg.svd(gradient.double(), full_matrices=False)
    values = values / values.norm()
    for _ in range(5):  # Newton-Schulz acts on the singular values alone
        values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
    expected = (24 / 16) ** 0.5 * left @ values.diag() @ right
    torch.testing.assert_close(step.double(), expected, rtol=0, atol=1e-5)


def test_the_steps_are_those_that_the_rates_of_the_recipes_belong_to(make_model):
    model = make_model()
    block = model.transformer.h[0]
    factors = {block.attn.c_attn: 1, block.attn.c_proj: 1, block.mlp.c_fc: 1, block.mlp.c_proj: 2}
    before = {part: part.weight.detach().clone() for part in factors}
    for part in factors:
        part.weight.grad = torch.randn_like(part.weight)
    _, muon = build_optimizers(model, replace(ARGUMENTS, weight_decay=0.0, muon_learning_rate=0.1))
    muon.step()
    for part, factor in factors.items():
        # Newton-Schulz brings the singular values near 1
        singular_values = torch.linalg.svdvals((before[part] - part.weight.detach()) / (0.1 * factor))
        assert ((singular_values > 0.3) & (singular_values < 1.3)).all()
