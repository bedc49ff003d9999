"""Runs that start from another model."""

import json
import os
import shutil

import pytest
import torch

from modeling_looped_gpt2 import (
    LoopedGPT2Config,
    LoopedGPT2ForInContextClassification,
    LoopedGPT2ForInContextRegression,
    LoopedGPT2LMHeadModel,
)
from scripts.training.initial_model import initial_weights
from scripts.training.run_folder import RunError


def test_a_run_starts_from_another_model(train, finished, tmp_path, weights):
    start = ("--initial_model", str(finished), "--learning_rate", "1e-12", "--muon_learning_rate", "1e-12")
    result = train(tmp_path / "run", *start)
    assert result.returncode == 0, result.stderr
    for name, value in weights(finished).items():
        torch.testing.assert_close(weights(tmp_path / "run")[name], value, rtol=0, atol=1e-9)
    records = [json.loads((folder / "environment.json").read_text()) for folder in (finished, tmp_path / "run")]
    assert records[1]["initial_model"]["flops"] == records[0]["flops"]


@pytest.fixture
def other_models(finished, tmp_path):
    """Folders that no in-context run can start from, by what is wrong with them."""
    classes = {"classifier": LoopedGPT2ForInContextClassification, "language model": LoopedGPT2LMHeadModel}
    folders = {name: tmp_path / name for name in (*classes, "truncated", "no config", "other heads", "no weights")}
    for name, model_class in classes.items():
        sizes = {"n_embd": 16, "n_head": 2, "n_positions": 10, "n_dims": 3, "n_loops": 4, "vocab_size": 8}
        model_class(LoopedGPT2Config(**sizes)).save_pretrained(folders[name])
    for name in ("truncated", "no config", "other heads", "no weights"):
        shutil.copytree(finished, folders[name])
    os.truncate(folders["truncated"] / "model.safetensors", 500)
    (folders["no config"] / "config.json").unlink()
    (folders["no weights"] / "model.safetensors").unlink()
    config = json.loads((folders["other heads"] / "config.json").read_text())
    (folders["other heads"] / "config.json").write_text(json.dumps(config | {"n_head": 4}))
    return folders | {"missing": tmp_path / "missing"}


def test_what_a_run_cannot_start_from_is_refused_before_anything_is_written(
    other_models, train_here, tmp_path, capsys
):
    for name, folder in other_models.items():
        assert train_here(tmp_path / "run", "--initial_model", folder) == 1, name
        error = capsys.readouterr().err
        assert len(error.splitlines()) == 1, error
        assert "train.py: error: `initial_model`" in error
        assert str(folder) in error
        assert not (tmp_path / "run").exists()
    assert train_here(tmp_path / "run", "--max_steps", 1, "--warmup_steps", 0, "--decay_steps", 0) == 0


def test_a_run_that_goes_on_needs_no_initial_model_any_more(train_here, finished, tmp_path):
    start = shutil.copytree(finished, tmp_path / "start")
    flags = ("--initial_model", start)
    assert train_here(tmp_path / "run", *flags, stop_at=6) == 143
    shutil.rmtree(start)
    assert train_here(tmp_path / "run", *flags) == 0
    assert "initial_model" in json.loads((tmp_path / "run" / "environment.json").read_text())


def test_positions_that_the_initial_model_lacks_repeat_its_last_x_and_y(finished, weights):
    own = weights(finished)["transformer.wpe.weight"]
    for n_positions in (len(own), len(own) + 1, len(own) + 4):
        config = LoopedGPT2Config.from_pretrained(finished, n_positions=n_positions)
        positions = initial_weights(str(finished), config, LoopedGPT2ForInContextRegression)["transformer.wpe.weight"]
        assert len(positions) == n_positions
        assert torch.equal(positions[: len(own) - 1], own[:-1])
    assert all(torch.equal(positions[at], positions[at - 2]) for at in range(len(own) - 1, len(positions)))
    assert not torch.equal(positions[-1], positions[-2])


SIZES = {"n_embd": 16, "n_head": 2, "n_positions": 10, "n_dims": 3, "n_loops": 2}


def saved(folder, model_class=LoopedGPT2ForInContextRegression, **fields):
    """A model of these fields with weights that are far from 0, and its folder."""
    model = model_class(LoopedGPT2Config(**SIZES, initializer_range=0.5, **fields)).eval()
    model.save_pretrained(folder)
    return model, str(folder)


def started(folder, model_class=LoopedGPT2ForInContextRegression, **fields):
    """A model of these fields that starts from the one in the folder."""
    config = LoopedGPT2Config(**SIZES, **fields)
    model = model_class(config).eval()
    model.load_state_dict(initial_weights(folder, config, model_class))
    return model


def test_every_quantile_is_at_first_what_the_initial_model_predicts(tmp_path):
    own, folder = saved(tmp_path / "own")
    model, xs, ys = started(folder, n_quantiles=4), torch.randn(8, 5, 3), torch.randn(8, 5)
    predictions, outputs = own(xs, ys).predictions, model(xs, ys, labels=ys)
    torch.testing.assert_close(outputs.quantiles, predictions.unsqueeze(2).expand(8, 5, 4))
    torch.testing.assert_close(outputs.predictions, predictions)
    # they are equal, but of different levels: the loss pulls them apart
    outputs.loss.backward()
    assert len(model.read_out.bias.grad.unique()) == 4


def test_a_model_of_quantiles_starts_from_one_of_as_many_as_it_is(tmp_path):
    own, folder = saved(tmp_path / "own", n_quantiles=4)
    state = started(folder, n_quantiles=4).state_dict()
    assert all(torch.equal(state[name], value) for name, value in own.state_dict().items())


@pytest.mark.parametrize("n_quantiles", [0, 1, 3, 8])
def test_no_other_number_of_quantiles_starts_from_a_model_of_quantiles(n_quantiles, tmp_path):
    _, folder = saved(tmp_path / "own", n_quantiles=4)
    with pytest.raises(RunError, match=rf"it differs \(`n_quantiles` 4 -> {n_quantiles}\)"):
        started(folder, n_quantiles=n_quantiles)


def test_quantiles_are_nothing_to_a_classifier(tmp_path):
    own, folder = saved(tmp_path / "own", LoopedGPT2ForInContextClassification)
    state = started(folder, LoopedGPT2ForInContextClassification, n_quantiles=4).state_dict()
    assert all(torch.equal(state[name], value) for name, value in own.state_dict().items())
