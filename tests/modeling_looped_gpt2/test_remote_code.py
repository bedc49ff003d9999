import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import modeling_looped_gpt2
from modeling_looped_gpt2 import (
    LoopedGPT2ForInContextClassification,
    LoopedGPT2ForInContextRegression,
    LoopedGPT2Model,
)
from tests.carried_code import REGRESSION_CODE
from tests.modeling_looped_gpt2.mechanisms import MECHANISMS, shake


SAVED_FILES = {"config.json", "model.safetensors"} | REGRESSION_CODE


def test_saved_folders_load_where_the_project_is_unknown(make_model, prompts, tmp_path, run_isolated):
    model = make_model(input_injection="multiply", solver="damped", solver_steps=2)
    model.save_pretrained(tmp_path / "saved")
    assert {file.name for file in (tmp_path / "saved").iterdir()} == SAVED_FILES
    expected = model(prompts["xs"], prompts["ys"], n_loops=7).predictions
    torch.save((prompts["xs"], prompts["ys"]), tmp_path / "prompts.pt")
    of_sets = make_model(example_order="set")
    of_sets.save_pretrained(tmp_path / "sets")
    torch.save(of_sets(prompts["xs"], prompts["ys"][:, :3]).predictions, tmp_path / "of_sets.pt")
    run_isolated(f"""
import torch
from transformers import AutoModel
xs, ys = torch.load({str(tmp_path / "prompts.pt")!r})
model = AutoModel.from_pretrained({str(tmp_path / "saved")!r}, trust_remote_code=True)
assert type(model).__name__ == "LoopedGPT2ForInContextRegression"
torch.save(model(xs, ys, n_loops=7).predictions, {str(tmp_path / "predictions.pt")!r})
model.save_pretrained({str(tmp_path / "again")!r})
again = AutoModel.from_pretrained({str(tmp_path / "again")!r}, trust_remote_code=True)
torch.testing.assert_close(again(xs, ys).predictions, model(xs, ys).predictions)
context = again.encode_context(xs[:, :-1], ys[:, :-1])
assert torch.allclose(again.predict(xs[:, -1:], context), model(xs, ys).predictions[:, -1:], atol=1e-5)
expected = torch.load({str(tmp_path / "of_sets.pt")!r})
model = AutoModel.from_pretrained({str(tmp_path / "sets")!r}, trust_remote_code=True)
torch.testing.assert_close(model(xs, ys[:, :3]).predictions, expected)
torch.testing.assert_close(model.predict(xs[:, 3:], model.encode_context(xs[:, :3], ys[:, :3])), expected)
""")
    torch.testing.assert_close(torch.load(tmp_path / "predictions.pt"), expected)
    assert {file.name for file in (tmp_path / "again").iterdir()} == SAVED_FILES


def test_every_mechanism_loads_where_the_project_is_unknown(make_lm, batch, tmp_path, run_isolated):
    expected = {}
    for name, settings in MECHANISMS.items():
        model = shake(make_lm(**settings))
        model.save_pretrained(tmp_path / name)
        expected[name] = model(**batch, n_loops=3).logits
    torch.save((batch, expected), tmp_path / "expected.pt")
    run_isolated(f"""
import torch
from transformers import AutoModelForCausalLM
batch, expected = torch.load({str(tmp_path / "expected.pt")!r})
for name, logits in expected.items():
    model = AutoModelForCausalLM.from_pretrained({str(tmp_path)!r} + "/" + name, trust_remote_code=True)
    torch.testing.assert_close(model(**batch, n_loops=3).logits, logits, msg=name)
""")


def test_in_process_loading_restores_every_bit(make_model, prompts, tmp_path):
    model = make_model(n_layer=2)
    model.save_pretrained(tmp_path)
    loaded = LoopedGPT2ForInContextRegression.from_pretrained(tmp_path)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, loaded.get_parameter(name)), name
    torch.testing.assert_close(loaded(**prompts).loss, model(**prompts).loss)


def test_the_code_in_a_folder_is_not_asked_by_the_classes_of_the_project(make_model, make_lm, make_config, tmp_path):
    """A folder keeps the code that it was saved with, which newer versions of transformers may not run."""
    for n, model in enumerate((make_model(), make_lm(), LoopedGPT2ForInContextClassification(make_config()))):
        folder = tmp_path / str(n)
        model.save_pretrained(folder)
        for path in folder.glob("*.py"):
            path.write_text("raise AssertionError")
        loaded = type(model).from_pretrained(folder)
        for name, parameter in model.named_parameters():
            assert torch.equal(parameter, loaded.get_parameter(name)), name


@pytest.mark.filterwarnings("ignore")  # the report on unused weights
def test_backbone_and_head_checkpoints_interchange(make_model, tmp_path):
    model = make_model()
    model.save_pretrained(tmp_path / "head")
    model.transformer.save_pretrained(tmp_path / "backbone")
    backbone = LoopedGPT2Model.from_pretrained(tmp_path / "head")
    head = LoopedGPT2ForInContextRegression.from_pretrained(tmp_path / "backbone")
    for loaded in (backbone, head.transformer):
        for name, parameter in model.transformer.named_parameters():
            assert torch.equal(parameter, loaded.get_parameter(name)), name


def test_importing_the_package_imports_no_model():
    code = (
        "import sys, modeling_looped_gpt2 as m; assert 'torch' not in sys.modules; "
        "assert m.LoopedGPT2Model; assert 'torch' in sys.modules; "
        "assert not {'datasets', 'evaluate', 'matplotlib', 'sklearn'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2], timeout=300)
    with pytest.raises(AttributeError, match="has no attribute 'LoopedGPT3'"):
        _ = modeling_looped_gpt2.LoopedGPT3


def test_the_package_tells_what_it_holds():
    names = dir(modeling_looped_gpt2)
    assert set(modeling_looped_gpt2.__all__) | {"__version__"} == set(names)
    for name in names:
        assert getattr(modeling_looped_gpt2, name) is not None
    assert modeling_looped_gpt2.__version__ == importlib.metadata.version("looped-gpt2")
