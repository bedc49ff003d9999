"""Stock caches that quantise their slots, or move them between the processor and a GPU."""

import contextlib

import pytest
import torch
from transformers import DynamicCache, GPT2Config, GPT2LMHeadModel, QuantizedCache
from transformers.cache_utils import DynamicLayer

from modeling_looped_gpt2 import LoopedGPT2LMHeadModel


pytestmark = pytest.mark.filterwarnings("ignore")  # of the library that quantises
SIZES = {"vocab_size": 23, "n_embd": 64, "n_head": 2, "n_positions": 40, "initializer_range": 0.2}


def generate(model, batch, **settings):
    settings = {"max_new_tokens": 12, "do_sample": False, "pad_token_id": 0} | settings
    return model.generate(**batch, **settings, return_dict_in_generate=True, output_logits=True)


class TestQuantized:
    """With the library that quantises, where it is installed: it compiles for minutes at its first use."""

    settings = {"backend": "quanto", "nbits": 4, "residual_length": 8}  # noqa: RUF012

    @pytest.fixture(autouse=True)
    def library(self):
        pytest.importorskip("optimum.quanto")

    def test_all_blocks_once_lose_what_gpt2_loses(self, batch):
        torch.manual_seed(0)
        gpt2 = GPT2LMHeadModel(GPT2Config(**SIZES, n_layer=3, bos_token_id=1, eos_token_id=None)).eval()
        looped = LoopedGPT2LMHeadModel.from_gpt2(gpt2, prelude=[0], loop=[1], coda=[2]).eval()
        settings = {"cache_implementation": "quantized", "cache_config": self.settings}
        outputs, expected = generate(looped, batch, **settings), generate(gpt2, batch, **settings)
        torch.testing.assert_close(outputs.logits, expected.logits, rtol=1e-4, atol=1e-4)
        assert not torch.allclose(outputs.logits[-1], generate(gpt2, batch).logits[-1], atol=1e-3)

    @pytest.mark.parametrize("n_loops", [1, 5])
    def test_every_loop_has_a_slot_that_is_a_third_as_large(self, make_lm, batch, n_loops):
        model = make_lm(**SIZES, n_coda=1)
        exact = generate(model, batch, n_loops=n_loops, max_new_tokens=24)
        config = model.config.with_loops(n_loops)
        quantized = QuantizedCache(self.settings["backend"], config, nbits=4, residual_length=8)
        outputs = generate(model, batch, n_loops=n_loops, cache=quantized, max_new_tokens=24)
        assert len(outputs.past_key_values) == n_loops + 1
        assert outputs.past_key_values.get_seq_length() == exact.past_key_values.get_seq_length()
        assert model.cache_bytes(quantized) < model.cache_bytes(exact.past_key_values) / 2
        scale = exact.logits[1].std()
        assert 0 < (outputs.logits[1] - exact.logits[1]).abs().mean() < 0.2 * scale


class AwayLayer(DynamicLayer):
    """A slot that cannot be read while it is offloaded."""

    def offload(self):
        self.kept = self.keys, self.values
        self.keys, self.values = self.keys.to("meta"), self.values.to("meta")

    def prefetch(self):
        if self.is_initialized and self.keys.is_meta:
            self.keys, self.values = self.kept


class Stream(contextlib.nullcontext):
    """What a cache asks of a GPU's streams, where there is no GPU."""

    def wait_stream(self, stream):
        pass


class TestOffloaded:
    @pytest.mark.parametrize("exit_tolerance", [None, 0.1])
    def test_slots_are_read_in_the_order_in_which_they_are_fetched(self, make_lm, batch, monkeypatch, exit_tolerance):
        monkeypatch.setattr(torch, "Stream", Stream)
        monkeypatch.setattr(torch.cuda, "default_stream", lambda device: Stream())
        model = make_lm(n_prelude=1, n_layer=2, n_coda=1)
        settings = {"n_loops": 3, "exit_tolerance": exit_tolerance}
        cache = DynamicCache(config=model.config.with_loops(3), offloading=True)
        cache.layers = [AwayLayer() for _ in cache.layers]
        outputs = generate(model, batch, cache=cache, **settings)
        assert torch.equal(outputs.sequences, generate(model, batch, **settings).sequences)
        assert [layer.keys.is_meta for layer in cache.layers] == [False] + 7 * [True]

    @pytest.mark.skipif(
        not torch.cuda.is_available(), reason="an offloaded cache moves between a GPU and the processor"
    )
    @pytest.mark.parametrize("implementation", ["offloaded", "offloaded_static"])
    def test_on_a_gpu_it_changes_nothing(self, make_lm, batch, implementation):
        model = make_lm(n_prelude=1).to("cuda")
        batch = {name: values.to("cuda") for name, values in batch.items()}
        expected = generate(model, batch, n_loops=5).sequences
        outputs = generate(model, batch, n_loops=5, cache_implementation=implementation)
        assert torch.equal(outputs.sequences, expected)

    @pytest.mark.parametrize("implementation", ["offloaded", "offloaded_static"])
    def test_without_a_gpu_it_is_refused(self, make_lm, batch, implementation):
        with pytest.raises(ValueError, match=f"`cache_implementation` '{implementation}' .* move the model to a GPU"):
            generate(make_lm(), batch, cache_implementation=implementation)
