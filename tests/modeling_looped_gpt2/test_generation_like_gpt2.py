"""What `generate` returns and takes, beside a stock GPT-2 of as many blocks or the same call put another way."""

import pytest
import torch
from transformers import Cache, DynamicCache, GPT2Config, GPT2LMHeadModel


N_LOOPS = 3
STRATEGIES = {
    "greedy": {},
    "sampled": {"do_sample": True},
    "beams": {"num_beams": 3, "num_return_sequences": 2},
    "sampled beams": {"num_beams": 2, "do_sample": True},
}


@pytest.fixture
def stock(make_lm):
    """A GPT-2 with a block for every executed one of the looped model."""
    config = make_lm(n_layer=2).config
    sizes = {name: getattr(config, name) for name in ("vocab_size", "n_positions", "n_embd", "n_head")}
    return GPT2LMHeadModel(GPT2Config(**sizes, n_layer=2 * N_LOOPS, bos_token_id=1, eos_token_id=None)).eval()


def shapes(value):
    """The structure of an output: its fields and the shapes of their tensors."""
    if isinstance(value, torch.Tensor):
        return tuple(value.shape)
    if isinstance(value, Cache):
        return [(layer.get_seq_length(), *layer.keys.shape, *layer.values.shape) for layer in value.layers]
    if isinstance(value, tuple):
        return [shapes(item) for item in value]
    return {name: shapes(item) for name, item in value.items()}


def generate(model, *args, **settings):
    torch.manual_seed(1)
    defaults = {"max_new_tokens": 5, "do_sample": False, "pad_token_id": 0}
    return model.generate(*args, **(defaults | settings))


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_all_outputs_are_shaped_as_those_of_gpt2(make_lm, batch, stock, strategy, use_cache):
    names = ("scores", "logits", "attentions", "hidden_states")
    settings = {f"output_{name}": True for name in names} | {"return_dict_in_generate": True, "use_cache": use_cache}
    looped = make_lm(n_layer=2)
    for model in (looped, stock):
        model.set_attn_implementation("eager")
    outputs = generate(looped, **batch, **settings, **STRATEGIES[strategy], n_loops=N_LOOPS)
    expected = generate(stock, **batch, **settings, **STRATEGIES[strategy])
    assert set(names) <= set(expected)
    assert shapes(outputs) == shapes(expected)


def test_the_scores_are_those_of_a_forward_pass(make_lm, batch):
    model = make_lm(n_prelude=1)
    outputs = generate(model, **batch, n_loops=N_LOOPS, output_logits=True, return_dict_in_generate=True)
    mask = torch.nn.functional.pad(batch["attention_mask"], (0, 5), value=1)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    logits = model(outputs.sequences, attention_mask=mask, position_ids=positions, n_loops=N_LOOPS).logits
    torch.testing.assert_close(torch.stack(outputs.logits, dim=1), logits[:, 6:-1], rtol=1e-4, atol=1e-4)


def test_eager_attention_generates_what_fused_attention_does(make_lm, batch):
    tokens = []
    for implementation in ("eager", "sdpa"):
        model = make_lm(n_coda=1)
        model.set_attn_implementation(implementation)
        tokens.append(generate(model, **batch, n_loops=N_LOOPS))
    assert torch.equal(*tokens)


@pytest.mark.parametrize("cache_implementation", ["dynamic", "static"])
@pytest.mark.parametrize("n_beams", [1, 2])
def test_embeddings_prompt_as_their_ids_do(make_lm, batch, cache_implementation, n_beams):
    model = make_lm()
    settings = {"n_loops": N_LOOPS, "cache_implementation": cache_implementation, "num_beams": n_beams}
    expected = generate(model, **batch, **settings)
    embeds = model.transformer.wte(batch["input_ids"])
    mask = batch["attention_mask"]
    assert torch.equal(generate(model, inputs_embeds=embeds, attention_mask=mask, **settings), expected[:, 7:])
    # the ids come back where they are given as well
    both = generate(model, **batch, inputs_embeds=embeds, **settings)
    assert torch.equal(both, expected)
    other = generate(model, inputs_embeds=embeds.flip(1), attention_mask=mask, **settings)
    assert not torch.equal(other, expected[:, 7:])


