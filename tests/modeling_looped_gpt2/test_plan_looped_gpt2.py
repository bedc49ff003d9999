"""Which block runs when, and on which slot of the cache."""

import dataclasses

import pytest
import torch
from transformers import DynamicCache, StaticCache

from modeling_looped_gpt2 import LoopedGPT2Config, LoopedGPT2LMHeadModel
from modeling_looped_gpt2.plan_looped_gpt2 import PARTS, Step, make_plan


SHAPES = [(0, 1, 0), (0, 3, 0), (2, 1, 0), (0, 1, 2), (1, 2, 3)]


def config_of(shape, **changes):
    n_prelude, n_layer, n_coda = shape
    sizes = {"n_prelude": n_prelude, "n_layer": n_layer, "n_coda": n_coda, "n_embd": 8, "n_head": 2}
    return LoopedGPT2Config(**sizes, **changes)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("n_loops", [1, 2, 7])
def test_every_step_has_a_slot_of_its_own_in_the_order_in_which_steps_run(shape, n_loops):
    config = config_of(shape, n_loops=n_loops)
    plan = config.plan()
    assert [step.slot for step in plan.steps] == list(range(plan.depth))
    assert plan.depth == plan.n_slots == config.num_hidden_layers == shape[0] + shape[1] * n_loops + shape[2]
    assert all(step.keeps for step in plan.steps)
    assert [[step.block for step in loop] for loop in plan.loops] == [list(range(shape[1]))] * n_loops
    assert {step.part for step in plan.steps} == {part for part, n in zip(PARTS, shape, strict=True) if n}
    assert config.plan(9) == config_of(shape, n_loops=9).plan()
    assert config.loops_of(plan.depth) == n_loops


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("loops_per_slot", [1, 2, 3, 7, 9])
def test_the_last_loop_of_a_group_keeps_its_keys(shape, loops_per_slot):
    config = config_of(shape)
    plan = config.plan(7, loops_per_slot)
    assert plan.depth == config.plan(7).depth
    assert plan.n_slots == config.with_loops(7, loops_per_slot).num_hidden_layers
    kept = [step.slot for step in plan.steps if step.keeps]
    assert kept == list(range(plan.n_slots))  # each slot is filled once
    for number, loop in enumerate(plan.loops):
        group = [other for n, other in enumerate(plan.loops) if n // loops_per_slot == number // loops_per_slot]
        assert [step.slot for step in loop] == [step.slot for step in group[-1]]
        assert all(step.keeps == (loop is group[-1]) for step in loop)


def test_a_plan_cannot_be_changed():
    plan = make_plan({"prelude": 1, "h": 1, "coda": 0}, 2)
    assert plan.prelude == (Step("prelude", 0, 0),)
    assert plan.loops == ((Step("h", 0, 1),), (Step("h", 0, 2),))
    with pytest.raises(dataclasses.FrozenInstanceError):
        plan.coda = ()


@pytest.mark.parametrize("shape", SHAPES)
def test_the_model_has_the_blocks_of_the_plan(shape):
    config = config_of(shape, vocab_size=5)
    model = LoopedGPT2LMHeadModel(config).transformer
    assert {part: len(getattr(model, part)) for part in PARTS} == config.n_blocks
    blocks = [block for part in PARTS for block in getattr(model, part)]
    assert [block.attn.layer_idx for block in blocks] == list(range(len(blocks)))


class UnevenConfig(LoopedGPT2Config):
    """A loop that runs its first block twice, by a plan alone."""

    def plan(self, n_loops=None, loops_per_slot=1):
        assert loops_per_slot == 1
        loops = range(self.n_loops if n_loops is None else n_loops)
        steps = [tuple(Step("h", block, 3 * loop + i) for i, block in enumerate((0, 0, 1))) for loop in loops]
        return dataclasses.replace(super().plan(1), loops=tuple(steps))


@pytest.mark.parametrize("kind", ["none", "dynamic", "static"])
@pytest.mark.parametrize("settings", [{}, {"exit_tolerance": 0.1, "n_loops": 6}, {"n_loops": torch.tensor([3, 1])}])
def test_another_plan_is_all_that_a_block_needs_to_run_twice_in_a_loop(kind, settings):
    """The twin has three blocks of which two are equal."""
    sizes = {"n_embd": 16, "n_head": 2, "n_loops": 3, "vocab_size": 23, "initializer_range": 0.2}
    twin = LoopedGPT2LMHeadModel(LoopedGPT2Config(**sizes, n_layer=3)).eval()
    model = LoopedGPT2LMHeadModel(UnevenConfig(**sizes, n_layer=2)).eval()
    twin.transformer.h[1].load_state_dict(twin.transformer.h[0].state_dict())
    model.load_state_dict(
        {name.replace("h.2", "h.1"): value for name, value in twin.state_dict().items() if "h.1" not in name}
    )
    assert model.config.num_hidden_layers == 9
    assert model.config.loops_of(12) == 4
    ids = torch.randint(0, 23, (2, 6))
    max_loops = int(torch.as_tensor(settings.get("n_loops", 3)).max())
    outputs = []
    for each in (twin, model):
        cache = {
            "none": lambda config: None,
            "dynamic": lambda config: DynamicCache(config=config),
            "static": lambda config: StaticCache(config, max_cache_len=6),
        }[kind](each.config.with_loops(max_loops))
        first = each(ids[:, :5], cache=cache, use_cache=cache is not None, **settings)
        second = each(ids[:, 5:], cache=cache, use_cache=cache is not None, **settings)
        outputs.append((first, second))
    for expected, output in zip(*outputs, strict=True):
        torch.testing.assert_close(output.logits, expected.logits)
        if settings:
            assert torch.equal(output.n_loops_used, expected.n_loops_used)
