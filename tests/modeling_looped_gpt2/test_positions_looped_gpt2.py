"""What tells a token its place: a learned embedding, given positions, or the causal mask alone."""

import pytest
import torch


# two numbers of three digits with their signs: the place of each digit in its number, 0 for a sign
DIGITS = torch.tensor([[1, 2, 3, 0, 1, 2, 3], [1, 2, 3, 0, 1, 2, 3]])


def test_positions_may_count_anything(make_lm, batch):
    """Given a mask they do not part a row into sequences."""
    model = make_lm()
    ids = batch["input_ids"][:1].repeat(2, 1)
    ids[1, 0] = 3
    mask = torch.ones_like(ids)
    logits = model(ids, attention_mask=mask, position_ids=DIGITS, n_loops=3).logits
    assert not torch.allclose(logits[0, -1], logits[1, -1])  # the last token sees the first
    wpe = model.transformer.wpe.weight.data
    wpe[:7] = wpe[DIGITS[0]].clone()
    torch.testing.assert_close(model(ids, attention_mask=mask, n_loops=3).logits, logits)


@pytest.mark.parametrize("cache", [{"use_cache": False}, {}, {"cache_implementation": "static"}])
def test_generate_counts_on_from_given_positions(make_lm, batch, cache):
    model = make_lm()
    ids, mask = batch["input_ids"][:1].repeat(2, 1), torch.ones(2, 7, dtype=torch.long)
    settings = {"max_new_tokens": 4, "do_sample": False, "n_loops": 3}
    texts = model.generate(ids, attention_mask=mask, position_ids=DIGITS, **settings, **cache)
    positions = torch.cat((DIGITS, torch.tensor([[4, 5, 6]]).expand(2, 3)), dim=1)
    logits = model(texts[:, :-1], attention_mask=torch.ones(2, 10), position_ids=positions, n_loops=3).logits
    assert torch.equal(logits[:, 6:].argmax(-1), texts[:, 7:])


def test_without_an_embedding_no_length_is_too_long(make_lm, make_model, batch):
    model = make_lm(position_embedding="none", n_positions=4)
    assert not any("wpe" in name for name in model.state_dict())
    settings = {"max_new_tokens": 5, "do_sample": False}
    text = model.generate(batch["input_ids"][:1], **settings)
    assert torch.equal(model.generate(batch["input_ids"][:1], **settings, use_cache=False), text)
    assert text.shape == (1, 12)
    xs, ys = torch.randn(2, 9, 3), torch.randn(2, 9)
    head = make_model(position_embedding="none", n_positions=4)
    predictions = head(xs, ys).predictions
    context = head.encode_context(xs[:, :8], ys[:, :8])
    torch.testing.assert_close(head.predict(xs[:, 8:], context), predictions[:, 8:], rtol=1e-4, atol=1e-5)


def test_without_an_embedding_positions_only_tell_sequences_apart(make_lm, batch):
    model = make_lm(position_embedding="none")
    ids = batch["input_ids"][:1]
    mask = torch.ones_like(ids)
    expected = model(ids, attention_mask=mask).logits
    assert torch.equal(model(ids, attention_mask=mask, position_ids=DIGITS[:1] + 1000).logits, expected)
    packed = model(ids, position_ids=torch.tensor([[0, 1, 2, 3, 0, 1, 2]]), use_cache=False).logits
    apart = [model(part).logits for part in ids.split([4, 3], dim=1)]
    torch.testing.assert_close(packed, torch.cat(apart, dim=1), rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match=r"`position_ids` must be in 0 \.\.\. \d+, got -1 to 3"):
        model(ids, position_ids=torch.tensor([[-1, 1, 2, 3, 0, 1, 2]]))


def test_dropout_of_embeddings_acts_without_positions(make_lm, batch):
    model = make_lm(position_embedding="none", embd_pdrop=0.5).train()
    assert not torch.equal(model(**batch).logits, model(**batch).logits)
