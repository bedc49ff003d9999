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


@pytest.mark.parametrize("position_embedding", ["none", "sinusoidal", "fourier"])
def test_without_a_table_no_length_is_too_long(make_lm, make_model, batch, position_embedding):
    model = make_lm(position_embedding=position_embedding, n_positions=4)
    assert [name for name in model.state_dict() if "wpe" in name] == (
        [] if position_embedding == "none" else ["transformer.wpe.gain"]
    )
    settings = {"max_new_tokens": 5, "do_sample": False}
    text = model.generate(batch["input_ids"][:1], **settings)
    assert torch.equal(model.generate(batch["input_ids"][:1], **settings, use_cache=False), text)
    assert text.shape == (1, 12)
    xs, ys = torch.randn(2, 9, 3), torch.randn(2, 9)
    head = make_model(position_embedding=position_embedding, n_positions=4)
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


@pytest.mark.parametrize("position_embedding", ["sinusoidal", "fourier"])
def test_a_step_along_waves_is_one_rotation_everywhere(make_model, position_embedding):
    wpe = make_model(position_embedding=position_embedding, n_embd=8, n_head=2).transformer.wpe
    wpe.init_weights(0.5)
    waves = wpe(torch.arange(2000)[None])[0].detach().double()
    torch.testing.assert_close(waves.square().mean(dim=1), torch.full((2000,), 0.25).double())
    step = torch.linalg.lstsq(waves[:1000], waves[1:1001]).solution
    torch.testing.assert_close(waves[1500:-1] @ step, waves[1501:], rtol=0, atol=1e-2)
    torch.testing.assert_close(step @ step.T, torch.eye(8).double(), rtol=0, atol=1e-3)


@pytest.mark.parametrize("n_embd", [8, 64, 128])
def test_as_many_places_as_a_fourier_code_is_wide_are_orthogonal(make_model, n_embd):
    wpe = make_model(position_embedding="fourier", n_embd=n_embd, n_head=2).transformer.wpe
    wpe.init_weights(0.5)
    waves = wpe(torch.arange(1000, 1000 + n_embd)[None])[0].detach()
    torch.testing.assert_close(waves @ waves.T, 0.25 * n_embd * torch.eye(n_embd), rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("position_embedding", ["sinusoidal", "fourier"])
def test_waves_have_the_dtype_of_the_model_and_the_angles_of_float32(make_lm, position_embedding):
    model = make_lm(position_embedding=position_embedding)
    positions = torch.tensor([[0, 1, 4095]])
    expected = model.transformer.wpe(positions)
    found = model.to(torch.bfloat16).transformer.wpe(positions)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), expected, rtol=0.02, atol=1e-3)
