"""One query in the place of every point of a prompt, all of them asked at once."""

import pytest
import torch

from modeling_looped_gpt2 import LoopedGPT2ForInContextClassification


@pytest.fixture(params=["regression", "classification"])
def make_head(request, make_model, make_config):
    """A head, the answers in its output, and prompts of 6 points with a query in the place of each."""

    def make(**changes):
        xs, ys, xs_query = torch.randn(2, 6, 3), torch.randn(2, 6), torch.randn(2, 6, 3)
        if request.param == "regression":
            return make_model(**changes), "predictions", xs, ys, xs_query
        model = LoopedGPT2ForInContextClassification(make_config(num_labels=4, **changes)).eval()
        return model, "logits", xs, torch.randint(4, (2, 6)), xs_query

    return make


def ask_one_by_one(model, name, xs, ys, xs_query, n_loops):
    """The naive way: a shorter prompt for every query."""
    prompts = [torch.cat((xs[:, :i], xs_query[:, i : i + 1]), dim=1) for i in range(xs.shape[1])]
    answers = [model(prompt, ys[:, :i], n_loops=n_loops)[name][:, -1] for i, prompt in enumerate(prompts)]
    return torch.stack(answers, dim=1)


@pytest.mark.parametrize("injection", ["add", "multiply", "none"])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize(
    ("blocks", "n_loops"),
    [
        ({"n_layer": 1}, None),
        ({"n_layer": 2}, 7),
        ({"n_prelude": 1}, 3),
        ({"n_coda": 2}, 1),
        ({"n_prelude": 2, "n_layer": 2, "n_coda": 1}, 2),
    ],
)
def test_each_answer_is_that_of_a_shorter_prompt(make_head, injection, attention, blocks, n_loops):
    model, name, *points = make_head(input_injection=injection, attn_implementation=attention, **blocks)
    expected = ask_one_by_one(model, name, *points, n_loops)
    torch.testing.assert_close(model.predict_at_queries(*points, n_loops=n_loops), expected, rtol=1e-4, atol=1e-5)


def test_queries_that_are_the_points_give_the_answers_of_the_prompt(make_head):
    model, name, xs, ys, _ = make_head()
    torch.testing.assert_close(model.predict_at_queries(xs, ys, xs), model(xs, ys)[name], rtol=1e-4, atol=1e-5)


def test_gradients_are_those_of_shorter_prompts(make_head):
    model, name, *points = make_head(n_prelude=1)
    model.train()
    gradients = []
    for answers in (model.predict_at_queries(*points, n_loops=3), ask_one_by_one(model, name, *points, 3)):
        answers.square().sum().backward()
        gradients.append({name: parameter.grad.clone() for name, parameter in model.named_parameters()})
        model.zero_grad()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], rtol=1e-3, atol=1e-5, msg=name)


def test_neither_the_last_point_nor_another_query_is_seen(make_head):
    model, _, xs, ys, xs_query = make_head()
    before = model.predict_at_queries(xs, ys, xs_query)
    assert torch.equal(model.predict_at_queries(xs, ys[:, :-1], xs_query), before)
    xs, xs_query = xs.clone(), xs_query.clone()
    xs[:, 5] += 10
    xs_query[:, 2] += 10
    after = model.predict_at_queries(xs, ys, xs_query)
    others = [0, 1, 3, 4, 5]
    assert torch.equal(after[:, others], before[:, others])
    assert ((after[:, 2] - before[:, 2]).abs() > 1e-3).all()


def test_a_prompt_may_be_a_single_query_or_as_long_as_the_positions(make_head):
    model, name, xs, ys, xs_query = make_head(n_positions=11)
    torch.testing.assert_close(
        model.predict_at_queries(xs, ys, xs_query), ask_one_by_one(model, name, xs, ys, xs_query, None)
    )
    alone = model.predict_at_queries(xs[:, :1], ys[:, :0], xs_query[:, :1])
    torch.testing.assert_close(alone, model(xs_query[:, :1], ys[:, :0])[name])


BAD_CALLS = {
    "fewer queries": (
        lambda xs, ys, q: (xs, ys, q[:, :5]),
        r"`xs_query` must have the shape \(2, 6, 3\) of `xs`, got ",
    ),
    "another batch": (lambda xs, ys, q: (xs, ys, q[:1]), r"`xs_query` must have the shape .* got \(1, 6, 3\)"),
    "fewer dimensions": (lambda xs, ys, q: (xs, ys, q[..., :2]), r"`xs_query` must have shape .* got \(2, 6, 2\)"),
    "a list": (lambda xs, ys, q: (xs, ys, q.tolist()), "`xs_query` must be a torch.Tensor, got list"),
    "NaN": (lambda xs, ys, q: (xs, ys, q * torch.nan), "`xs_query` must be finite"),
    "integers": (lambda xs, ys, q: (xs, ys, q.long()), "`xs_query` must be floating point"),
    "NaN in xs": (lambda xs, ys, q: (xs * torch.nan, ys, q), "`xs` must be finite"),
    "too long": (
        lambda xs, ys, q: (xs.repeat(1, 2, 1), ys.repeat(1, 2), q.repeat(1, 2, 1)),
        "`xs` must hold 1 to 7 points",
    ),
    "too few ys": (lambda xs, ys, q: (xs, ys[:, :3], q), r"`ys` must have shape \(2, 6\), .* got \(2, 3\)"),
    "too large": (lambda xs, ys, q: (xs, ys, q * 1e30), "Scale the inputs"),
    "no loops": (lambda xs, ys, q: (xs, ys, q, 0), "`n_loops` must be an integer >= 1, got 0"),
}


@pytest.mark.parametrize("name", BAD_CALLS)
def test_a_bad_call_is_refused_by_name(name, make_head):
    change, message = BAD_CALLS[name]
    model, _, *points = make_head()
    with pytest.raises(ValueError, match=message):
        model.predict_at_queries(*change(*points))


@pytest.mark.parametrize("blocks", [{}, {"n_prelude": 1, "n_coda": 1}])
def test_each_prompt_has_the_answers_of_its_own_number_of_loops(make_head, blocks):
    model, name, xs, ys, xs_query = make_head(**blocks)
    n_loops = torch.tensor([5, 2])
    together, at_queries = model(xs, ys, n_loops=n_loops), model.predict_at_queries(xs, ys, xs_query, n_loops)
    assert torch.equal(together.n_loops_used, n_loops)
    for row, n in enumerate(n_loops.tolist()):
        alone = xs[[row]], ys[[row]]
        expected = model(*alone, n_loops=n)[name]
        torch.testing.assert_close(together[name][[row]], expected, rtol=1e-4, atol=1e-5)
        expected = model.predict_at_queries(*alone, xs_query[[row]], n)
        torch.testing.assert_close(at_queries[[row]], expected, rtol=1e-4, atol=1e-5)
