import json
import sys

import pytest
from huggingface_hub.errors import StrictDataclassError
from transformers import DynamicCache

from modeling_looped_gpt2 import LoopedGPT2Config


BAD_VALUES = [
    ("n_loops", 0),
    ("n_loops", -3),
    ("n_loops", 2.5),
    ("n_loops", "x"),
    ("n_loops", None),
    ("n_loops", True),
    ("n_layer", 0),
    ("n_head", 0),
    ("n_embd", 0),
    ("n_inner", 0),
    ("n_dims", 0),
    ("n_outputs", 0),
    ("n_outputs", 21),
    ("n_outputs", True),
    ("n_outputs", 1.5),
    ("n_positions", 0),
    ("vocab_size", 0),
    ("n_embd", 30),
    ("input_injection", "subtract"),
    ("input_injection", None),
    ("block_loops", [1, 1]),
    ("block_loops", []),
    ("block_loops", [0]),
    ("block_loops", [True]),
    ("block_loops", [1.5]),
    ("block_loops", 2),
    ("position_embedding", "rotary"),
    ("position_embedding", None),
    ("sinusoidal_base", 1),
    ("sinusoidal_base", float("inf")),
    ("sinusoidal_base", True),
    ("sinusoidal_base", "10000"),
    ("attention_window", 0),
    ("attention_window", True),
    ("attention_window", 2.5),
    ("loop_encoding", "loop"),
    ("loop_encoding_parts", "all"),
    ("adapter_rank", -1),
    ("adapter_rank", 257),
    ("adapter_rank", True),
    ("n_adapters", 0),
    ("n_adapters", 2),
    ("adapter_beyond", "first"),
    ("adapter_beyond", "none"),
    ("loop_encoding_parts", "gate"),
    ("solver_steps", 3),
    ("residual_loops", "yes"),
    ("resid_pdrop", 1.0),
    ("embd_pdrop", -0.1),
    ("attn_pdrop", 2),
    ("initializer_range", 0.0),
    ("read_in_initializer_range", -1.0),
    ("position_initializer_range", float("inf")),
    ("layer_norm_epsilon", 0.0),
    ("activation_function", "sigmoidal"),
    ("add_cross_attention", True),
]


@pytest.mark.parametrize(("name", "value"), BAD_VALUES)
def test_a_bad_value_is_refused_by_name(name, value):
    with pytest.raises(StrictDataclassError, match=name):
        LoopedGPT2Config(**{name: value})


def test_a_bad_value_set_later_is_refused_when_saving(tmp_path):
    config = LoopedGPT2Config()
    config.n_loops = 0
    with pytest.raises(StrictDataclassError, match="n_loops"):
        config.save_pretrained(tmp_path)
    assert not (tmp_path / "config.json").exists()


def test_num_hidden_layers_is_the_executed_depth():
    config = LoopedGPT2Config(n_layer=2, n_loops=5)
    assert config.num_hidden_layers == 10
    assert len(DynamicCache(config=config).layers) == 10
    assert config.with_loops(3).num_hidden_layers == 6
    assert config.n_loops == 5
    assert LoopedGPT2Config(n_layer=2, n_loops=5, num_hidden_layers=10).n_layer == 2
    with pytest.raises(ValueError, match=r"num_hidden_layers.*n_layer.*n_loops"):
        LoopedGPT2Config(num_hidden_layers=12)
    config = LoopedGPT2Config(n_layer=2, n_loops=5, block_loops=[3, 1], n_coda=1)
    assert config.num_hidden_layers == 21
    config.num_hidden_layers = 13
    assert config.n_loops == 3
    assert LoopedGPT2Config(n_loops=10**12).num_hidden_layers == 10**12  # counted, not planned
    with pytest.raises(ValueError, match=r"sum\(block_loops\) \* n_loops \+ n_coda = 0 \+ 4 \* n_loops \+ 1 "):
        config.num_hidden_layers = 12


def test_a_model_without_positions_reads_any_length():
    assert LoopedGPT2Config(n_positions=10).max_tokens == 10
    assert LoopedGPT2Config(n_positions=10, position_embedding="none").max_tokens == sys.maxsize


def test_round_trip_keeps_every_field(tmp_path):
    config = LoopedGPT2Config(n_loops=7, input_injection="multiply", n_dims=4, n_outputs=3, vocab_size=11)
    config.save_pretrained(tmp_path)
    assert LoopedGPT2Config.from_pretrained(tmp_path).to_dict() == config.to_dict()
    saved = json.loads((tmp_path / "config.json").read_text())
    assert saved["model_type"] == "looped_gpt2"
    assert "num_hidden_layers" not in saved


def test_common_names_resolve():
    config = LoopedGPT2Config(n_embd=48, n_head=6, n_positions=10)
    assert (config.hidden_size, config.num_attention_heads, config.max_position_embeddings) == (48, 6, 10)
