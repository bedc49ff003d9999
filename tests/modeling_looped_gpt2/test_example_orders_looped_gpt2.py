"""Examples as a set: they all see each other, queries see them and themselves, and nothing has a place."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from torch import nn

from modeling_looped_gpt2 import LoopedGPT2ForInContextClassification, LoopedGPT2ForInContextRegression
from modeling_looped_gpt2.estimator_looped_gpt2 import InContextClassifier, InContextRegressor
from modeling_looped_gpt2.example_orders_looped_gpt2 import EXAMPLE_ORDERS, order_of
from modeling_looped_gpt2.pipeline_looped_gpt2 import InContextRegressionPipeline
from tests.modeling_looped_gpt2.untied import UntiedLoops


CLOSE = {"rtol": 1e-4, "atol": 1e-5}
N_EXAMPLES = 5
HEADS = {
    "regression": (LoopedGPT2ForInContextRegression, "predictions"),
    "classification": (LoopedGPT2ForInContextClassification, "logits"),
}


@pytest.fixture
def make_set(make_config):
    def make(kind="regression", **changes):
        torch.manual_seed(0)
        return HEADS[kind][0](make_config(**({"example_order": "set", "num_labels": 4} | changes))).eval()

    return make


def points(kind, n_examples=N_EXAMPLES, n_points=8):
    """Points of three prompts with the ys of their examples, and labels of their queries."""
    generator = torch.Generator().manual_seed(1)
    xs, values = (torch.randn(shape, generator=generator) for shape in ((3, n_points, 3), (3, n_points)))
    values = values if kind == "regression" else (2 * values).long().remainder(4)
    return {"xs": xs, "ys": values[:, :n_examples], "labels": values[:, n_examples:]}


def answers_of(model, kind, xs, ys, **options):
    return model(xs, ys, **options)[HEADS[kind][1]]


class Twin(UntiedLoops):
    """Stock blocks with weights of their own for every loop; a query runs with the examples alone, nothing masked."""

    def embed(self, x, y):
        head = self.head
        if hasattr(head, "embed_class"):
            return head.read_in(x) + head.embed_class(y)
        return head.read_in(x) + head.read_in_y(y[..., None])

    def forward(self, xs, ys):
        """Answers `(B, L, Q, ...)`."""
        n_examples = ys.shape[1]
        by_query = []
        for query in xs[:, n_examples:].unbind(1):
            examples = self.embed(xs[:, :n_examples], ys)
            by_query.append(self.run(torch.cat((examples, self.head.read_in(query)[:, None]), dim=1)))
        return torch.stack(by_query, dim=2)

    def run(self, prompt):
        n_tokens = prompt.shape[1]
        mask = torch.zeros(n_tokens, n_tokens)
        mask[:-1, -1] = torch.finfo(mask.dtype).min  # the examples do not see the query
        state, answers = torch.zeros_like(prompt), []
        for blocks, norm in zip(self.loops, self.norms, strict=True):
            state = state + prompt + self.head.transformer.wpe.weight[0]
            for block in blocks:
                state = block(state, attention_mask=mask[None, None])
            state = norm(state)
            answers.append(self.read_out(state[:, -1]))
        return torch.stack(answers, dim=1)

    def read_out(self, state):
        return self.head.score(state) if hasattr(self.head, "score") else self.head.read_out(state)[..., 0]

    def summed_gradients(self):
        """Gradients by the looped model's names, those of the copies added up."""
        sums = {name: parameter.grad for name, parameter in self.head.named_parameters()}
        for part, copies in (("h", self.loops), ("ln_f", self.norms)):
            for twin in copies:
                for name, parameter in twin.named_parameters():
                    key = f"transformer.{part}.{name}"
                    sums[key] = parameter.grad if sums.get(key) is None else sums[key] + parameter.grad
        return sums


