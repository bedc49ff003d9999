"""Every stop rule beside a naive one that looks at all loops of a row alone, in forward and in generation."""

import math

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from torch import nn
from transformers import DynamicCache, StaticCache

from modeling_looped_gpt2 import LoopedGPT2Config, LoopedGPT2ForInContextClassification, LoopedGPT2Model
from modeling_looped_gpt2.stop_rules_looped_gpt2 import AtTokens, Confident, Gated, PerRow, Settled


MAX_LOOPS = 12
RULES = {
    "settled": {"exit_tolerance": 0.15},
    "confident": {"exit_confidence": 0.22},
    "gated": {"exit_probability": 0.8},
}
RULES |= {"two": RULES["settled"] | RULES["confident"], "all": RULES["settled"] | RULES["confident"] | RULES["gated"]}
by_rule = pytest.mark.parametrize("rule", RULES.values(), ids=RULES)


def is_done(rule, states, loop, logits, gates):
    """Whether one row is done after `loop`, from what its last token has after every loop."""
    if "exit_tolerance" in rule and loop:
        change = (states[loop] - states[loop - 1]).norm() / states[loop].norm()
        if change < rule["exit_tolerance"]:
            return True
    if "exit_confidence" in rule and logits[loop].softmax(-1).max() >= rule["exit_confidence"]:
        return True
    stopped = 1 - math.prod(1 - gates[at].sigmoid().item() for at in range(loop + 1))
    return "exit_probability" in rule and stopped >= rule["exit_probability"]


def naive_loops(rule, states, logits, gates):
    return next((at + 1 for at in range(MAX_LOOPS) if is_done(rule, states, at, logits, gates)), MAX_LOOPS)


def open_gates(model):
    """Make the gate differ from row to row."""
    torch.manual_seed(1)
    nn.init.normal_(model.transformer.exit_gate.weight, std=0.5)
    nn.init.constant_(model.transformer.exit_gate.bias, -1.0)
    return model


@pytest.fixture
def lm(make_lm):
    return open_gates(make_lm(exit_gate=True, n_loops=MAX_LOOPS, n_layer=2))


@pytest.fixture
def classifier(make_config):
    torch.manual_seed(0)
    settings = {"n_layer": 2, "num_labels": 23, "exit_gate": True, "n_loops": MAX_LOOPS}
    model = LoopedGPT2ForInContextClassification(make_config(**settings)).eval()
    nn.init.normal_(model.score.weight, std=0.2)
    return open_gates(model)


@pytest.fixture
def texts():
    """Texts of 3 to 9 tokens; `padded(side)` is one batch of them."""
    generator = torch.Generator().manual_seed(3)
    rows = [torch.randint(1, 23, (n,), generator=generator) for n in (9, 3, 7, 5, 8, 4)]

    def padded(side):
        batch = {"input_ids": torch.zeros(len(rows), 9, dtype=torch.long)}
        batch["attention_mask"] = torch.zeros_like(batch["input_ids"])
        for row, ids in enumerate(rows):
            place = slice(9 - len(ids), 9) if side == "left" else slice(0, len(ids))
            batch["input_ids"][row, place], batch["attention_mask"][row, place] = ids, 1
        positions = (batch["attention_mask"].cumsum(1) - 1).clamp(min=0)
        return batch | {"position_ids": positions}

    return rows, padded


