"""`generate` with every stock cache and strategy, beside the same call without a cache and stock GPT-2s in a row."""

import copy

import pytest
import torch
from torch import nn
from transformers import (
    DynamicCache,
    GenerationConfig,
    GPT2Config,
    GPT2LMHeadModel,
    GPT2Model,
    QuantizedCache,
    StaticCache,
)
from transformers.cache_utils import QuantizedLayer


N_LOOPS = (1, 2, 3, 5, 8)
# blocks before, in and after the loop
SHAPES = {"loop": {"n_layer": 2}, "prelude and coda": {"n_prelude": 1, "n_layer": 1, "n_coda": 2}}
STRATEGIES = {
    "greedy": {},
    "sampled": {"do_sample": True, "temperature": 1.5, "top_k": 10},
    "beams": {"num_beams": 3, "num_return_sequences": 2},
}


class UnrolledGPT2(nn.Module):
    """The naive twin: a stock `GPT2Model` with its own weights for every loop, run on all tokens every time."""

    def __init__(self, model, n_loops):
        super().__init__()
        sizes = {name: getattr(model.config, name) for name in ("n_layer", "n_head", "n_embd", "n_positions")}
        config = GPT2Config(vocab_size=1, bos_token_id=None, eos_token_id=None, use_cache=False, **sizes)
        self.loops = nn.ModuleList(GPT2Model(config) for _ in range(n_loops))
        for loop in self.loops:
            weights = model.transformer.state_dict()
            loop.load_state_dict(
                {name: value for name, value in weights.items() if name != "wte.weight"}, strict=False
            )
        self.wte, self.lm_head = copy.deepcopy(model.transformer.wte), copy.deepcopy(model.lm_head)
        self.eval()

    def forward(self, input_ids, attention_mask):
        positions = (attention_mask.cumsum(1) - 1).clamp(min=0)
        prompt = self.wte(input_ids)
        state = torch.zeros_like(prompt)
        for loop in self.loops:
            inputs = {"inputs_embeds": state + prompt, "attention_mask": attention_mask, "position_ids": positions}
            state = loop(**inputs).last_hidden_state
        return self.lm_head(state)

    @torch.no_grad()
    def greedy(self, input_ids, attention_mask, n_tokens):
        for _ in range(n_tokens):
            token = self(input_ids, attention_mask)[:, -1:].argmax(-1)
            input_ids = torch.cat((input_ids, token), dim=1)
            attention_mask = torch.cat((attention_mask, torch.ones_like(token)), dim=1)
        return input_ids


class ExactLayer(QuantizedLayer):
    """A quantised layer that keeps every digit: its bookkeeping is what is tested here."""

    def _quantize(self, tensor, axis):
        return tensor.clone()

    def _dequantize(self, tensor):
        return tensor


def make_quantized(config):
    cache = DynamicCache(config=config)
    cache.layers = [ExactLayer(residual_length=4) for _ in cache.layers]
    return cache


CACHES = {
    "by default": lambda config: {},
    "lazy": lambda config: {"cache": DynamicCache()},
    "dynamic": lambda config: {"cache": DynamicCache(config=config)},
    "static": lambda config: {"cache_implementation": "static"},
    "static of the user": lambda config: {"cache": StaticCache(config, max_cache_len=20)},
    "quantized": lambda config: {"cache": make_quantized(config)},
    "chunked": lambda config: {"prefill_chunk_size": 3},
}


def generate(model, batch, **settings):
    torch.manual_seed(1)
    return model.generate(**batch, **({"max_new_tokens": 6, "do_sample": False} | settings))


@pytest.mark.parametrize("n_loops", N_LOOPS)
def test_looped_equals_stock_gpt2s_in_a_row(make_lm, batch, n_loops):
    model = make_lm(n_layer=2)
    twin = UnrolledGPT2(model, n_loops)
    seen = batch["attention_mask"].bool()
    positions = (batch["attention_mask"].cumsum(1) - 1).clamp(min=0)
    logits = model(**batch, position_ids=positions, n_loops=n_loops).logits
    torch.testing.assert_close(logits[seen], twin(**batch)[seen], rtol=1e-4, atol=1e-4)
    assert torch.equal(generate(model, batch, n_loops=n_loops), twin.greedy(**batch, n_tokens=6))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("cache", CACHES)
