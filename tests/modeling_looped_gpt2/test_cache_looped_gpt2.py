"""The backbone on stock caches: loop l and block i own slot `l * n_layer + i`."""

import logging
from contextlib import nullcontext

import pytest
import torch
from torch.testing._internal.two_tensor import TwoTensor
from transformers import DynamicCache, EncoderDecoderCache, StaticCache

from modeling_looped_gpt2 import LoopedGPT2Model
from modeling_looped_gpt2.cache_looped_gpt2 import CACHE_NAME, cache_bytes


CACHES = {
    "made by the model": lambda config: None,
    "dynamic, lazy": lambda config: DynamicCache(),
    "dynamic": lambda config: DynamicCache(config=config),
    "static": lambda config: StaticCache(config, max_cache_len=10),
}


@pytest.fixture
def model(make_config):
    return LoopedGPT2Model(make_config(n_layer=2, vocab_size=11, initializer_range=0.1)).eval()


@pytest.mark.parametrize("kind", CACHES)
@pytest.mark.parametrize("n_loops", [1, 4, 5])
@pytest.mark.parametrize("parts", [(6, 1, 1), (1,) * 8, (3, 5)])
def test_parts_on_a_cache_equal_the_whole(model, kind, n_loops, parts):
    ids = torch.randint(0, 11, (2, 8))
    mask = torch.tensor([[1] * 8, [0] * 2 + [1] * 6])
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    whole = model(input_ids=ids, attention_mask=mask, position_ids=positions, n_loops=n_loops).last_hidden_state
    cache, states, start = CACHES[kind](model.config.with_loops(n_loops)), [], 0
    for length in parts:
        part = slice(start, start + length)
        outputs = model(
            input_ids=ids[:, part],
            attention_mask=mask[:, : part.stop],
            position_ids=positions[:, part],
            cache=cache,
            use_cache=True,
            n_loops=n_loops,
        )
        cache, start = outputs.cache, part.stop
        states.append(outputs.last_hidden_state)
    assert len(cache) == 2 * n_loops
    seen = mask.bool()
    torch.testing.assert_close(torch.cat(states, dim=1)[seen], whole[seen], rtol=1e-4, atol=1e-5)


def test_positions_go_on_after_the_cache(model):
    ids = torch.randint(0, 11, (2, 8))
    first = model(input_ids=ids[:, :5], use_cache=True)
    second = model(input_ids=ids[:, 5:], cache=first.cache).last_hidden_state
    torch.testing.assert_close(second, model(input_ids=ids).last_hidden_state[:, 5:], rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="`n_positions` is 14 tokens, got a sequence of 15"):
        model(input_ids=ids[:, :7], cache=first.cache)


def test_a_cache_of_another_depth_is_refused(model):
    ids = torch.zeros(1, 2, dtype=torch.long)
    for cache in (model(input_ids=ids, use_cache=True, n_loops=3).cache, StaticCache(model.config, 8)):
        with pytest.raises(ValueError, match=r"slots, . loops of 2 block\(s\), .* `n_loops` = 5: go on with as many"):
            model(input_ids=ids, cache=cache, n_loops=5)


@pytest.mark.filterwarnings("ignore:`past_key_values` is deprecated:FutureWarning")
def test_a_cache_goes_by_both_of_its_names(make_lm, model):
    ids = torch.randint(1, 11, (2, 4))
    first = model(input_ids=ids, use_cache=True)
    assert first.past_key_values is first.cache is first[1]
    with pytest.raises(ValueError, match="`cache` and `past_key_values` are two names of one argument: give one"):
        model(input_ids=ids, cache=first.cache, past_key_values=first.cache)
    for called in (model, make_lm()):
        states = []
        for name in ("cache", "past_key_values"):
            cache = called(ids, use_cache=True).cache
            outputs = called(ids[:, :1], **{name: cache})
            assert outputs.cache is cache
            states.append(outputs[0])
        assert torch.equal(*states)


def test_the_older_name_is_deprecated_where_transformers_deprecates_it(make_lm):
    model = make_lm()
    ids = torch.randint(1, 11, (2, 4))
    expected = pytest.warns(FutureWarning, match="use `cache`") if CACHE_NAME == "cache" else nullcontext()
    for called in (model, model.transformer):
        with expected:
            called(ids, past_key_values=DynamicCache())


def test_transformers_finds_nothing_to_say(make_lm, make_model, prompts, batch):
    """Names that transformers is about to drop are reported by its logger, once a process."""
    said, logger = [], logging.getLogger("transformers")
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())
    logging.Logger.warning_once.cache_clear()
    logger.addHandler(handler)
    try:
        model = make_lm(n_prelude=1)
        for cache in (None, StaticCache(model.config, max_cache_len=20)):
            model.generate(**batch, cache=cache, max_new_tokens=3, do_sample=False)
        model(**batch, labels=batch["input_ids"], exit_tolerance=0.1, return_dict=False)
        head = make_model()
        head(**prompts)
        head.predict(prompts["xs"], head.encode_context(prompts["xs"], prompts["ys"]))
    finally:
        logger.removeHandler(handler)
    assert said == []


def test_what_is_no_cache_is_refused(model):
    for cache in (((torch.zeros(1), torch.zeros(1)),), EncoderDecoderCache(DynamicCache(), DynamicCache())):
        with pytest.raises(ValueError, match=f"`cache` must be a cache .* got {type(cache).__name__}"):
            model(input_ids=torch.zeros(1, 2, dtype=torch.long), cache=cache)


def test_checkpointed_training_fills_no_cache(make_config):
    model = LoopedGPT2Model(make_config(vocab_size=11)).train()
    # renamed in transformers 5.23
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable()
    cache = DynamicCache()
    model(input_ids=torch.zeros(1, 3, dtype=torch.long), cache=cache).last_hidden_state.sum().backward()
    assert cache.get_seq_length() == 0


def test_bytes_of_quantised_slots_are_those_of_their_parts(model):
    cache = model(input_ids=torch.zeros(2, 5, dtype=torch.long), use_cache=True, n_loops=1).cache
    empty = cache_bytes(cache)
    whole = torch.zeros(10)
    # as the backends of transformers keep them: a tensor with its scales, or a tensor that is made of others
    cache.layers[0]._quantized_keys = (torch.zeros(100, dtype=torch.uint8), {"scale": torch.zeros(4), "axis": 1})
    cache.layers[1]._quantized_keys = TwoTensor(whole, torch.zeros(10))
    cache.layers[1].views = [whole[:3], whole[3:]]  # of the same memory
    assert cache_bytes(cache) - empty == 100 + 4 * 4 + 2 * 10 * 4