@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("n_examples", [0, N_EXAMPLES, 7])
def test_losses_and_gradients_are_those_of_the_twin(make_set, kind, n_examples):
    model, batch = make_set(kind, n_layer=2).train(), points(kind, n_examples)
    twin = Twin(model, 3)
    outputs = model(**batch, n_loops=3, **{f"output_loop_{HEADS[kind][1]}": True})
    expected = twin(batch["xs"], batch["ys"])
    torch.testing.assert_close(outputs[f"loop_{HEADS[kind][1]}"], expected, **CLOSE)
    labels = batch["labels"][:, None].expand(expected.shape[:3])
    if kind == "regression":
        loss = (expected - labels).square().mean()
    else:
        loss = nn.functional.cross_entropy(expected.flatten(0, 2), labels.flatten())
    torch.testing.assert_close(outputs.loss, loss, **CLOSE)
    outputs.loss.backward()
    loss.backward()
    gradients = twin.summed_gradients()
    for name, parameter in model.named_parameters():
        expected = torch.zeros_like(parameter) if gradients[name] is None else gradients[name]
        torch.testing.assert_close(parameter.grad, expected, rtol=1e-3, atol=1e-5, msg=name)


@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("shape", [{}, {"n_prelude": 1, "n_coda": 1}, {"input_injection": "multiply"}])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_examples_and_queries_have_no_order(make_set, kind, shape, attention):
    model, batch = make_set(kind, attn_implementation=attention, **shape), points(kind)
    xs, ys = batch["xs"], batch["ys"]
    examples, queries = torch.tensor([3, 0, 4, 1, 2]), torch.tensor([7, 5, 6])
    before = answers_of(model, kind, xs, ys)
    shuffled = answers_of(model, kind, xs[:, torch.cat((examples, queries))], ys[:, examples])
    torch.testing.assert_close(shuffled, before[:, queries - N_EXAMPLES], **CLOSE)
    changed = ys.clone()
    changed[:, -1] = (changed[:, -1] + 1) % 4
    assert not torch.allclose(answers_of(model, kind, xs, changed), before, atol=1e-3)
    alone = torch.cat([answers_of(model, kind, xs[:, [*range(N_EXAMPLES), q]], ys) for q in (5, 6, 7)], dim=1)
    torch.testing.assert_close(alone, before, **CLOSE)


@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("shape", [{}, {"n_prelude": 1, "n_layer": 2, "n_coda": 1}, {"input_injection": "none"}])
def test_a_context_answers_as_whole_prompts_do(make_set, kind, shape):
    model, batch = make_set(kind, **shape), points(kind)
    xs, ys = batch["xs"], batch["ys"]
    for n_loops in (1, 5):
        context = model.encode_context(xs[:, :N_EXAMPLES], ys, n_loops=n_loops)
        assert context.get_seq_length() == N_EXAMPLES
        found = model.predict(xs[:, N_EXAMPLES:], context)
        torch.testing.assert_close(found, answers_of(model, kind, xs, ys, n_loops=n_loops), **CLOSE)
    with pytest.raises(ValueError, match=r"`context` must be left out with `example_order='set'`"):
        model.encode_context(xs[:, :1], ys[:, :1], context=context)
    assert context.get_seq_length() == N_EXAMPLES


def test_gradients_flow_through_a_context(make_set):
    model, batch = make_set(), points("regression")
    xs, ys = batch["xs"], batch["ys"]
    model.predict(xs[:, N_EXAMPLES:], model.encode_context(xs[:, :N_EXAMPLES], ys)).square().sum().backward()
    gradients = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    model(xs, ys).predictions.square().sum().backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-3, atol=1e-4, msg=name)


@pytest.mark.parametrize("kind", HEADS)
def test_a_query_at_every_point_has_the_points_before_it_as_examples(make_set, kind):
    model = make_set(kind)
    xs, ys = points(kind, 8)["xs"], points(kind, 8)["ys"]
    queries = torch.randn(3, 8, 3)
    expected = [answers_of(model, kind, torch.cat((xs[:, :n], queries[:, n:]), dim=1), ys[:, :n]) for n in range(8)]
    expected = torch.stack([answers[:, 0] for answers in expected], dim=1)
    for given in (ys, ys[:, :-1]):
        torch.testing.assert_close(model.predict_at_queries(xs, given, queries), expected, **CLOSE)
    with pytest.raises(ValueError, match=r"`ys` must have shape \(3, 8\), or \(3, 7\) when"):
        model.predict_at_queries(xs, ys[:, :4], queries)


