"""Masks are compared with what is written out token by token."""

import pytest
import torch
from transformers import DynamicCache
from transformers.masking_utils import and_masks

from modeling_looped_gpt2.masks_looped_gpt2 import make_mask, place_in_prompt, see_context, see_examples_before


pytestmark = pytest.mark.parametrize("attention", ["eager", "sdpa"])


@pytest.fixture
def make_visible(make_config, attention):
    """Who sees whom `(rows, T, tokens of the cache + T)` of 2 rows of T tokens behind those of a cache."""

    def make(n_tokens, n_seen=0, window=None, **arguments):
        config = make_config(attn_implementation=attention, attention_window=window)
        cache = DynamicCache()
        if n_seen:
            cache.update(torch.zeros(2, 4, n_seen, 8), torch.zeros(2, 4, n_seen, 8), 0)
        mask = make_mask(config, torch.zeros(2, n_tokens, config.n_embd), cache=cache, **arguments)
        assert mask.shape == (2, 1, n_tokens, n_seen + n_tokens)
        return mask[:, 0] if mask.dtype == torch.bool else mask[:, 0] == 0

    return make


def test_queries_see_the_context_and_themselves(make_visible):
    expected = torch.zeros(4, 10, dtype=torch.bool)
    for query in range(4):
        for key in range(10):
            expected[query, key] = key < 6 or key == 6 + query
    assert torch.equal(make_visible(4, n_seen=6, rule=see_context(6)), expected.expand(2, 4, 10))


def test_queries_see_the_examples_before_their_place_and_themselves(make_visible):
    names = [f"{value}{point}" for point in range(4) for value in "xy"][:-1] + [f"q{point}" for point in range(4)]
    expected = torch.zeros(len(names), len(names), dtype=torch.bool)
    for query, (kind, point) in enumerate(names):
        for key, (other_kind, other_point) in enumerate(names):
            of_prompt = kind != "q" and key <= query
            of_query = kind == "q" and (key == query or (other_kind != "q" and other_point < point))
            expected[query, key] = of_prompt or of_query
    assert torch.equal(make_visible(11, rule=see_examples_before(7)), expected.expand(2, 11, 11))


def test_padding_and_a_second_rule_hide_more(make_visible):
    shown = torch.tensor([[1, 1, 1, 1, 1, 1], [0, 1, 1, 1, 1, 1]])

    def see_even_tokens(batch, head, query, key):
        return (key % 2 == 0) | (key == query)

    visible = make_visible(2, n_seen=4, rule=and_masks(see_context(4), see_even_tokens), attention_mask=shown)
    assert visible.int().tolist() == [
        [[1, 0, 1, 0, 1, 0], [1, 0, 1, 0, 0, 1]],
        [[0, 0, 1, 0, 1, 0], [0, 0, 1, 0, 0, 1]],
    ]


def test_without_a_rule_the_mask_is_causal_or_left_to_attention(make_config, make_visible, attention):
    mask = make_mask(make_config(attn_implementation=attention), torch.zeros(2, 5, 32))
    if mask is not None:
        assert torch.equal(mask[0, 0] == 0, torch.ones(5, 5).tril().bool())
    shown = torch.tensor([[1] * 5, [0] + [1] * 4])
    visible = make_visible(5, attention_mask=shown)
    assert torch.equal(visible[0], torch.ones(5, 5).tril().bool())
    assert torch.equal(visible[1, 1:], torch.ones(5, 5).tril().bool()[1:] & shown[1].bool())


@pytest.mark.parametrize("window", [1, 2, 9])
def test_a_window_ends_with_the_token_itself(make_visible, window):
    expected = torch.zeros(4, 10, dtype=torch.bool)
    for query in range(4):
        for key in range(10):
            expected[query, key] = 6 + query - window < key <= 6 + query
    assert torch.equal(make_visible(4, n_seen=6, window=window), expected.expand(2, 4, 10))
    shown = torch.ones(2, 10, dtype=torch.long)
    shown[1, 8] = 0
    visible = make_visible(4, n_seen=6, window=window, attention_mask=shown)
    assert torch.equal(visible, expected & shown[:, None].bool())


@pytest.mark.parametrize("window", [1, 2, 3, 6])
def test_a_window_of_queries_counts_from_their_place_in_the_prompt(make_visible, window):
    expected = torch.zeros(4, 10, dtype=torch.bool)
    for query in range(4):  # each the token after the six of the context
        for key in range(10):
            expected[query, key] = 6 - window < key < 6 or key == 6 + query
    of_context = make_visible(4, n_seen=6, window=window, rule=see_context(6), place=lambda query: 6)
    assert torch.equal(of_context, expected.expand(2, 4, 10))
    rules = {"rule": see_examples_before(7), "place": place_in_prompt(7)}
    visible = make_visible(11, window=window, **rules)[0]
    for query in range(4):
        place = 2 * query
        keys = [key for key in range(7) if place - window < key < place]
        assert visible[7 + query].nonzero().flatten().tolist() == [*keys, 7 + query]
    assert torch.equal(visible[:7, :7], torch.ones(7, 7).tril().triu(1 - window).bool())


def test_flash_attention_reads_no_window(make_config, attention):
    config = make_config(attn_implementation=attention, attention_window=2)
    config._attn_implementation = "flash_attention_2"
    with pytest.raises(ValueError, match=r"`attention_window` = 2 needs attention that reads a mask, got .*flash"):
        make_mask(config, torch.zeros(2, 5, 32))