@pytest.mark.parametrize("n_loops", N_LOOPS)
def test_greedy_with_a_cache_equals_without(make_lm, batch, shape, cache, n_loops):
    model = make_lm(**SHAPES[shape])
    expected = generate(model, batch, n_loops=n_loops, use_cache=False)
    cached = generate(model, batch, n_loops=n_loops, **CACHES[cache](model.config.with_loops(n_loops)))
    assert torch.equal(cached, expected)


@pytest.mark.parametrize("strategy", ["sampled", "beams"])
@pytest.mark.parametrize("cache", ["by default", "static", "quantized"])
@pytest.mark.parametrize("n_loops", N_LOOPS)
def test_a_strategy_with_a_cache_equals_without(make_lm, batch, strategy, cache, n_loops):
    model = make_lm(n_prelude=1)
    settings = STRATEGIES[strategy] | {"n_loops": n_loops}
    expected = generate(model, batch, use_cache=False, **settings)
    cached = generate(model, batch, **settings, **CACHES[cache](model.config.with_loops(n_loops)))
    assert torch.equal(cached, expected)


@pytest.mark.filterwarnings("ignore")  # transformers passes itself arguments that it deprecates
@pytest.mark.parametrize("how", ["prompt lookup", "assistant", "early exit"])
@pytest.mark.parametrize("n_loops", [2, 5])
def test_drafting_changes_nothing(make_lm, batch, how, n_loops):
    model = make_lm(n_layer=2)
    assistant = make_lm(n_layer=1, n_loops=3)  # of another depth than its target
    settings = {
        "prompt lookup": {"prompt_lookup_num_tokens": 2},
        "assistant": {"assistant_model": assistant},
        "early exit": {"assistant_early_exit": 2},  # blocks: the model drafts for itself with one loop
    }[how]
    prompt = {"input_ids": batch["input_ids"][:1].repeat(1, 2)}
    lengths = []
    hook = model.transformer.register_forward_pre_hook(lambda _, args: lengths.append(args[0].shape[1]))
    drafted = generate(model, prompt, n_loops=n_loops, max_new_tokens=10, **settings)
    hook.remove()
    assert any(length > 1 for length in lengths[1:])  # several tokens were checked at a time
    assert torch.equal(drafted, generate(model, prompt, n_loops=n_loops, max_new_tokens=10, use_cache=False))
    assert model.config.n_loops == 4


@pytest.mark.filterwarnings("ignore")  # transformers passes itself arguments that it deprecates
@pytest.mark.parametrize("settings", [{"n_loops": 2}, {"n_loops": 8, "exit_tolerance": 0.3}, {"loops_per_slot": 2}])
def test_a_stock_gpt2_drafts_for_a_looped_model(make_lm, batch, settings):
    """It knows nothing of loops, given as arguments or in a configuration."""
    model = make_lm(n_layer=2)
    stock = GPT2LMHeadModel(GPT2Config(vocab_size=23, n_embd=32, n_head=4, n_layer=1, n_positions=40)).eval()
    prompt = {"input_ids": batch["input_ids"][:1]}
    if "exit_tolerance" in settings:  # is decided on once a call, and a draft has several tokens
        settings = settings | {"num_assistant_tokens": 1}
    expected = generate(model, prompt, **settings)
    assert generate(model, prompt, **settings, assistant_model=stock).shape == expected.shape
    if "exit_tolerance" not in settings:
        assert torch.equal(generate(model, prompt, **settings, assistant_model=stock), expected)
        config = GenerationConfig(max_new_tokens=6, **settings)
        assert torch.equal(model.generate(**prompt, generation_config=config, assistant_model=stock), expected)
        with pytest.raises(ValueError, match="n_loop"):
            generate(stock, prompt, n_loops=2)


def test_embeddings_can_take_the_place_of_ids(make_lm, batch):
    model = make_lm()
    embeds = {"inputs_embeds": model.transformer.wte(batch["input_ids"]), "attention_mask": batch["attention_mask"]}
    expected = generate(model, batch, n_loops=3)
    assert torch.equal(generate(model, embeds, n_loops=3), expected[:, 7:])


def test_padding_changes_nothing(make_lm, batch):
    model = make_lm(n_prelude=1, n_coda=1)
    padded = generate(model, batch, n_loops=5)
    alone = generate(model, {"input_ids": batch["input_ids"][1:, 3:]}, n_loops=5)
    assert torch.equal(padded[1:, 3:], alone)


def test_packed_sequences_do_not_see_each_other(make_lm, batch):
    model = make_lm(n_prelude=1)
    ids = batch["input_ids"][:1]
    positions = torch.tensor([[0, 1, 2, 3, 0, 1, 2]])
    packed = model(input_ids=ids, position_ids=positions, use_cache=False, n_loops=3).logits
    apart = [model(input_ids=part, n_loops=3).logits for part in ids.split([4, 3], dim=1)]
    torch.testing.assert_close(packed, torch.cat(apart, dim=1), rtol=1e-4, atol=1e-4)


