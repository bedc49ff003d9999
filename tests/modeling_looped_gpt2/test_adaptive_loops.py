"""Loops that end for every row once its last token has settled."""

import pytest
import torch
from transformers import DynamicCache, StaticCache

from modeling_looped_gpt2 import LoopedGPT2ForInContextClassification, LoopedGPT2Model


TOLERANCE = 0.02
MAX_LOOPS = 40


def loops_until_settled(states, n_loops):
    """The naive way for one row: look at every loop's state at the last token and take the first that hardly moves."""
    for loop in range(1, n_loops):
        change = (states[loop] - states[loop - 1])[:, -1].norm() / states[loop][:, -1].norm()
        if change < TOLERANCE:
            return loop + 1
    return n_loops


@pytest.fixture
def model(make_model):
    return make_model(n_layer=2, initializer_range=0.1)  # loud enough for loops to matter


def test_each_prompt_stops_at_the_loop_where_it_has_settled(model, prompts):
    xs, ys = prompts["xs"], prompts["ys"]
    outputs = model(xs, ys, n_loops=MAX_LOOPS, exit_tolerance=TOLERANCE)
    assert outputs.n_loops_used.shape == (4,)
    assert len(set(outputs.n_loops_used.tolist())) > 1  # rows really end apart
    tokens = {}
    hook = model.transformer.register_forward_pre_hook(lambda _, __, kw: tokens.update(kw), with_kwargs=True)
    model(xs, ys)
    hook.remove()
    for row in range(4):
        embeds = tokens["inputs_embeds"][row : row + 1]
        states = model.transformer(
            inputs_embeds=embeds, n_loops=MAX_LOOPS, output_loop_hidden_states=True
        ).loop_hidden_states
        n_loops = loops_until_settled(states, MAX_LOOPS)
        assert outputs.n_loops_used[row] == n_loops
        fixed = model(xs[row : row + 1], ys[row : row + 1], n_loops=n_loops).predictions
        torch.testing.assert_close(outputs.predictions[row : row + 1], fixed, rtol=1e-4, atol=1e-5)


def test_no_prompt_depends_on_its_batch_mates(model, prompts):
    xs, ys = prompts["xs"], prompts["ys"]
    together = model(xs, ys, n_loops=MAX_LOOPS, exit_tolerance=TOLERANCE)
    for rows in ([2], [3, 1], [0, 1, 3]):
        apart = model(xs[rows], ys[rows], n_loops=MAX_LOOPS, exit_tolerance=TOLERANCE)
        assert torch.equal(apart.n_loops_used, together.n_loops_used[rows])
        torch.testing.assert_close(apart.predictions, together.predictions[rows], rtol=1e-4, atol=1e-5)


def test_settled_rows_are_not_computed(model, prompts):
    rows_run = []
    hook = model.transformer.h[0].register_forward_pre_hook(lambda _, args: rows_run.append(len(args[0])))
    used = model(prompts["xs"], prompts["ys"], n_loops=MAX_LOOPS, exit_tolerance=TOLERANCE).n_loops_used
    hook.remove()
    assert sum(rows_run) == used.sum()
    assert len(rows_run) == used.max()


def test_a_tolerance_never_reached_runs_all_loops(model, prompts):
    outputs = model(prompts["xs"], prompts["ys"], n_loops=5, exit_tolerance=1e-9)
    assert outputs.n_loops_used.tolist() == [5] * 4
    torch.testing.assert_close(outputs.predictions, model(prompts["xs"], prompts["ys"], n_loops=5).predictions)
    assert model(prompts["xs"], prompts["ys"]).n_loops_used is None


