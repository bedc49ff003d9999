"""Arguments that nothing reads are refused by name, whoever is asked; those that transformers passes are taken."""

import json

import pytest
import torch
from transformers import GenerationConfig, GPT2Config, GPT2LMHeadModel

from modeling_looped_gpt2 import LoopedGPT2Config, LoopedGPT2ForInContextClassification, LoopedGPT2LMHeadModel


KINDS = ("backbone", "language model", "regression", "classification")


@pytest.fixture
def make_call(make_lm, make_model, make_config, prompts, batch):
    """A model of each kind and the inputs of a call."""

    def make(kind):
        if kind == "regression":
            return make_model(), {"xs": prompts["xs"], "ys": prompts["ys"]}
        if kind == "classification":
            model = LoopedGPT2ForInContextClassification(make_config()).eval()
            return model, {"xs": prompts["xs"], "ys": (prompts["ys"] > 0).long()}
        model = make_lm()
        return (model, batch) if kind == "language model" else (model.transformer, batch)

    return make


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("name", "close"),
    [
        ("n_loop", "n_loops"),
        ("exit_tol", "exit_tolerance"),
        ("loop_windows", "loop_window"),
        ("output_hidden_state", "output_hidden_states"),
    ],
)
def test_a_misspelt_name_is_refused_with_the_one_that_was_meant(make_call, kind, name, close):
    model, inputs = make_call(kind)
    expected = f"`{name}` is not an argument of {type(model).__name__}.forward, did you mean `{close}`"
    for mode in (model.eval(), model.train()):
        with pytest.raises(TypeError, match=expected):
            mode(**inputs, **{name: 100})


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        ("regression", "output_loop_prediction", True),
        ("regression", "output_loop_logits", True),
        ("regression", "attention_mask", torch.ones(4, 9)),
        ("regression", "past_key_values", None),
        ("regression", "use_cache", True),
        ("classification", "output_loop_predictions", True),
        ("classification", "cache", None),
        ("language model", "output_loop_hidden_states", True),
        ("language model", "token_type_ids", torch.zeros(2, 7)),
        ("backbone", "labels", torch.zeros(2, 7)),
        ("backbone", "xyz", 1),
    ],
)
def test_what_a_model_does_not_do_is_refused(make_call, kind, name, value):
    model, inputs = make_call(kind)
    with pytest.raises(TypeError, match=f"`{name}` is not an argument of {type(model).__name__}.forward"):
        model(**inputs, **{name: value})


@pytest.mark.parametrize("kind", KINDS)
def test_what_transformers_hands_to_any_model_is_taken(make_call, kind):
    model, inputs = make_call(kind)
    expected = model(**inputs)[0]
    shared = {"output_attentions": False, "output_hidden_states": True, "return_dict": False}
    outputs = model(**inputs, **shared, num_items_in_batch=None, cu_seq_lens_q=None)
    assert torch.equal(outputs[0], expected)
    assert isinstance(outputs, tuple)


def test_arguments_of_the_loss_are_taken(make_lm, batch):
    ids = batch["input_ids"]
    ahead = torch.nn.functional.pad(ids[:, 1:], (0, 1), value=-100)
    model = make_lm()
    expected = model(**batch, labels=ids).loss
    torch.testing.assert_close(model(**batch, labels=torch.zeros_like(ids), shift_labels=ahead).loss, expected)
    ignored = model(**batch, labels=ids.masked_fill(ids == 5, 22), ignore_index=22).loss
    torch.testing.assert_close(ignored, model(**batch, labels=ids.masked_fill(ids == 5, -100)).loss)


def test_generation_refuses_what_it_does_not_know(make_lm, batch):
    model = make_lm()
    with pytest.raises(ValueError, match="n_loop"):
        model.generate(**batch, n_loop=2, max_new_tokens=2)
    for name, close in (("n_loop", "n_loops"), ("exit_tol", "exit_tolerance"), ("loop_per_slot", "loops_per_slot")):
        config = GenerationConfig(max_new_tokens=2, **{name: 2})
        with pytest.raises(ValueError, match=f"`{name}` of the `GenerationConfig` .* did you mean `{close}`"):
            model.generate(**batch, generation_config=config)
    model.generate(**batch, generation_config=GenerationConfig(max_new_tokens=2, note_of_the_user="kept"))


def test_contexts_refuse_what_they_do_not_know(make_model, prompts):
    model = make_model()
    with pytest.raises(TypeError, match="n_loop"):
        model.encode_context(prompts["xs"], prompts["ys"], n_loop=2)
    with pytest.raises(TypeError, match="n_loops"):
        model.predict(prompts["xs"], model.encode_context(prompts["xs"], prompts["ys"]), n_loops=2)


@pytest.mark.parametrize(
    ("name", "close"),
    [
        ("n_loop", "n_loops"),
        ("num_loops", "n_loops"),
        ("n_preludes", "n_prelude"),
        ("input_inject", "input_injection"),
        ("n_embed", "n_embd"),
        ("attn_drop", "attn_pdrop"),
        ("layer_norm_eps", "layer_norm_epsilon"),
    ],
)
def test_a_misspelt_field_is_refused(name, close, tmp_path):
    expected = f"`{name}` is not a field of LoopedGPT2Config, did you mean `{close}`"
    with pytest.raises(ValueError, match=expected):
        LoopedGPT2Config(**{name: 1})
    LoopedGPT2Config().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=expected):
        LoopedGPT2Config.from_pretrained(tmp_path, **{name: 1})
    gpt2 = GPT2LMHeadModel(GPT2Config(vocab_size=7, n_embd=8, n_head=2, n_layer=1))
    with pytest.raises(ValueError, match=expected):
        LoopedGPT2LMHeadModel.from_gpt2(gpt2, **{name: 1})


def test_a_misspelt_field_is_refused_when_a_model_is_loaded(make_lm, tmp_path):
    make_lm().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="`n_loop` is not a field of LoopedGPT2Config, did you mean `n_loops`"):
        LoopedGPT2LMHeadModel.from_pretrained(tmp_path, n_loop=3)
    assert LoopedGPT2LMHeadModel.from_pretrained(tmp_path, n_loops=3).config.n_loops == 3


def test_fields_of_other_versions_are_kept(tmp_path, monkeypatch):
    """A `config.json` may be older or newer than transformers, and a user may add what is of use elsewhere."""
    extra = {"n_ctx": 1024, "sep_token_id": 3, "tie_encoder_decoder": False, "note": "mine"}
    for name, value in extra.items():
        assert getattr(LoopedGPT2Config(**{name: value}), name) == value
    config = LoopedGPT2Config(n_loops=3)
    config.save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | extra | {"n_loopz": 9}))
    said = []
    monkeypatch.setattr("modeling_looped_gpt2.configuration_looped_gpt2.logger.warning", said.append)
    loaded = LoopedGPT2Config.from_pretrained(tmp_path)
    assert said == ["`n_loopz` is not a field of LoopedGPT2Config, did you mean `n_loops`?"]
    assert loaded.n_loops == 3
    assert loaded.note == "mine"
    assert LoopedGPT2Config(**loaded.to_dict()).note == "mine"