class TestNLoopsAtGeneration:
    def test_the_argument_wins_over_every_configuration(self, make_lm, batch):
        model = make_lm()
        depths = []  # of every call
        model.transformer.register_forward_pre_hook(lambda *_: depths.append(0))
        model.transformer.h[0].register_forward_pre_hook(lambda *_: depths.append(depths.pop() + 1))

        def depth_of(**settings):
            depths.clear()
            output = generate(model, batch, return_dict_in_generate=True, **settings)
            assert len(set(depths)) == 1
            assert len(output.past_key_values) == depths[0]
            return depths[0]

        assert depth_of() == depth_of(n_loops=None) == model.config.n_loops == 4
        model.generation_config.n_loops = 2
        assert depth_of() == 2
        own = GenerationConfig(n_loops=3, max_new_tokens=6, do_sample=False)
        model.generate(**batch, generation_config=own)
        assert depths[-1] == 3
        model.generate(**batch, generation_config=own, n_loops=1)
        assert depths[-1] == 1
        assert depth_of(n_loops=5) == 5
        assert own.n_loops == 3
        assert model.generation_config.n_loops == 2

    @pytest.mark.parametrize("fresh", [True, False])
    def test_it_survives_saving(self, make_lm, batch, tmp_path, fresh):
        model = make_lm()
        if fresh:
            model.generation_config = GenerationConfig(pad_token_id=0)
        model.generation_config.n_loops = 2
        model.save_pretrained(tmp_path)
        loaded = type(model).from_pretrained(tmp_path)
        assert loaded.generation_config.n_loops == 2
        assert torch.equal(generate(loaded, batch), generate(model, batch, n_loops=2))

    @pytest.mark.parametrize(("name", "value"), [("n_loops", 0), ("n_loops", "2"), ("loops_per_slot", 0)])
    def test_a_bad_value_is_refused_before_any_work(self, make_lm, batch, name, value):
        model = make_lm()
        model.transformer.forward = None  # not reached
        with pytest.raises(ValueError, match=f"`{name}` must be an integer >= 1, got {value!r}"):
            generate(model, batch, **{name: value})

    def test_a_conversation_goes_on_at_its_depth_only(self, make_lm, batch):
        model = make_lm()
        first = generate(model, batch, n_loops=3, return_dict_in_generate=True)
        mask = nn.functional.pad(batch["attention_mask"], (0, 6), value=1)
        turn = {"input_ids": first.sequences, "attention_mask": mask}
        for n_loops in (2, 5):
            cache = copy.deepcopy(first.past_key_values)
            with pytest.raises(ValueError, match="go on with as many loops as the cache was filled with"):
                generate(model, turn, cache=cache, n_loops=n_loops)
        second = generate(model, turn, cache=first.past_key_values, n_loops=3)
        assert torch.equal(second, generate(model, turn, n_loops=3))


class TestAdaptiveDepth:
    def test_no_row_depends_on_its_batch_mates(self, make_lm, batch):
        model = make_lm(n_prelude=1, n_coda=1)
        settings = {"n_loops": 30, "exit_tolerance": 0.1}
        together = generate(model, batch, **settings)
        for row, start in ((0, 0), (1, 3)):
            alone = generate(
                model, {"input_ids": batch["input_ids"][row : row + 1, start:]}, n_loops=30, exit_tolerance=0.1
            )
            assert torch.equal(together[row : row + 1, start:], alone)

    def test_it_saves_blocks(self, make_lm, batch):
        model = make_lm()
        rows = []
        hook = model.transformer.h[0].register_forward_pre_hook(lambda _, args: rows.append(len(args[0])))
        generate(model, batch, n_loops=30, exit_tolerance=0.1)
        n_adaptive, rows[:] = sum(rows), []
        generate(model, batch, n_loops=30)
        hook.remove()
        assert n_adaptive < 0.8 * sum(rows)

    def test_a_tolerance_never_reached_is_the_fixed_depth(self, make_lm, batch):
        model = make_lm(n_prelude=1, n_coda=1)
        for cache in ("dynamic", "static"):
            adaptive = generate(model, batch, n_loops=5, exit_tolerance=1e-9, cache_implementation=cache)
            assert torch.equal(adaptive, generate(model, batch, n_loops=5))


