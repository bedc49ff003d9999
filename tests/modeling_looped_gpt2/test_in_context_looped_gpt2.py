"""Contexts that are encoded once, asked many times and grown example by example."""

import pytest
import torch
from transformers import DynamicCache

from modeling_looped_gpt2 import LoopedGPT2ForInContextClassification
from modeling_looped_gpt2.example_orders_looped_gpt2 import ExampleOrder
from tasks import make_task


@pytest.fixture
def examples():
    return make_task("noisy_linear_regression", n_dims=3).sample(2, torch.Generator().manual_seed(1), n_points=6)


def predict_each_as_the_last_point(model, xs, ys, xs_query, n_loops):
    """The naive way: a whole prompt for every query."""
    n_queries = xs_query.shape[1]
    predictions = [
        model(torch.cat((xs, xs_query[:, i : i + 1]), dim=1), ys, n_loops=n_loops).predictions[:, -1]
        for i in range(n_queries)
    ]
    return torch.stack(predictions, dim=1)


@pytest.mark.parametrize("injection", ["add", "multiply", "none"])
@pytest.mark.parametrize(("n_layer", "n_loops", "attention"), [(1, 4, "eager"), (2, 3, "sdpa"), (1, 1, "sdpa")])
def test_each_query_equals_the_last_point_of_its_own_prompt(
    make_model, examples, injection, n_layer, n_loops, attention
):
    model = make_model(input_injection=injection, n_layer=n_layer, attn_implementation=attention)
    xs, ys, queries = examples["xs"], examples["ys"], torch.randn(2, 9, 3)
    context = model.encode_context(xs, ys, n_loops=n_loops)
    assert len(context) == n_layer * n_loops
    expected = predict_each_as_the_last_point(model, xs, ys, queries, n_loops)
    torch.testing.assert_close(model.predict(queries, context), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("injection", ["add", "multiply", "none"])
@pytest.mark.parametrize(("n_prelude", "n_layer", "n_loops"), [(0, 1, 4), (2, 2, 3), (1, 1, 1)])
def test_answers_after_every_loop_are_those_of_whole_prompts(
    make_model, examples, injection, n_prelude, n_layer, n_loops
):
    model = make_model(input_injection=injection, n_prelude=n_prelude, n_layer=n_layer)
    xs, ys, queries = examples["xs"], examples["ys"], torch.randn(2, 5, 3)
    context = model.encode_context(xs, ys, n_loops=n_loops)
    by_loop = model.predict(queries, context, output_loop_predictions=True)
    assert by_loop.shape == (2, n_loops, 5)
    for i in range(5):
        prompt = torch.cat((xs, queries[:, i : i + 1]), dim=1)
        expected = model(prompt, ys, n_loops=n_loops, output_loop_predictions=True).loop_predictions[:, :, -1]
        torch.testing.assert_close(by_loop[:, :, i], expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(by_loop[:, -1], model.predict(queries, context))


@pytest.mark.parametrize("n_prelude", [0, 1])
def test_logits_after_every_loop_are_those_of_whole_prompts(make_config, examples, n_prelude):
    model = LoopedGPT2ForInContextClassification(make_config(num_labels=4, n_prelude=n_prelude)).eval()
    xs, ys, queries = examples["xs"], torch.randint(4, (2, 6)), torch.randn(2, 3, 3)
    context = model.encode_context(xs, ys, n_loops=5)
    by_loop = model.predict(queries, context, output_loop_predictions=True)
    assert by_loop.shape == (2, 5, 3, 4)
    for i in range(3):
        prompt = torch.cat((xs, queries[:, i : i + 1]), dim=1)
        expected = model(prompt, ys, n_loops=5, output_loop_logits=True).loop_logits[:, :, -1]
        torch.testing.assert_close(by_loop[:, :, i], expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(by_loop[:, -1], model.predict(queries, context))


@pytest.mark.parametrize("n_prelude", [0, 1])
def test_a_coda_answers_after_the_last_loop_alone(make_model, examples, n_prelude):
    model = make_model(n_prelude=n_prelude, n_coda=1)
    xs, ys, queries = examples["xs"], examples["ys"], torch.randn(2, 3, 3)
    context = model.encode_context(xs, ys, n_loops=3)
    expected = predict_each_as_the_last_point(model, xs, ys, queries, 3)
    torch.testing.assert_close(model.predict(queries, context), expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="`output_loop_predictions` needs a model without a coda, got `n_coda` = 1"):
        model.predict(queries, context, output_loop_predictions=True)


@pytest.fixture(params=[(64, 1024), (4, 8), (4, 32), (3, 1)], ids=lambda sizes: "{} per row of {}".format(*sizes))
def parted(request, monkeypatch):
    """Queries, two contexts of them, that run in one row, in parts, in rows and in both."""
    for name, size in zip(("queries_per_row", "queries_at_a_time"), request.param, strict=True):
        monkeypatch.setattr(ExampleOrder, name, size)


@pytest.mark.parametrize("every_loop", [False, True])
def test_queries_are_parted_without_a_trace(make_model, examples, parted, every_loop):
    model = make_model()
    context = model.encode_context(examples["xs"], examples["ys"])
    queries = torch.randn(2, 10, 3)
    each = [model.predict(query, context, output_loop_predictions=every_loop) for query in queries.split(1, dim=1)]
    answers = model.predict(queries, context, output_loop_predictions=every_loop)
    torch.testing.assert_close(answers, torch.cat(each, dim=-1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("attention", "n_coda"), [("eager", 0), ("sdpa", 1)])
def test_gradients_flow_through_context_and_queries(make_model, examples, parted, attention, n_coda):
    model = make_model(attn_implementation=attention, n_coda=n_coda)
    xs, ys, queries = examples["xs"], examples["ys"], torch.randn(2, 10, 3, requires_grad=True)
    inputs = [queries, *model.parameters()]
    answers = model.predict(queries, model.encode_context(xs, ys))
    expected = predict_each_as_the_last_point(model, xs, ys, queries, None)
    torch.testing.assert_close(answers, expected, rtol=1e-4, atol=1e-5)
    gradients, expected = (torch.autograd.grad(each.square().sum(), inputs) for each in (answers, expected))
    torch.testing.assert_close(gradients, expected, rtol=1e-3, atol=1e-5)


def test_asking_leaves_the_context_as_it_is(make_model, examples):
    model = make_model()
    context = model.encode_context(examples["xs"], examples["ys"])
    before = [(layer.keys.clone(), layer.values.clone()) for layer in context.layers]
    first, second = (model.predict(torch.zeros(2, 4, 3), context) for _ in range(2))
    assert torch.equal(first, second)
    for layer, (keys, values) in zip(context.layers, before, strict=True):
        assert torch.equal(layer.keys, keys)
        assert torch.equal(layer.values, values)


def test_a_context_grows_example_by_example(make_model, examples):
    model = make_model()
    xs, ys, queries = examples["xs"], examples["ys"], torch.randn(2, 3, 3)
    context = model.encode_context(xs[:, :1], ys[:, :1], n_loops=5)
    for i in range(1, 6):
        expected = model.predict(queries, model.encode_context(xs[:, :i], ys[:, :i], n_loops=5))
        torch.testing.assert_close(model.predict(queries, context), expected, rtol=1e-4, atol=1e-5)
        assert model.encode_context(xs[:, i : i + 1], ys[:, i : i + 1], context=context) is context
    assert context.get_seq_length() == 12


BAD_CALLS = {
    "NaN": (lambda m, c: m.predict(torch.full((2, 1, 3), float("nan")), c), "`xs_query` must be finite"),
    "list": (lambda m, c: m.predict([[1.0]], c), "`xs_query` must be a torch.Tensor, got list"),
    "no query": (lambda m, c: m.predict(torch.zeros(2, 0, 3), c), r"`xs_query` must have shape .* got \(2, 0, 3\)"),
    "n_dims": (lambda m, c: m.predict(torch.zeros(2, 1, 4), c), r"n_dims = 3\), .* got \(2, 1, 4\)"),
    "other batch": (lambda m, c: m.predict(torch.zeros(3, 1, 3), c), "batch size of `context` is 2, got .* for 3"),
    "no context": (lambda m, c: m.predict(torch.zeros(2, 1, 3), None), "`context` must be what `encode_context`"),
    "empty cache": (lambda m, c: m.predict(torch.zeros(2, 1, 3), DynamicCache()), "`context` must be what"),
    "no examples": (
        lambda m, c: m.encode_context(torch.zeros(2, 0, 3), torch.zeros(2, 0)),
        r"`xs` must have shape .* got \(2, 0, 3\)",
    ),
    "query left out": (
        lambda m, c: m.encode_context(torch.zeros(2, 3, 3), torch.zeros(2, 2)),
        r"`ys` must have shape \(2, 3\), got \(2, 2\)",
    ),
    "no room for a query": (
        lambda m, c: m.encode_context(torch.zeros(2, 7, 3), torch.zeros(2, 7)),
        "`xs` must hold 1 to 6 points",
    ),
    "full": (
        lambda m, c: m.encode_context(torch.zeros(2, 1, 3), torch.zeros(2, 1), context=c),
        "`xs` must be left out: no example more fits before a query into `n_positions` = 14 tokens, got 1",
    ),
    "loops per row": (
        lambda m, c: m.encode_context(torch.zeros(2, 1, 3), torch.zeros(2, 1), n_loops=torch.tensor([2, 3])),
        r"`n_loops` must be one integer for the whole context, got a tensor of shape \(2,\)",
    ),
    "other depth": (
        lambda m, c: m.encode_context(
            torch.zeros(2, 1, 3),
            torch.zeros(2, 1),
            n_loops=3,
            context=m.encode_context(torch.zeros(2, 1, 3), torch.zeros(2, 1)),
        ),
        "4 slots, 4 loops .* `n_loops` = 3: go on with as many loops",
    ),
}


@pytest.mark.parametrize("name", BAD_CALLS)
def test_a_bad_call_is_refused_by_name(make_model, examples, name):
    call, message = BAD_CALLS[name]
    model = make_model()
    context = model.encode_context(examples["xs"], examples["ys"])
    with pytest.raises(ValueError, match=message):
        call(model, context)
    assert context.get_seq_length() == 12


def test_a_full_context_takes_no_example(make_model, prompts):
    model = make_model(n_positions=9)
    xs, ys = prompts["xs"][:, :4], prompts["ys"][:, :4]
    context = model.encode_context(xs, ys)
    with pytest.raises(
        ValueError, match=r"`xs` must be left out: no example more fits .* = 9 tokens, got 1. Encode fewer"
    ):
        model.encode_context(xs[:, :1], ys[:, :1], context=context)