def test_without_a_prompt_it_starts_with_its_first_token(make_lm):
    model = make_lm(bos_token_id=3)
    expected = generate(model, torch.tensor([[3]]), n_loops=N_LOOPS)
    assert torch.equal(generate(model, n_loops=N_LOOPS), expected)


@pytest.mark.parametrize("name", ["input_ids", "inputs_embeds"])
def test_generation_goes_on_where_it_stopped(make_lm, batch, name):
    model = make_lm(n_prelude=1)
    whole = generate(model, **batch, n_loops=N_LOOPS, max_new_tokens=8)
    prompt = {"input_ids": batch["input_ids"]}
    if name == "inputs_embeds":
        prompt = {"inputs_embeds": model.transformer.wte(batch["input_ids"])}
    settings = {"n_loops": N_LOOPS, "return_dict_in_generate": True}
    first = generate(model, **prompt, attention_mask=batch["attention_mask"], max_new_tokens=3, **settings)
    mask = torch.nn.functional.pad(batch["attention_mask"], (0, 3), value=1)
    second = generate(model, whole[:, :10], attention_mask=mask, cache=first.past_key_values, **settings)
    assert torch.equal(second.sequences, whole)


def test_a_mask_of_four_dimensions_is_taken_as_it_is(make_lm):
    """Three continuations of one prompt in one row, each blind to the others."""
    model = make_lm(n_prelude=1)
    prompt, ends = torch.tensor([[5, 6, 7]]), torch.tensor([[8, 9, 10]])
    ids = torch.cat((prompt, ends), dim=1)
    allowed = torch.ones(6, 6).tril().bool()
    allowed[3:, 3:] = torch.eye(3).bool()
    positions = torch.tensor([[0, 1, 2, 3, 3, 3]])
    mask = torch.where(allowed, 0.0, torch.finfo(torch.float32).min)[None, None]
    together = model(ids, attention_mask=mask, position_ids=positions, n_loops=N_LOOPS).logits[0, 3:]
    apart = [model(torch.cat((prompt, end), dim=1), n_loops=N_LOOPS).logits[0, -1] for end in ends.split(1, dim=1)]
    torch.testing.assert_close(together, torch.stack(apart), rtol=1e-4, atol=1e-4)
    # and the same on a cache that holds the prompt
    cache = DynamicCache()
    model(prompt, cache=cache, n_loops=N_LOOPS)
    inputs = {"attention_mask": mask[:, :, 3:], "position_ids": positions[:, 3:], "cache": cache}
    torch.testing.assert_close(model(ends, **inputs, n_loops=N_LOOPS).logits[0], together, rtol=1e-4, atol=1e-4)


def test_all_logits_choose_the_tokens_that_the_last_ones_do(make_lm, batch):
    model = make_lm()
    expected = generate(model, **batch, n_loops=N_LOOPS)
    assert torch.equal(generate(model, **batch, n_loops=N_LOOPS, logits_to_keep=0), expected)


@pytest.mark.filterwarnings("ignore")  # transformers passes itself arguments that it deprecates
@pytest.mark.parametrize("how", ["prompt lookup", "early exit"])
def test_drafting_stops_at_the_last_token_of_a_text(make_lm, how):
    model = make_lm(n_layer=2)
    prompt = torch.randint(1, 23, (1, 7), generator=torch.Generator().manual_seed(0)).repeat(1, 2)
    plain = generate(model, prompt, n_loops=N_LOOPS, max_new_tokens=12)
    end = plain[0, -6].item()
    drafting = {"prompt_lookup_num_tokens": 4} if how == "prompt lookup" else {"assistant_early_exit": 2}
    settings = {"n_loops": N_LOOPS, "max_new_tokens": 12, "eos_token_id": end}
    expected = generate(model, prompt, **settings)
    assert expected.shape[1] < plain.shape[1]
    assert torch.equal(generate(model, prompt, **settings, **drafting), expected)