@by_rule
@pytest.mark.parametrize("residual", [False, True])
def test_a_text_ends_as_it_does_alone_whatever_it_is_padded_with(make_lm, texts, rule, residual):
    lm = open_gates(make_lm(exit_gate=True, n_loops=MAX_LOOPS, n_layer=2, residual_loops=residual))
    rows, padded = texts
    rows_run, expected = [], []
    for ids in rows:
        alone = lm(ids[None], output_loop_logits=True, logits_to_keep=1)
        states = lm.transformer(ids[None], output_loop_hidden_states=True).loop_hidden_states
        tokens = [state[0, -1] for state in states], [logits[0, -1] for logits in alone.loop_logits]
        expected.append(naive_loops(rule, *tokens, alone.loop_exit_logits[0, :, -1]))
    assert len(set(expected)) > 1  # rows really end apart
    for side in ("left", "right"):
        hook = lm.transformer.h[0].register_forward_pre_hook(lambda _, args: rows_run.append(len(args[0])))
        batch = padded(side)
        outputs = lm(**batch, **rule)
        hook.remove()
        assert outputs.n_loops_used.tolist() == expected
        assert sum(rows_run) == sum(expected)  # rows that have ended are not computed
        rows_run.clear()
        for row, ids in enumerate(rows):
            shown = batch["attention_mask"][row].bool()
            fixed = lm(ids[None], n_loops=expected[row]).logits[0]
            torch.testing.assert_close(outputs.logits[row, shown], fixed, rtol=1e-4, atol=1e-4)
        fewer = lm(**{name: values[1:4] for name, values in batch.items()}, **rule)
        assert fewer.n_loops_used.tolist() == expected[1:4]


@by_rule
@pytest.mark.parametrize("kind", ["dynamic", "static"])
def test_generation_ends_loops_as_for_a_text_alone(lm, texts, rule, kind):
    rows, padded = texts
    settings = {"max_new_tokens": 4, "do_sample": False, "cache_implementation": kind, **rule}
    batch = padded("left")
    del batch["position_ids"]
    together = lm.generate(**batch, **settings)
    for row, ids in list(enumerate(rows))[:3]:
        assert torch.equal(lm.generate(ids[None], **settings)[0, len(ids) :], together[row, 9:])


