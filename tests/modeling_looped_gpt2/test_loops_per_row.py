"""A number of loops of its own for every row of the batch: each row is as it is alone, and costs no more."""

import pytest
import torch
from torch import nn
from transformers import DynamicCache, GenerationConfig, StaticCache

from modeling_looped_gpt2 import LoopedGPT2ForInContextClassification


SHAPES = {"loop": {"n_layer": 2}, "prelude and coda": {"n_prelude": 1, "n_coda": 2}}
COUNTS = torch.tensor([5, 2, 7, 2])
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


@pytest.fixture
def texts():
    """Four texts of 6 tokens, the second padded on the left by 3."""
    ids = torch.randint(1, 23, (4, 6), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    ids[1, :3], mask[1, :3] = 0, 0
    return {"input_ids": ids, "attention_mask": mask}


def each_alone(texts):
    """The texts without padding."""
    for ids, mask in zip(texts["input_ids"], texts["attention_mask"], strict=True):
        yield ids[mask.bool()][None]


def count_rows(block):
    """Rows of every call of a block, and whether they carry a gradient."""
    calls = []
    block.register_forward_pre_hook(lambda _, args: calls.append((len(args[0]), torch.is_grad_enabled())))
    return calls


@pytest.mark.parametrize("injection", ["add", "multiply", "none"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("cache", ["none", "dynamic", "static"])
def test_a_row_is_as_it_is_alone(make_lm, texts, injection, shape, cache):
    model = make_lm(**SHAPES[shape], input_injection=injection)
    settings = {
        "none": lambda: {"use_cache": False},
        "dynamic": lambda: {"cache": DynamicCache()},
        "static": lambda: {"cache": StaticCache(model.config.with_loops(7), max_cache_len=6)},
    }[cache]()
    mask = texts["attention_mask"]
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    outputs = model(**texts, position_ids=positions, n_loops=COUNTS, **settings)
    assert torch.equal(outputs.n_loops_used, COUNTS)
    for row, ids in enumerate(each_alone(texts)):
        alone = model(ids, n_loops=int(COUNTS[row])).logits
        torch.testing.assert_close(outputs.logits[row : row + 1, 6 - ids.shape[1] :], alone, **CLOSE)


def test_rows_that_have_run_their_loops_are_not_computed(make_lm, texts):
    model = make_lm(n_layer=2, n_prelude=1, n_coda=1)
    once, calls = count_rows(model.transformer.prelude[0]), count_rows(model.transformer.h[1])
    model(**texts, n_loops=COUNTS)
    assert [n_rows for n_rows, _ in once] == [4]
    assert [n_rows for n_rows, _ in calls] == [4, 4, 2, 2, 2, 1, 1]


def test_rows_before_their_window_carry_no_gradient(make_lm, texts):
    model = make_lm(n_layer=2).train()
    calls = count_rows(model.transformer.h[1])
    outputs = model(**texts, labels=texts["input_ids"], n_loops=COUNTS, loop_window=2)
    assert sum(n_rows for n_rows, _ in calls) == COUNTS.sum()
    assert sum(n_rows for n_rows, with_gradient in calls if with_gradient) == 4 * 2
    assert outputs.cache is None
    with pytest.raises(ValueError, match=r"`loop_window` runs rows .* apart: leave out `cache`"):
        model(**texts, n_loops=COUNTS, loop_window=2, cache=DynamicCache())
    with torch.no_grad():
        assert len(model(**texts, n_loops=COUNTS, loop_window=2, cache=DynamicCache()).cache) == 2 * 7


def test_the_in_context_heads_take_it(make_model, make_config, prompts):
    xs, ys, counts = prompts["xs"], prompts["ys"], torch.tensor([3, 1, 5, 3], dtype=torch.int32)
    regression, classes = make_model(), LoopedGPT2ForInContextClassification(make_config()).eval()
    for model, values, name in ((regression, ys, "predictions"), (classes, (ys > 0).long(), "logits")):
        outputs = model(xs, values, n_loops=counts)
        assert torch.equal(outputs.n_loops_used, counts.long())
        for row, n_loops in enumerate(counts.tolist()):
            alone = model(xs[row : row + 1], values[row : row + 1], n_loops=n_loops)
            torch.testing.assert_close(outputs[name][row], alone[name][0], **CLOSE)


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("window", [None, 1, 2])
def test_gradients_are_those_of_the_rows_one_by_one(make_lm, texts, shape, window, cached):
    model = make_lm(**SHAPES[shape]).train()
    ids = texts["input_ids"]
    settings = {"loop_window": window, "use_cache": cached}
    loss = model(ids, labels=ids, n_loops=COUNTS, **settings).loss
    loss.backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    model.zero_grad()
    rows = [ids[row : row + 1] for row in range(4)]
    losses = [model(row, labels=row, n_loops=int(n), **settings).loss for row, n in zip(rows, COUNTS, strict=True)]
    expected = sum(losses) / 4
    expected.backward()
    torch.testing.assert_close(loss, expected, **CLOSE)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-3, atol=1e-5, msg=name)


def test_the_window_of_an_in_context_head_is_each_prompts_own(make_model, prompts):
    model, counts = make_model().train(), torch.tensor([3, 2, 5, 3])
    wanted = {"loop_window": 2, "output_loop_predictions": True}
    outputs = model(**prompts, n_loops=counts, **wanted)
    outputs.loss.backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    model.zero_grad()
    losses = []
    for row, n_loops in enumerate(counts.tolist()):
        alone = model(**{name: column[row : row + 1] for name, column in prompts.items()}, n_loops=n_loops, **wanted)
        torch.testing.assert_close(outputs.loop_predictions[row], alone.loop_predictions[0], **CLOSE)
        losses.append(alone.loss)
    torch.testing.assert_close(outputs.loss, sum(losses) / 4, **CLOSE)
    (sum(losses) / 4).backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-3, atol=1e-5, msg=name)


def test_activation_checkpointing_changes_nothing(make_lm, texts):
    gradients = []
    for checkpointing in (False, True):
        model = make_lm(n_prelude=1, n_coda=1).train()
        if checkpointing:
            # renamed in transformers 5.23
            getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)()
        model(**texts, labels=texts["input_ids"], n_loops=COUNTS, loop_window=2).loss.backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("n_coda", [0, 1])