def test_each_prompt_runs_its_own_loops(make_set):
    model, batch = make_set(), points("regression")
    xs, ys = batch["xs"], batch["ys"]
    counts = [1, 6, 3]
    outputs = model(xs, ys, n_loops=torch.tensor(counts))
    assert outputs.n_loops_used.tolist() == counts
    alone = torch.cat([model(xs[i : i + 1], ys[i : i + 1], n_loops=n).predictions for i, n in enumerate(counts)])
    torch.testing.assert_close(outputs.predictions, alone, **CLOSE)


@pytest.mark.parametrize("n_queries", [1, 3])
def test_a_prompt_ends_once_its_queries_have_settled_together(make_set, n_queries):
    model = make_set()
    xs, ys = points("regression")["xs"][:, : N_EXAMPLES + n_queries], points("regression")["ys"]
    outputs = model(xs, ys, n_loops=60, exit_tolerance=0.01)
    for row, used in enumerate(outputs.n_loops_used.tolist()):
        assert 1 < used < 60
        states = model(xs, ys, n_loops=used, output_loop_hidden_states=True).loop_hidden_states
        states = [state[row, N_EXAMPLES:] for state in states]
        changes = [((now - old).norm() / now.norm()).item() for old, now in pairwise(states)]
        assert changes[-1] < 0.01
        assert all(change >= 0.01 for change in changes[:-1])


def test_a_model_in_turn_is_as_it_was(make_model, prompts):
    torch.manual_seed(0)
    default, named = make_model(), make_model(example_order="causal")
    assert list(default.state_dict()) == list(named.state_dict())
    assert "read_in_y.weight" not in default.state_dict()
    assert torch.equal(default(**prompts).predictions, named(**prompts).predictions)
    body = default.transformer
    seen = []
    body.register_forward_pre_hook(lambda module, args, kwargs: seen.append(kwargs), with_kwargs=True)
    default(**prompts)
    assert not {"attention_mask", "position_ids"} & seen[0].keys()  # the arguments of any text


def test_a_set_has_a_token_per_point(make_set, make_model):
    model = make_set(n_positions=14)
    xs, ys = torch.randn(2, 14, 3), torch.randn(2, 13)
    assert model.max_examples == 13
    assert make_model(n_positions=14).max_examples == 6
    assert model(xs, ys, output_loop_hidden_states=True).loop_hidden_states[0].shape == (2, 14, 32)
    assert model.predict(xs[:, 13:], model.encode_context(xs[:, :13], ys)).shape == (2, 1)
    for order in EXAMPLE_ORDERS.values():
        for n_points in (1, 5):
            assert order.n_tokens(2 * n_points) >= order.n_tokens(2 * n_points - 1)
            assert order.max_examples(order.n_tokens(2 * n_points - 1)) == n_points - 1


def test_vectors_are_read_in_and_out(make_set):
    model = make_set(n_outputs=2)
    xs, ys = torch.randn(2, 6, 3), torch.randn(2, 4, 2)
    outputs = model(xs, ys, labels=torch.randn(2, 2, 2))
    assert outputs.predictions.shape == (2, 2, 2)
    context = model.encode_context(xs[:, :4], ys)
    torch.testing.assert_close(model.predict(xs[:, 4:], context), outputs.predictions, **CLOSE)


def gradients(model, batch):
    model.zero_grad()
    model(**batch, loop_window=2).loss.backward()
    return torch.cat([parameter.grad.flatten() for parameter in model.parameters()])