@by_rule
@pytest.mark.parametrize("kind", ["dynamic", "static"])
def test_rows_that_have_ended_leave_their_last_keys_in_later_slots(lm, texts, rule, kind):
    _, padded = texts
    batch = padded("right")

    def run(rows):
        cache = DynamicCache() if kind == "dynamic" else StaticCache(lm.config, max_cache_len=9)
        used = []
        for part in (slice(0, 3), slice(3, 4)):  # every text has three tokens
            mask = torch.ones(len(rows), part.stop)
            ids = batch["input_ids"][rows, part]
            used.append(lm(ids, attention_mask=mask, cache=cache, use_cache=True, **rule).n_loops_used)
        return cache, used

    cache, used = run([0, 2, 3, 4])
    for row, place in enumerate([0, 2, 3, 4]):
        alone, used_alone = run([place])
        assert [int(loops[row]) for loops in used] == [int(loops) for loops in used_alone]
        last = used[-1][row] - 1
        for slot, layer in enumerate(cache.layers):
            torch.testing.assert_close(layer.keys[row : row + 1], alone.layers[slot].keys, rtol=1e-4, atol=1e-4)
            source = cache.layers[min(slot // 2, last) * 2 + slot % 2]
            assert torch.equal(layer.values[row, :, 3], source.values[row, :, 3])


@by_rule
def test_a_prompt_ends_by_the_classes_at_its_last_x(classifier, prompts, rule):
    xs, ys = prompts["xs"], (prompts["ys"] > 0).long()
    every = classifier(xs, ys, output_loop_logits=True, output_loop_hidden_states=True)
    assert every.loop_exit_logits.shape == (len(xs), MAX_LOOPS, xs.shape[1])
    outputs = classifier(xs, ys, **rule)
    for row, n_loops in enumerate(outputs.n_loops_used.tolist()):
        states = [state[row, -1] for state in every.loop_hidden_states]
        assert n_loops == naive_loops(rule, states, every.loop_logits[row, :, -1], every.loop_exit_logits[row, :, -1])
        fixed = classifier(xs[[row]], ys[[row]], n_loops=n_loops).logits[0]
        torch.testing.assert_close(outputs.logits[row], fixed, rtol=1e-4, atol=1e-5)


def test_rules_look_at_the_last_token_alone():
    states = torch.full((2, 3, 4), float("nan"))
    states[0, 1], states[1, 2] = 1.0, 2.0
    last, rows = torch.tensor([[1], [0], [2]]), torch.tensor([0, 2])
    assert Settled(0.1, last)(states, states, 0, rows).tolist() == [True, True]
    read_out = nn.Linear(4, 3)
    assert Confident(0.01, read_out, last)(states, states, 0, rows).tolist() == [True, True]
    gate = nn.Linear(4, 1)
    nn.init.zeros_(gate.weight)
    nn.init.zeros_(gate.bias)  # lambda is a half
    rule = Gated(0.8, gate, last)
    stops = [rule(states, states, number, rows).tolist() for number in range(3)]
    assert stops == [[False] * 2, [False] * 2, [True] * 2]  # 1/2, 3/4, 7/8
    assert not rule(states[:1], states[:1], 3, torch.tensor([1])).any()  # a row that it has not seen
    with pytest.raises(NotImplementedError, match="AtTokens must define `is_done`"):
        AtTokens(last)(states, states, 0, rows)


def test_a_rule_of_ones_own_ends_rows(lm, texts):
    _, padded = texts
    batch = padded("right")
    seen = []

    def make(places):
        seen.append(places)
        return PerRow(torch.tensor([1, 2, 3, 4, 5, 6]))

    outputs = lm.transformer(**batch, exit_rules={"exit_mine": make})
    assert outputs.n_loops_used.tolist() == [1, 2, 3, 4, 5, 6]
    assert torch.equal(seen[0], batch["attention_mask"].sum(1, keepdim=True) - 1)
    with pytest.raises(ValueError, match="`loop_window` cannot be used with `exit_mine`"):
        lm.transformer(**batch, loop_window=2, exit_rules={"exit_mine": make})


def test_a_rule_stays_out_of_the_gradient(lm, texts):
    _, padded = texts
    batch = padded("right")
    loss = lm.train()(**batch, labels=batch["input_ids"], **RULES["all"]).loss
    loss.backward()
    assert lm.transformer.exit_gate.weight.grad is None
    assert lm.transformer.wpe.weight.grad.isfinite().all()


def test_a_model_has_no_gate_unless_it_is_asked_for(make_lm):
    assert not any("exit_gate" in name for name, _ in make_lm().named_parameters())
    names = [name for name, _ in make_lm(exit_gate=True).named_parameters() if "exit_gate" in name]
    assert names == ["transformer.exit_gate.weight", "transformer.exit_gate.bias"]
    torch.manual_seed(0)
    assert make_lm()(torch.arange(5)[None], output_loop_logits=True).loop_exit_logits is None


@pytest.mark.parametrize("name", ["exit_confidence", "exit_probability"])
@pytest.mark.parametrize("value", [0, 1, -0.5, float("nan"), float("inf"), "0.5", True])
def test_what_is_no_share_is_refused_by_name(lm, classifier, texts, prompts, name, value):
    message = rf"`{name}` must be a number in \(0, 1\), got {value!r}"
    with pytest.raises(ValueError, match=message):
        lm(texts[0][0][None], **{name: value})
    with pytest.raises(ValueError, match=message):
        classifier(prompts["xs"], (prompts["ys"] > 0).long(), **{name: value})


LOOKING = ({"labels": True}, {"output_loop_logits": True}, {"output_loop_hidden_states": True})


@pytest.mark.parametrize("name", ["exit_confidence", "exit_probability"])
def test_what_looks_at_loops_is_refused(lm, classifier, texts, prompts, name):
    ids, ys, rule = texts[0][0][None], (prompts["ys"] > 0).long(), {name: 0.5}
    for looking in LOOKING:
        arguments = {key: ys if key == "labels" else value for key, value in looking.items()}
        with pytest.raises(ValueError, match=f"look at all loops: leave out `{name}`"):
            classifier(prompts["xs"], ys, **rule, **arguments)
    for looking in ({"output_loop_logits": True}, {"labels": ids, "loop_window": 2}):
        with pytest.raises(ValueError, match=f"look at all loops: leave out `{name}`"):
            lm(ids, **rule, **looking)
    with pytest.raises(ValueError, match=f"`output_hidden_states` cannot be used with `{name}`"):
        lm(ids, **rule, output_hidden_states=True)
    with pytest.raises(ValueError, match=f"`loop_window` cannot be used with `{name}`"):
        lm(ids, **rule, loop_window=2)


def test_a_rule_without_what_it_reads_is_refused(make_lm, make_model, texts, prompts):
    ids = texts[0][0][None]
    with pytest.raises(ValueError, match="`exit_probability` needs the gate of a model with `exit_gate=True`"):
        make_lm()(ids, exit_probability=0.5)
    with pytest.raises(ValueError, match="`exit_confidence` reads an answer after every loop, and the coda"):
        make_lm(n_coda=1)(ids, exit_confidence=0.5)
    with pytest.raises(TypeError, match="`exit_confidence` is not an argument of LoopedGPT2ForInContextRegression"):
        make_model()(prompts["xs"], prompts["ys"], exit_confidence=0.5)
    with pytest.raises(StrictDataclassError, match=r"`exit_gate` .* got `n_coda` = 1"):
        LoopedGPT2Config(exit_gate=True, n_coda=1)


def test_the_regression_head_ends_by_its_gate(make_model, prompts):
    model = open_gates(make_model(n_layer=2, exit_gate=True, n_loops=MAX_LOOPS))
    every = model(prompts["xs"], prompts["ys"], output_loop_predictions=True)
    outputs = model(prompts["xs"], prompts["ys"], **RULES["gated"])
    for row, n_loops in enumerate(outputs.n_loops_used.tolist()):
        assert n_loops == naive_loops(RULES["gated"], None, None, every.loop_exit_logits[row, :, -1])
        torch.testing.assert_close(outputs.predictions[row], every.loop_predictions[row, n_loops - 1])


def test_the_gate_reads_the_states_that_are_shown(make_config):
    model = LoopedGPT2Model(make_config(exit_gate=True, vocab_size=9, n_prelude=1)).eval()
    outputs = model(torch.arange(6)[None], output_loop_hidden_states=True, loop_window=2)
    assert outputs.loop_exit_logits.shape == (1, 2, 6)
    for loop, state in enumerate(outputs.loop_hidden_states):
        torch.testing.assert_close(outputs.loop_exit_logits[:, loop], model.exit_gate(state)[..., 0])


def test_a_row_settles_by_its_last_token():
    before, after = torch.zeros(2, 3, 4), torch.zeros(2, 3, 4)
    before[0, 1], after[0, 1] = 1.0, 1.05
    before[1, 2], after[1, 2] = 1.0, 1.15
    after[0, 2] = 7.0  # another token moves
    rule = Settled(0.1, torch.tensor([[0], [1], [2]]))
    assert rule(before, after, 0, torch.tensor([1, 2])).tolist() == [True, False]


def test_a_gate_is_saved_and_loaded(lm, texts, tmp_path):
    _, padded = texts
    lm.generation_config.exit_probability = 0.8
    lm.save_pretrained(tmp_path)
    loaded = type(lm).from_pretrained(tmp_path)
    batch, settings = padded("left"), {"max_new_tokens": 3, "do_sample": False}
    del batch["position_ids"]
    expected = lm.generate(**batch, **settings, exit_probability=0.8)
    assert torch.equal(loaded.generate(**batch, **settings), expected)  # as its own generation config says
    assert torch.equal(
        loaded(**batch, exit_probability=0.8).n_loops_used, lm(**batch, exit_probability=0.8).n_loops_used
    )