def test_states_of_the_window_end_where_each_row_ends(make_lm, texts, n_coda):
    model = make_lm(n_coda=n_coda).transformer
    wanted = {"loop_window": 2, "output_loop_hidden_states": True, "use_cache": False}
    outputs = model(texts["input_ids"], n_loops=COUNTS, **wanted)
    assert torch.equal(outputs.loop_hidden_states[-1], outputs.last_hidden_state)
    for row, n_loops in enumerate(COUNTS.tolist()):
        alone = model(texts["input_ids"][row : row + 1], n_loops=n_loops, **wanted).loop_hidden_states
        together = [state[row : row + 1] for state in outputs.loop_hidden_states]
        torch.testing.assert_close(together, list(alone), **CLOSE)


def test_at_most_so_many_loops_until_a_row_has_settled(make_lm, texts):
    model = make_lm(initializer_range=0.1)
    settings = {"exit_tolerance": 0.1, "use_cache": False}
    alone = [model(ids, n_loops=40, **settings).n_loops_used.item() for ids in each_alone(texts)]
    assert min(alone) > 2
    counts = torch.tensor([2, 40, alone[2], alone[3] - 1])
    positions = (texts["attention_mask"].cumsum(1) - 1).clamp(min=0)
    outputs = model(**texts, position_ids=positions, n_loops=counts, **settings)
    assert outputs.n_loops_used.tolist() == [2, alone[1], alone[2], alone[3] - 1]
    for row, ids in enumerate(each_alone(texts)):
        expected = model(ids, n_loops=int(outputs.n_loops_used[row])).logits
        torch.testing.assert_close(outputs.logits[row : row + 1, 6 - ids.shape[1] :], expected, **CLOSE)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("cache", ["none", "dynamic", "static"])
@pytest.mark.parametrize("extra", [{}, {"exit_tolerance": 0.2}, {"loops_per_slot": 7}])
@pytest.mark.parametrize("strategy", [{}, {"num_beams": 3}, {"num_beams": 3, "num_return_sequences": 2}])
def test_texts_are_written_as_they_are_alone(make_lm, texts, shape, cache, extra, strategy):
    model = make_lm(**SHAPES[shape])
    settings = {"max_new_tokens": 6, "do_sample": False, **extra, **strategy}
    settings |= {"use_cache": False} if cache == "none" else {"cache_implementation": cache}
    together = model.generate(**texts, n_loops=COUNTS, **settings)
    n_each = strategy.get("num_return_sequences", 1)
    for row, ids in enumerate(each_alone(texts)):
        alone = model.generate(ids, n_loops=int(COUNTS[row]), **settings)
        assert torch.equal(together[row * n_each : (row + 1) * n_each, 6 - ids.shape[1] :], alone)


def test_samples_of_one_text_share_its_number(make_lm, texts):
    model = make_lm()
    rows = []
    model.transformer.register_forward_pre_hook(lambda _, args, kw: rows.append(kw["n_loops"]), with_kwargs=True)
    model.generate(**texts, n_loops=COUNTS, do_sample=True, num_return_sequences=2, max_new_tokens=3)
    assert all(torch.equal(n_loops, COUNTS.repeat_interleave(2)) for n_loops in rows)


