"""The one loader: the right model whole, or one line that says what is wrong."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import GPT2Config, GPT2LMHeadModel

from modeling_looped_gpt2 import (
    LoopedGPT2ForInContextClassification,
    LoopedGPT2ForInContextRegression,
    LoopedGPT2LMHeadModel,
)
from scripts.common import model_loading
from scripts.common.model_loading import ModelError, load_model, state_digest, weights_digest


@pytest.fixture
def folder(make_model, tmp_path):
    make_model().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def refused(name, match, **settings):
    with pytest.raises(ModelError, match=match) as error:
        load_model(name, **settings)
    assert "\n" not in str(error.value)


def test_a_folder_is_loaded_by_the_projects_class_whatever_code_lies_in_it(folder, make_model, prompts):
    for path in folder.glob("*.py"):
        path.write_text("raise AssertionError('run')")
    model = load_model(folder)
    assert type(model) is LoopedGPT2ForInContextRegression
    assert not model.training
    xs, ys = prompts["xs"], prompts["ys"]
    torch.testing.assert_close(model(xs, ys).predictions, make_model()(xs, ys).predictions)


def test_the_code_of_a_folder_runs_where_it_is_trusted(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    model = load_model(folder, trust_remote_code=True)
    assert type(model) is not LoopedGPT2ForInContextRegression
    assert type(model).__name__ == "LoopedGPT2ForInContextRegression"


def test_another_class_is_refused(folder, make_config, tmp_path):
    refused(folder, "must hold a LoopedGPT2LMHeadModel", model_class=LoopedGPT2LMHeadModel)
    LoopedGPT2LMHeadModel(make_config(vocab_size=9)).save_pretrained(tmp_path / "language")
    refused(tmp_path / "language", "got LoopedGPT2LMHeadModel")
    LoopedGPT2ForInContextClassification(make_config()).save_pretrained(tmp_path / "classes")
    refused(tmp_path / "classes", "got LoopedGPT2ForInContextClassification")
    GPT2LMHeadModel(GPT2Config(n_embd=8, n_head=2, n_layer=1, vocab_size=9)).save_pretrained(tmp_path / "gpt2")
    refused(tmp_path / "gpt2", "got GPT2LMHeadModel")


def change_weights(folder, change):
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda weights: weights.pop("read_out.weight"), "missing keys read_out.weight"),
        (lambda weights: weights.update(more=torch.ones(2)), "unexpected keys more"),
        (lambda weights: weights.update({"read_out.bias": torch.ones(2)}), "mismatched keys .*read_out.bias"),
        (lambda weights: weights["read_in.bias"].fill_(float("nan")), "must be finite"),
        (lambda weights: weights["read_in.bias"].fill_(float("inf")), "must be finite"),
    ],
)
def test_weights_that_are_not_whole_are_refused(folder, change, match):
    change_weights(folder, change)
    refused(folder, match)


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "null", "{}", '{"model_type": "looped_gpt2"}', '{"model_type": 3}']
)
def test_a_damaged_configuration_is_refused(folder, content):
    (folder / "config.json").write_text(content)
    refused(folder, "model")


@pytest.mark.parametrize(
    "change", [{"n_loops": 0}, {"n_embd": "wide"}, {"n_embd": 64}, {"n_layer": 2}, {"n_dims": 9}, {"n_head": 5}]
)
def test_a_configuration_that_does_not_fit_is_refused(folder, change):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))
    refused(folder, "model")


@pytest.mark.parametrize("length", [0, 5, 100, -1])
def test_truncated_weights_are_refused(folder, length):
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[:length])
    refused(folder, "cannot be loaded")


def test_what_can_only_be_a_folder_is_not_looked_up_on_the_hub(tmp_path, monkeypatch):
    monkeypatch.setattr(model_loading.LoopedGPT2Config, "get_config_dict", lambda *_, **__: pytest.fail("asked"))
    monkeypatch.chdir(tmp_path)
    assert not (tmp_path / "runs").exists()
    refused("runs/liner", "there is no folder")
    (tmp_path / "runs").mkdir()
    (tmp_path / "weights").write_text("")
    for name in (str(tmp_path / "linear"), "./linear", "../linear", "~/linear", "runs/liner", "a/b/c", "linear"):
        refused(name, "there is no folder")
    refused("weights", "is a file")
    refused("runs", "holds no config.json")


def test_a_repository_that_is_not_there_is_refused(hub):
    refused("ana/nothing", "ana/nothing cannot be loaded")
    refused("ana/no thing", "cannot be loaded")


def test_the_digest_of_weights_tells_models_apart_and_files_not(make_model, tmp_path):
    model = make_model()
    digest = weights_digest(model)
    model.save_pretrained(tmp_path)
    assert weights_digest(type(model).from_pretrained(tmp_path)) == digest
    with torch.no_grad():
        model.read_out.bias += 1e-6
    assert weights_digest(model) != digest


def test_the_digest_of_a_model_is_that_of_its_file(make_model, make_config, tmp_path):
    for name, model in (("points", make_model()), ("tokens", LoopedGPT2LMHeadModel(make_config(vocab_size=9)))):
        model.save_pretrained(tmp_path / name)
        assert weights_digest(model) == state_digest(load_file(tmp_path / name / "model.safetensors"))
