"""Numbers that are finite and too large for the model are refused, wherever they enter, before they give an answer."""

import pytest
import torch

from modeling_looped_gpt2 import LoopedGPT2ForInContextClassification


@pytest.fixture(params=["regression", "classification"])
def make_head(request, make_model, make_config, prompts):
    """A head, xs and ys."""

    def make(**changes):
        if request.param == "regression":
            return make_model(**changes), prompts["xs"], prompts["ys"]
        model = LoopedGPT2ForInContextClassification(make_config(**changes)).eval()
        return model, prompts["xs"], (prompts["ys"] > 0).long()

    return make


def calls(model, xs, ys, factor):
    """All ways for xs to enter a model."""
    context = model.encode_context(xs, ys)
    return {
        "forward": lambda: model(xs * factor, ys),
        "one x": lambda: model(torch.cat((xs[:, :-1], xs[:, -1:] * factor), dim=1), ys),
        "labels": lambda: model(xs * factor, ys, labels=ys),
        "loops until settled": lambda: model(xs * factor, ys, exit_tolerance=0.1),
        "encode_context": lambda: model.encode_context(xs * factor, ys),
        "grown context": lambda: model.encode_context(xs[:, :1] * factor, ys[:, :1], context=context),
        "predict": lambda: model.predict(xs * factor, context),
    }


# from 1e19 the square of a float32 overflows, and a layer norm answers as if nothing had been said
@pytest.mark.parametrize("factor", [1e19, 1e20, 1e38])
def test_what_overflows_in_the_model_is_refused(make_head, factor):
    model, xs, ys = make_head(n_loops=2, n_positions=22)
    for name, call in calls(model, xs, ys, factor).items():
        with pytest.raises(ValueError, match=r"`xs` or `ys` are too large for a model in torch.float32.* Scale the"):
            pytest.fail(f"{name}: {call()}")


@pytest.mark.parametrize(("dtype", "factor"), [(torch.float32, 1e39), (torch.float16, 1e6), (torch.bfloat16, 1e39)])
def test_what_the_model_cannot_hold_is_refused(make_head, dtype, factor):
    model, xs, ys = make_head(n_loops=2, n_positions=22)
    for name, call in calls(model.to(dtype), xs.double(), ys, factor).items():
        expected = rf"`xs(_query)?` must be finite in the {dtype} of the model, got \d.*e\+\d+: scale it"
        with pytest.raises(ValueError, match=expected):
            pytest.fail(f"{name}: {call()}")


@pytest.mark.parametrize(
    ("factor", "expected"), [(1e39, "`ys` must be finite in"), (1e25, "`xs` or `ys` are too large")]
)
def test_huge_values_of_y_are_refused(make_model, prompts, factor, expected):
    model = make_model(n_loops=2)
    xs, ys = prompts["xs"], prompts["ys"].double() * factor
    for call in (model, model.encode_context):
        with pytest.raises(ValueError, match=expected):
            call(xs, ys)


def test_labels_that_are_not_finite_are_refused(make_model, prompts):
    model, labels = make_model(), prompts["labels"].double()
    for factor, expected in ((torch.nan, ", got NaN or infinity"), (1e39, " in the torch.float32 of the model, got")):
        with pytest.raises(ValueError, match=f"`labels` must be finite{expected}"):
            model(prompts["xs"], prompts["ys"], labels=labels * factor)


def test_the_last_y_of_a_context_is_looked_at(make_head):
    model, xs, ys = make_head()
    bad = ys.clone()
    bad[:, -1] = 7 if ys.dtype == torch.long else torch.nan
    model(xs, bad)  # a prompt does not look at its last y
    with pytest.raises(ValueError, match="`ys` must be"):
        model.encode_context(xs, bad)


def test_a_context_is_left_as_it_was(make_head, monkeypatch):
    model, xs, ys = make_head(n_positions=22)
    context = model.encode_context(xs, ys)
    expected = model.predict(xs, context)
    # what gets past the checks at the entrance
    monkeypatch.setattr(type(model), "_check_embeds", lambda self, embeds: embeds)
    with pytest.raises(ValueError, match="Scale the inputs"):
        model.encode_context(xs * 1e38, ys, context=context)
    assert context.get_seq_length() == 2 * xs.shape[1]
    assert torch.equal(model.predict(xs, context), expected)


def test_y_is_read_in_the_precision_of_the_model_not_of_x(make_model, prompts):
    model = make_model()
    xs, ys = prompts["xs"].half(), prompts["ys"] * 1e5  # more than a float16 holds
    assert torch.equal(model(xs, ys).predictions, model(xs.float(), ys).predictions)
    assert torch.equal(model(xs.float(), ys.double()).predictions, model(xs.float(), ys).predictions)


def test_weights_that_are_not_finite_are_named(make_head):
    model, xs, ys = make_head()
    with torch.no_grad():
        model.transformer.h[0].mlp.c_fc.weight.fill_(torch.nan)
    with pytest.raises(ValueError, match="or its weights are not finite"):
        model(xs, ys)


def test_training_looks_at_no_value(make_head):
    model, xs, ys = make_head()
    assert not model.train()(xs * 1e20, ys, labels=ys).loss.isfinite()


def test_a_depth_of_zero_is_no_depth(make_head):
    model, xs, ys = make_head(n_positions=22)
    with pytest.raises(ValueError, match="`n_loops` must be an integer >= 1, got 0"):
        model.encode_context(xs, ys, n_loops=0, context=model.encode_context(xs, ys))
