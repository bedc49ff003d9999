"""The suites that Hugging Face runs on every causal language model of transformers, run on this one.

They are part of the source of transformers, of which `TRANSFORMERS_SOURCE` names a folder, and are skipped without:

    pip download --no-deps --no-binary :all: transformers==5.23.0 && tar xzf transformers-5.23.0.tar.gz
    pip install parameterized
    export TRANSFORMERS_SOURCE=$PWD/transformers-5.23.0
    python -m pytest -c /dev/null --rootdir . --import-mode=importlib -W ignore -W always::FutureWarning \\
        tests/modeling_looped_gpt2/test_transformers_suites.py

A release on PyPI holds the common and the training tests; a checkout of the repository also those of generation and of
export. The source is to be of the installed version. The suites' own marks would break this project's strictness,
hence no configuration; some listen for what transformers deprecates.
"""

import importlib.util
import os
import sys
import types
import unittest
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from transformers import AutoModel
from transformers.models.auto import modeling_auto

from modeling_looped_gpt2 import LoopedGPT2Config, LoopedGPT2LMHeadModel, LoopedGPT2Model
from tests.modeling_looped_gpt2.mechanisms import MECHANISMS


SOURCE = os.environ.get("TRANSFORMERS_SOURCE")
if not SOURCE:
    pytest.skip("`TRANSFORMERS_SOURCE` names no source of transformers", allow_module_level=True)
PACKAGE = "transformers_tests"  # this project has a folder `tests` of its own
FOLDER = Path(SOURCE) / "tests"
if not FOLDER.is_dir():
    raise FileNotFoundError(f"`TRANSFORMERS_SOURCE` must name a source of transformers, and {FOLDER} is no folder.")
spec = importlib.util.spec_from_loader(PACKAGE, loader=None, is_package=True)
spec.submodule_search_locations = [str(FOLDER)]
sys.modules[PACKAGE] = importlib.util.module_from_spec(spec)


def import_suite(name: str, mixin: str) -> type:
    """Return a mixin of the source's tests, an empty one where the source does not have that file."""
    if not (FOLDER / f"{name.replace('.', '/')}.py").exists():
        module = types.ModuleType(f"{PACKAGE}.{name}")
        setattr(module, mixin, type(mixin, (), {}))
        sys.modules[module.__name__] = module
    return getattr(importlib.import_module(f"{PACKAGE}.{name}"), mixin)


import_suite("exporters.test_export", "ExportTesterMixin")
GenerationTesterMixin = import_suite("generation.test_utils", "GenerationTesterMixin")
ModelTesterMixin = import_suite("test_modeling_common", "ModelTesterMixin")
TrainingTesterMixin = import_suite("test_training_mixin", "TrainingTesterMixin")

# the suites tell what a class is for by these names, which hold the models of transformers
modeling_auto.MODEL_MAPPING_NAMES["looped_gpt2"] = "LoopedGPT2Model"
modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES["looped_gpt2"] = "LoopedGPT2LMHeadModel"
AutoModel.register(LoopedGPT2Config, LoopedGPT2Model)


class Tester:
    """The small model that the suites ask for, and inputs for it."""

    batch_size, seq_length, is_training = 3, 7, True
    hidden_size, num_attention_heads = 32, 4
    causal_lm_class = LoopedGPT2LMHeadModel

    def __init__(self, shape: dict[str, int]):
        self.shape = shape
        self.num_hidden_layers = self.get_config().num_hidden_layers

    def get_config(self) -> LoopedGPT2Config:
        sizes = {"n_embd": self.hidden_size, "n_head": self.num_attention_heads, "vocab_size": 99, "n_positions": 512}
        return LoopedGPT2Config(**sizes, **self.shape, bos_token_id=1, eos_token_id=2, pad_token_id=3)

    def prepare_config_and_inputs_for_common(self) -> tuple[LoopedGPT2Config, dict[str, torch.Tensor]]:
        config = self.get_config()
        ids = torch.randint(4, config.vocab_size, (self.batch_size, self.seq_length))
        return config, {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


class Suites(ModelTesterMixin, GenerationTesterMixin, TrainingTesterMixin):
    """All suites on both classes."""

    all_model_classes = (LoopedGPT2Model, LoopedGPT2LMHeadModel)
    _torch_compile_train_cls = LoopedGPT2LMHeadModel
    test_can_init_all_missing_weights_before_2023 = True
    model_tester = None
    shape: ClassVar[dict[str, int]]

    def setUp(self):
        torch.manual_seed(0)
        self.model_tester = Tester(self.shape)


class TestTwoLoops(Suites, unittest.TestCase):
    shape: ClassVar = {"n_layer": 1, "n_loops": 2}


class TestPreludeAndCoda(Suites, unittest.TestCase):
    shape: ClassVar = {"n_prelude": 1, "n_layer": 2, "n_loops": 2, "n_coda": 1}

    test_num_layers_is_small = None  # asks the depth of this tester to be at most 2


for name, settings in MECHANISMS.items():
    fields = {"shape": {"n_layer": 1, "n_loops": 2, **settings}, "test_num_layers_is_small": None}
    globals()[f"Test_{name}"] = type(f"Test_{name}", (Suites, unittest.TestCase), fields)