def test_checkpointing_gives_the_same_gradients(make_set):
    model, batch = make_set().train(), points("regression")
    expected = gradients(model, batch)
    getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)()
    torch.testing.assert_close(gradients(model, batch), expected, rtol=1e-4, atol=1e-6)


def test_bfloat16_is_near(make_set):
    model, batch = make_set().train(), points("regression")
    expected = gradients(model, batch)
    with torch.autocast("cpu", torch.bfloat16):
        found = gradients(model, batch)
    # 4 blocks round twelve results each, and as many gradients, by 2^-9 at most; the errors add up like a random walk
    assert (found - expected).norm() / expected.norm() < 2 * math.sqrt(2 * 4 * 12) * 2**-9


def test_a_set_is_learned_from(make_set):
    model = make_set("classification", n_loops=3).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(60):
        xs = torch.randn(32, 8, 3)
        ys = (xs[..., 0] > 0).long() + 2  # the same rule in every prompt: classes 2 and 3
        loss = model(xs, ys[:, :4], labels=ys[:, 4:]).loss
        losses.append(loss.item())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1] < 0.6 * losses[0]


def test_estimators_answer_whatever_the_order_of_rows(make_set, data):
    X, y, queries = data
    labels = np.where(y > np.median(y), "high", "low")
    shuffle = np.array([3, 1, 5, 0, 4, 2])
    for estimator, target in (
        (InContextRegressor(make_set(), y_std=1.0), y),
        (InContextClassifier(make_set("classification")), labels),
    ):
        ask = getattr(estimator, "predict_proba", estimator.predict)
        first = estimator.fit(X, target) and ask(queries)
        second = estimator.fit(X[shuffle], target[shuffle]) and ask(queries)
        np.testing.assert_allclose(first, second, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"exit_tolerance": 0.01, "n_loops": 60}])
def test_the_pipeline_answers(make_set, options):
    model = make_set()
    xs, ys = torch.randn(1, 6, 3), torch.randn(1, 4)
    examples = [[x, y] for x, y in zip(xs[0, :4].tolist(), ys[0].tolist(), strict=True)]
    answer = InContextRegressionPipeline(model)({"examples": examples, "queries": xs[0, 4:].tolist()}, **options)
    expected = [model(xs[:, [0, 1, 2, 3, query]], ys, **options).predictions[0, 0].item() for query in (4, 5)]
    assert answer["predictions"] == pytest.approx(expected, abs=1e-5)


BAD = {
    "no query": (
        lambda m, xs, ys: m(xs, torch.randn(3, 8)),
        r"`ys` must have shape \(3, 0\) to \(3, 7\), a y for each",
    ),
    "labels of all": (lambda m, xs, ys: m(xs, ys, labels=torch.randn(3, 8)), r"`labels` must have shape \(3, 3\)"),
    "too long": (
        lambda m, xs, ys: m(torch.randn(3, 15, 3), ys),
        r"`xs` must hold 1 to 14 points \(`n_positions` = 14 tokens, one per point\), got 15",
    ),
    "too long a context": (
        lambda m, xs, ys: m.encode_context(torch.randn(3, 14, 3), torch.randn(3, 14)),
        "`xs` must hold 1 to 13 points",
    ),
    "NaN": (lambda m, xs, ys: m(xs, ys * torch.nan), "`ys` must be finite"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_prompts_are_refused_by_name(make_set, name):
    call, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        call(make_set(), points("regression")["xs"], points("regression")["ys"])


def test_padding_is_refused(make_set):
    with pytest.raises(TypeError, match="`attention_mask` is not an argument of LoopedGPT2ForInContextRegression"):
        make_set()(**points("regression"), attention_mask=torch.ones(3, 8))


def test_an_unknown_order_is_refused(make_config):
    with pytest.raises(
        StrictDataclassError, match=r"`example_order` must be one of \('causal', 'set', 'cells'\), got 'sets'"
    ):
        make_config(example_order="sets")
    assert order_of(object()) is EXAMPLE_ORDERS["causal"]  # code beside the weights may be of an older version
