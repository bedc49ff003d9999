"""Values y that are vectors of `n_outputs` numbers. Those that are numbers: `test_modeling_looped_gpt2.py`."""

import pytest
import torch

from modeling_looped_gpt2 import LoopedGPT2ForInContextRegression


@pytest.fixture
def model(make_model):
    return make_model(n_outputs=2)


@pytest.fixture
def vectors():
    generator = torch.Generator().manual_seed(0)
    names = {"xs": 3, "ys": 2, "labels": 2}
    return {name: torch.randn(4, 5, n, generator=generator) for name, n in names.items()}


def test_predictions_and_loss_are_of_all_numbers_of_every_loop_of_the_window(model, vectors):
    outputs = model(**vectors, loop_window=3, output_loop_predictions=True)
    assert outputs.predictions.shape == (4, 5, 2)
    assert outputs.loop_predictions.shape == (4, 3, 5, 2)
    alone = torch.stack([model(vectors["xs"], vectors["ys"], n_loops=n).predictions for n in (2, 3, 4)], dim=1)
    torch.testing.assert_close(outputs.loop_predictions, alone)
    squares = [(alone[:, loop] - vectors["labels"]) ** 2 for loop in range(3)]
    torch.testing.assert_close(outputs.loss, torch.cat(squares).mean())


def test_a_vector_is_a_token_padded_with_zeros(model, vectors):
    read = []
    hook = model.read_in.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0]))
    model(vectors["xs"], vectors["ys"])
    hook.remove()
    (tokens,) = read
    assert torch.equal(tokens[:, ::2], vectors["xs"])
    assert torch.equal(tokens[:, 1::2, :2], vectors["ys"][:, :4])
    assert not tokens[:, 1::2, 2:].any()


def test_predictions_depend_on_every_number_of_earlier_values_only(model, vectors):
    before = model(vectors["xs"], vectors["ys"]).predictions
    for number in range(2):
        changed = vectors["ys"].clone()
        changed[:, 2, number] += 1
        after = model(vectors["xs"], changed).predictions
        assert torch.equal(after[:, :3], before[:, :3])
        assert ((after[:, 3:] - before[:, 3:]).abs() > 1e-4).all()
    assert torch.equal(model(vectors["xs"], vectors["ys"][:, :-1]).predictions, before)


def test_contexts_and_queries_answer_as_whole_prompts_do(model, vectors):
    xs, ys, queries = vectors["xs"], vectors["ys"], torch.randn(4, 5, 3)
    context = model.encode_context(xs[:, :2], ys[:, :2], n_loops=3)
    context = model.encode_context(xs[:, 2:4], ys[:, 2:4], context=context)
    by_loop = model.predict(queries, context, output_loop_predictions=True)
    at_queries = model.predict_at_queries(xs, ys, queries, n_loops=3)
    for i in range(5):
        query = queries[:, i : i + 1]
        expected = model(torch.cat((xs[:, :4], query), dim=1), ys[:, :4], n_loops=3, output_loop_predictions=True)
        torch.testing.assert_close(by_loop[:, :, i], expected.loop_predictions[:, :, -1], rtol=1e-4, atol=1e-5)
        expected = model(torch.cat((xs[:, :i], query), dim=1), ys[:, :i], n_loops=3).predictions[:, -1]
        torch.testing.assert_close(at_queries[:, i], expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(model.predict(queries, context), by_loop[:, -1])


def test_a_saved_model_answers_with_the_same_bits(model, vectors, tmp_path):
    model.save_pretrained(tmp_path)
    loaded = LoopedGPT2ForInContextRegression.from_pretrained(tmp_path)
    assert loaded.config.n_outputs == 2
    assert torch.equal(loaded(**vectors).loss, model(**vectors).loss)


def test_one_number_needs_no_parameter_more(make_model):
    shapes = {name: tuple(parameter.shape) for name, parameter in make_model().named_parameters()}
    assert shapes["read_out.weight"] == (1, 32)
    assert shapes["read_out.bias"] == (1,)
    shapes |= {"read_out.weight": (3, 32), "read_out.bias": (3,)}
    assert {name: tuple(p.shape) for name, p in make_model(n_outputs=3).named_parameters()} == shapes


BAD_CALLS = {
    "numbers as ys": ({"ys": torch.zeros(4, 5)}, r"`ys` must have shape \(4, 5, 2\), or \(4, 4, 2\) .* got \(4, 5\)"),
    "three numbers": ({"ys": torch.zeros(4, 5, 3)}, r"`ys` must have shape \(4, 5, 2\), .* got \(4, 5, 3\)"),
    "numbers as labels": ({"labels": torch.zeros(4, 5)}, r"`labels` must have shape \(4, 5, 2\), got \(4, 5\)"),
    "a list as labels": ({"labels": [[[0.0] * 2] * 5] * 4}, "`labels` must be a torch.Tensor, got list"),
    "NaN in ys": ({"ys": torch.full((4, 5, 2), torch.nan)}, "`ys` must be finite"),
    "NaN in labels": ({"labels": torch.full((4, 5, 2), torch.nan)}, "`labels` must be finite"),
}


@pytest.mark.parametrize("name", BAD_CALLS)
def test_a_bad_call_is_refused_by_name(name, model, vectors):
    changes, message = BAD_CALLS[name]
    with pytest.raises(ValueError, match=message):
        model(**(vectors | changes))


def test_a_context_of_numbers_is_refused(model, vectors):
    with pytest.raises(ValueError, match=r"`ys` must have shape \(4, 5, 2\), got \(4, 4, 2\)"):
        model.encode_context(vectors["xs"], vectors["ys"][:, :4])
    with pytest.raises(ValueError, match=r"`ys` must have shape \(4, 5, 2\), got \(4, 5\)"):
        model.encode_context(vectors["xs"], vectors["ys"][..., 0])


def test_vectors_are_refused_by_a_model_of_numbers(make_model, vectors):
    with pytest.raises(ValueError, match=r"`ys` must have shape \(4, 5\), .* got \(4, 5, 2\)"):
        make_model()(vectors["xs"], vectors["ys"])
    with pytest.raises(ValueError, match=r"`labels` must have shape \(4, 5\), got \(4, 5, 2\)"):
        make_model()(vectors["xs"], vectors["ys"][..., 0], labels=vectors["labels"])