class TestCheapCaches:
    """Loops of a group read, of tokens from earlier calls, what the group's last loop left."""

    @pytest.mark.parametrize("loops_per_slot", [2, 3, 7])
    @pytest.mark.parametrize("shape", SHAPES)
    def test_a_group_reads_what_its_last_loop_left(self, make_lm, shape, loops_per_slot):
        model = make_lm(**SHAPES[shape])
        n_loops, n_layer = 7, model.config.n_layer
        n_prelude, n_slots = model.config.n_prelude, -(-n_loops // loops_per_slot)
        ids = torch.randint(1, 23, (2, 9), generator=torch.Generator().manual_seed(3))
        exact, cheap = DynamicCache(), DynamicCache()
        for start, stop in ((0, 6), (6, 7), (7, 9)):
            # the naive way: before the call, every slot of the exact cache is what its group's last loop left
            if start:
                for loop in range(n_loops):
                    last = min((loop // loops_per_slot + 1) * loops_per_slot, n_loops) - 1
                    for block in range(n_layer):
                        slot, source = (n_prelude + index * n_layer + block for index in (loop, last))
                        exact.layers[slot].keys = exact.layers[source].keys.clone()
                        exact.layers[slot].values = exact.layers[source].values.clone()
            part = {"input_ids": ids[:, start:stop], "n_loops": n_loops}
            expected = model(**part, cache=exact).logits
            logits = model(**part, cache=cheap, loops_per_slot=loops_per_slot).logits
            torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
        assert len(cheap) == n_prelude + n_slots * n_layer + model.config.n_coda
        assert model.cache_bytes(cheap) * len(exact) == model.cache_bytes(exact) * len(cheap)

    @pytest.mark.parametrize("exit_tolerance", [None, 0.1])
    @pytest.mark.parametrize("loops_per_slot", [2, 5])
    def test_static_equals_dynamic(self, make_lm, batch, loops_per_slot, exit_tolerance):
        model = make_lm(n_prelude=1)
        settings = {"n_loops": 5, "loops_per_slot": loops_per_slot, "exit_tolerance": exit_tolerance}
        dynamic = generate(model, batch, **settings)
        assert torch.equal(generate(model, batch, cache_implementation="static", **settings), dynamic)

    def test_one_call_is_exact(self, make_lm, batch):
        model = make_lm()
        torch.testing.assert_close(model(**batch, loops_per_slot=4).logits, model(**batch).logits)

    def test_a_cache_that_cannot_be_shared_is_refused(self, make_lm, batch):
        model = make_lm()
        cache = make_quantized(model.config.with_loops(4, 2))
        with pytest.raises(ValueError, match="`loops_per_slot` > 1 needs a `DynamicCache` or `StaticCache`"):
            generate(model, batch, cache=cache, loops_per_slot=2)

    def test_bytes_of_a_cache(self, make_lm, batch):
        model = make_lm(n_layer=2)
        cache = model(**batch, n_loops=3).past_key_values
        assert (
            model.cache_bytes(cache) == 4 * 2 * (2 * 3) * 2 * 7 * model.config.n_embd
        )  # floats, k and v, slots, rows


@pytest.mark.parametrize("cache", ["by default", "static"])
def test_a_text_ends_with_the_last_position(make_lm, batch, cache):
    model = make_lm(n_positions=10)
    settings = CACHES[cache](model.config)
    # the padded row has three positions left, and the last token needs none
    row = {name: values[1:] for name, values in batch.items()}
    assert generate(model, row, max_new_tokens=7, **settings).shape == (1, 14)
    assert generate(model, batch, max_new_tokens=4, **settings).shape == (2, 11)
    with pytest.raises(ValueError, match="`n_positions` is 10 tokens, and the text has grown to 11: ask for fewer"):
        generate(model, batch, max_new_tokens=5, **settings)


@pytest.mark.parametrize("call", ["generate_batch", "paged"])
def test_continuous_batching_is_refused(make_lm, batch, call):
    model = make_lm()
    with pytest.raises(NotImplementedError, match="use `generate` on a padded batch"):
        if call == "paged":
            generate(model, batch, cache_implementation="paged")
        else:
            model.generate_batch([[1, 2, 3]])


def test_stock_quantized_cache_has_a_slot_for_every_loop(make_lm, monkeypatch):
    monkeypatch.setattr("transformers.cache_utils.QuantoQuantizedLayer", lambda *args: ExactLayer())
    assert len(QuantizedCache("quanto", make_lm(n_coda=1).config.with_loops(5))) == 6