@pytest.mark.parametrize("kind", ["dynamic", "static"])
@pytest.mark.parametrize("tolerance", [TOLERANCE, 0.5])
def test_rows_that_have_ended_leave_their_last_keys_in_later_slots(make_config, kind, tolerance):
    model = LoopedGPT2Model(make_config(n_layer=2, vocab_size=11, n_loops=MAX_LOOPS, initializer_range=0.1)).eval()
    ids = torch.randint(0, 11, (4, 8))
    mask = (torch.arange(8) >= torch.tensor([[0], [3], [0], [1]])).long()
    positions = (mask.cumsum(1) - 1).clamp(min=0)

    def run(rows):
        cache = DynamicCache() if kind == "dynamic" else StaticCache(model.config, max_cache_len=8)
        used, state = [], None
        for part in (slice(0, 6), slice(6, 7), slice(7, 8)):
            inputs = {"input_ids": ids[rows, part], "position_ids": positions[rows, part]}
            outputs = model(
                **inputs,
                attention_mask=mask[rows, : part.stop],
                cache=cache,
                use_cache=True,
                exit_tolerance=tolerance,
            )
            used.append(outputs.n_loops_used)
            state = outputs.last_hidden_state
        return cache, used, state

    cache, used, state = run([0, 1, 2, 3])
    assert len(cache) == 2 * MAX_LOOPS
    for row in range(4):
        alone, used_alone, state_alone = run([row])
        assert [int(loops[row]) for loops in used] == [int(loops) for loops in used_alone]
        torch.testing.assert_close(state[row : row + 1], state_alone, rtol=1e-4, atol=1e-4)
        token, last = 7, used[-1][row] - 1
        for slot, layer in enumerate(cache.layers):
            torch.testing.assert_close(layer.keys[row : row + 1], alone.layers[slot].keys, rtol=1e-4, atol=1e-4)
            source = cache.layers[min(slot // 2, last) * 2 + slot % 2]
            assert torch.equal(layer.values[row, :, token], source.values[row, :, token])


@pytest.fixture
def make_padded(make_config):
    """A model of texts, and texts of 1 to 8 tokens with padding on the right, on the left, or among them."""
    model = LoopedGPT2Model(make_config(n_layer=2, vocab_size=11, initializer_range=0.1)).eval()

    def make(side, seed):
        generator = torch.Generator().manual_seed(seed)
        lengths = torch.randint(1, 9, (5, 1), generator=generator)
        mask = torch.arange(8) < lengths
        if side == "left":
            mask = mask.flip(1)
        if side == "middle":
            mask = mask & (torch.rand(5, 8, generator=generator) < 0.6)
            mask[torch.arange(5), lengths[:, 0] - 1] = True
        ids = torch.randint(0, 11, (5, 8), generator=generator)
        return {"input_ids": ids, "attention_mask": mask.long(), "position_ids": (mask.cumsum(1) - 1).clamp(min=0)}

    return model, make


@pytest.mark.parametrize("side", ["right", "left", "middle"])
@pytest.mark.parametrize("seed", range(4))
def test_a_text_settles_as_it_does_alone_whatever_it_is_padded_with(make_padded, side, seed):
    model, make = make_padded
    batch = make(side, seed)
    settings = {"n_loops": MAX_LOOPS, "exit_tolerance": TOLERANCE}
    together = model(**batch, **settings)
    for row, shown in enumerate(batch["attention_mask"].bool()):
        ids = batch["input_ids"][row : row + 1, shown]
        alone = model(input_ids=ids, **settings)
        assert together.n_loops_used[row] == alone.n_loops_used
        state = together.last_hidden_state[row : row + 1, shown]
        torch.testing.assert_close(state, alone.last_hidden_state, rtol=1e-4, atol=1e-5)
    assert len(set(together.n_loops_used.tolist())) > 1  # rows really end apart


@pytest.mark.parametrize("kind", ["dynamic", "static"])
def test_a_part_of_a_text_is_judged_by_its_own_last_token(make_padded, kind):
    """The second part of three texts on a cache of the first: as long as the part, shorter, and of padding alone."""
    model, make = make_padded
    batch = make("right", 0)
    batch["attention_mask"] = (torch.arange(8) < torch.tensor([[8], [6], [4], [8], [8]])).long()

    def run(rows, end):
        cache = DynamicCache() if kind == "dynamic" else StaticCache(model.config.with_loops(MAX_LOOPS), 8)
        for part in (slice(0, 4), slice(4, end)):
            inputs = {name: batch[name][rows, part] for name in ("input_ids", "position_ids")}
            mask = batch["attention_mask"][rows, : part.stop]
            outputs = model(**inputs, attention_mask=mask, cache=cache, n_loops=MAX_LOOPS, exit_tolerance=TOLERANCE)
        return outputs

    together = run([0, 1, 2, 3, 4], 8)
    for row, end in ((0, 8), (1, 6), (3, 8)):
        alone = run([row], end)
        assert together.n_loops_used[row] == alone.n_loops_used
        state = together.last_hidden_state[row : row + 1, : end - 4]
        torch.testing.assert_close(state, alone.last_hidden_state, rtol=1e-4, atol=1e-5)
    assert torch.equal(together.n_loops_used[2:3], run([2], 8).n_loops_used)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_a_mask_of_four_dimensions_shows_the_last_token_too(make_padded, attention):
    model, make = make_padded
    model.set_attn_implementation(attention)
    batch = make("right", 1)
    settings = {"n_loops": MAX_LOOPS, "exit_tolerance": TOLERANCE}
    expected = model(**batch, **settings)
    shown = batch["attention_mask"].bool()
    allowed = torch.ones(8, 8).tril().bool() & shown[:, None, None, :]
    masks = [torch.where(allowed, 0.0, torch.finfo(torch.float32).min)]
    masks += [allowed] if attention == "sdpa" else []
    for mask in masks:
        outputs = model(**batch | {"attention_mask": mask}, **settings)
        assert torch.equal(outputs.n_loops_used, expected.n_loops_used)
        torch.testing.assert_close(outputs.last_hidden_state[shown], expected.last_hidden_state[shown])


@pytest.mark.parametrize("shape", [(5, 7), (8,), (5, 8, 8), (5, 1, 8, 4), (5, 1, 1, 8)])
def test_a_mask_that_cannot_tell_the_last_token_is_refused(make_padded, shape):
    model, make = make_padded
    batch = make("right", 1) | {"attention_mask": torch.ones(shape)}
    with pytest.raises(ValueError, match=r"`attention_mask` .* shape \(5, 8\)"):
        model(**batch, exit_tolerance=TOLERANCE)


def test_generation_settles_as_it_does_for_a_text_alone(make_lm, batch):
    model = make_lm(n_layer=2)
    settings = {"n_loops": MAX_LOOPS, "exit_tolerance": 0.2, "max_new_tokens": 6, "do_sample": False}
    for implementation in ("dynamic", "static"):
        together = model.generate(**batch, **settings, cache_implementation=implementation)
        alone = model.generate(batch["input_ids"][1:, 3:], **settings, cache_implementation=implementation)
        assert torch.equal(together[1:, 3:], alone)


def test_the_classification_head_ends_its_loops_as_the_regression_head_does(make_config, prompts):
    model = LoopedGPT2ForInContextClassification(make_config(n_layer=2, initializer_range=0.1)).eval()
    xs, ys = prompts["xs"], (prompts["ys"] > 0).long()
    outputs = model(xs, ys, n_loops=MAX_LOOPS, exit_tolerance=TOLERANCE)
    assert len(set(outputs.n_loops_used.tolist())) > 1
    states = model(xs, ys, n_loops=MAX_LOOPS, output_loop_hidden_states=True).loop_hidden_states
    assert len(states) == MAX_LOOPS
    for row, n_loops in enumerate(outputs.n_loops_used.tolist()):
        assert n_loops == loops_until_settled([state[row : row + 1] for state in states], MAX_LOOPS)
        fixed = model(xs[row : row + 1], ys[row : row + 1], n_loops=n_loops).logits
        torch.testing.assert_close(outputs.logits[row : row + 1], fixed, rtol=1e-4, atol=1e-5)
    assert model(xs, ys).n_loops_used is None
    for looking in ({"labels": ys}, {"output_loop_logits": True}, {"output_loop_hidden_states": True}):
        with pytest.raises(ValueError, match=r"`labels`, `output_loop_logits` and .* leave out `exit_tolerance`"):
            model(xs, ys, exit_tolerance=TOLERANCE, **looking)


BAD = {
    "labels": ({"exit_tolerance": 0.1, "labels": torch.zeros(4, 5)}, "leave out `exit_tolerance`"),
    "zero": ({"exit_tolerance": 0}, "`exit_tolerance` must be a finite number > 0, got 0"),
    "NaN": ({"exit_tolerance": float("nan")}, "`exit_tolerance` must be a finite number > 0, got nan"),
    "text": ({"exit_tolerance": "0.1"}, "`exit_tolerance` must be a finite number > 0, got '0.1'"),
    "loops": ({"exit_tolerance": 0.1, "output_loop_predictions": True}, "leave out `exit_tolerance`"),
    "loop states": ({"exit_tolerance": 0.1, "output_loop_hidden_states": True}, "leave out `exit_tolerance`"),
    "window": ({"exit_tolerance": 0.1, "loop_window": 2}, "`loop_window` cannot be used with `exit_tolerance`"),
    "states": ({"exit_tolerance": 0.1, "output_hidden_states": True}, "`output_hidden_states` cannot be used"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_call_is_refused_by_name(model, prompts, name):
    arguments, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        model(prompts["xs"], prompts["ys"], **arguments)