def test_a_cache_goes_on_with_the_same_numbers(make_lm, texts):
    model = make_lm(n_prelude=1)
    first = model.generate(**texts, n_loops=COUNTS, max_new_tokens=3, do_sample=False, return_dict_in_generate=True)
    assert len(first.past_key_values) == 1 + 7
    mask = nn.functional.pad(texts["attention_mask"], (0, 3), value=1)
    turn = {"input_ids": first.sequences, "attention_mask": mask, "n_loops": COUNTS}
    turn |= {"max_new_tokens": 3, "do_sample": False}
    assert torch.equal(model.generate(**turn, cache=first.past_key_values), model.generate(**turn))
    with pytest.raises(ValueError, match="`n_loops` = 6: go on with as many loops as the cache was filled with"):
        model(texts["input_ids"][:, :1], cache=first.past_key_values, n_loops=COUNTS.clamp(max=6))


BAD = {
    "too few": (torch.tensor([1, 2]), r"tensor of shape \(B,\), .* B = 4, got torch.int64 of shape \(2,\)"),
    "column": (torch.ones(4, 1, dtype=torch.long), r"of shape \(B,\), .* got torch.int64 of shape \(4, 1\)"),
    "scalar": (torch.tensor(3), r"of shape \(B,\), .* got torch.int64 of shape \(\)"),
    "empty": (torch.ones(0, dtype=torch.long), r"of shape \(B,\), .* of shape \(0,\)"),
    "bool": (torch.ones(4, dtype=torch.bool), "`n_loops` must be an integer or an integer tensor .* got torch.bool"),
    "float": (torch.ones(4), "`n_loops` must be an integer or an integer tensor .* got torch.float32"),
    "zero": (torch.tensor([1, 2, 0, 3]), "`n_loops` must be >= 1 for every row, got 0"),
    "list": ([1, 2, 3, 4], r"`n_loops` must be an integer >= 1, got \[1, 2, 3, 4\]"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_numbers_are_refused_by_name(make_lm, make_model, texts, prompts, name):
    n_loops, match = BAD[name]
    model = make_lm()
    rows = count_rows(model.transformer.h[0])
    with pytest.raises(ValueError, match=match):
        model(**texts, n_loops=n_loops)
    with pytest.raises(ValueError, match="`n_loops` must be"):
        model.generate(**texts, n_loops=n_loops, max_new_tokens=2)
    with pytest.raises(ValueError, match=match):
        make_model()(**prompts, n_loops=n_loops)
    assert rows == []


@pytest.mark.parametrize("name", ["output_hidden_states", "output_attentions"])
def test_what_is_looked_at_block_by_block_is_refused(make_lm, texts, name):
    model = make_lm(attn_implementation="eager")
    with pytest.raises(ValueError, match=f"`{name}` cannot be used with `n_loops` per row: rows end after different"):
        model(**texts, n_loops=COUNTS, **{name: True})


def test_the_window_is_within_the_loops_of_every_row(make_lm, make_model, texts, prompts):
    model = make_lm()
    with pytest.raises(
        ValueError, match=r"`loop_window` must be an integer in 1 ... the smallest `n_loops` of a row = 2"
    ):
        model(**texts, n_loops=COUNTS, loop_window=3)
    for call in (
        lambda: model(**texts, n_loops=COUNTS, output_loop_logits=True),
        lambda: make_model()(**prompts, n_loops=COUNTS),
    ):
        with pytest.raises(ValueError, match=r"`loop_window` must be given, in 1 ... 2, .* rows that run 2 to 7"):
            call()


@pytest.mark.filterwarnings("ignore")  # transformers passes itself arguments that it deprecates
@pytest.mark.parametrize("drafts", [{}, {"assistant_early_exit": 1}])
def test_numbers_as_an_argument_win_over_a_configuration(make_lm, texts, drafts):
    model, settings = make_lm(), {"max_new_tokens": 5, "do_sample": False}
    texts = texts if not drafts else {name: values[:1] for name, values in texts.items()}
    counts = COUNTS[: len(texts["input_ids"])]
    expected = model.generate(**texts, n_loops=counts, **settings)
    model.generation_config.n_loops = 3
    assert torch.equal(model.generate(**texts, n_loops=counts, **settings, **drafts), expected)
    config = GenerationConfig(n_loops=3, **settings)
    assert torch.equal(model.generate(**texts, n_loops=counts, generation_config=config, **drafts), expected)
