"""What holds for every mechanism of the loop, from a table of settings."""

import copy

import pytest
import torch
from transformers import DynamicCache, StaticCache

from tests.modeling_looped_gpt2.mechanisms import MECHANISMS, check_training, shake, twin_of


pytestmark = pytest.mark.parametrize("name", MECHANISMS)
# of the prelude and the coda
SHAPES = {"loop": {}, "parts": {"n_prelude": 1, "n_coda": 1}}
CACHES = {
    "dynamic": lambda config: {"cache": DynamicCache(config=config)},
    "static": lambda config: {"cache": StaticCache(config, max_cache_len=14)},
    "chunked": lambda config: {"prefill_chunk_size": 3},
}


@pytest.fixture
def make_shaken(make_lm, name):
    return lambda **changes: shake(make_lm(**(MECHANISMS[name] | changes)))


@pytest.fixture
def window(name):
    """Loops that carry a gradient; without injection a window would not train the prompt."""
    return None if name == "none" else 2


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("counts", [[3, 3], [3, 2]])
def test_losses_and_gradients_are_those_of_the_twin(make_shaken, name, window, shape, counts):
    """Of texts with one number of loops, or of each with its own."""
    model = make_shaken(**SHAPES[shape]).train()
    twin = twin_of(name, model)
    ids = torch.randint(1, 23, (2, 6), generator=torch.Generator().manual_seed(1))
    check_training(model, twin, ids, counts, window)


@pytest.mark.parametrize("n_loops", [1, 3, 8])
def test_generate_with_a_cache_equals_without_and_the_twin(make_shaken, name, batch, n_loops):
    model = make_shaken(n_coda=1)
    settings = {"max_new_tokens": 5, "do_sample": False, "n_loops": n_loops}
    texts = model.generate(**batch, **settings, use_cache=False)
    for cache, given in CACHES.items():
        assert torch.equal(model.generate(**batch, **settings, **given(model.config.with_loops(n_loops))), texts), (
            cache
        )
    for text, start in zip(texts, (0, 3), strict=True):  # the second is padded on the left
        best = twin_of(name, model).logits(text[start:], n_loops)[-1][0].argmax(-1)
        assert torch.equal(best[-6:-1], text[-5:])


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")  # torch's, of the loops before the window
def test_activation_checkpointing_keeps_the_gradients(make_shaken, batch, window):
    model = make_shaken(n_prelude=1, n_coda=1).train()
    other = copy.deepcopy(model)
    # renamed in transformers 5.23
    enable = getattr(other, "activation_checkpointing_enable", None) or other.gradient_checkpointing_enable
    enable({"use_reentrant": False})
    for each in (model, other):
        each(**batch, labels=batch["input_ids"], loop_window=window).loss.backward()
    for parameter, expected in zip(other.parameters(), model.parameters(), strict=True):
        assert expected.grad.any()
        torch.testing.assert_close(parameter.grad, expected.grad)


def test_bfloat16_is_near_float32(make_shaken, batch):
    model = make_shaken()
    seen = batch["attention_mask"].bool()
    exact = model(**batch).logits[seen]
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(**batch).logits[seen]
    assert (logits - exact).norm() < 0.05 * exact.norm()


@pytest.mark.filterwarnings("ignore")  # of the compiler itself
@torch.no_grad()  # the gradients of a compiled loop are tested where it is
def test_loops_are_compiled_once(make_shaken, batch, graphs):
    model = make_shaken()
    expected = [model(**batch, n_loops=n_loops).logits for n_loops in (2, 5)]
    model.transformer.compile_loops()
    n_graphs = []
    for n_loops, logits in zip((2, 5), expected, strict=True):
        found = model(**batch, n_loops=n_loops, use_cache=False).logits
        torch.testing.assert_close(found, logits, rtol=1e-4, atol=1e-4)
        n_graphs.append(len(graphs))
    assert 0 < n_graphs[0] == n_graphs[1]


def test_contexts_and_queries_are_answered_as_in_a_prompt(make_model, name, prompts):
    model = shake(make_model(**MECHANISMS[name]))
    xs, ys = prompts["xs"], prompts["ys"]
    expected = model(xs, ys, n_loops=5).predictions
    torch.testing.assert_close(model.predict_at_queries(xs, ys, xs, n_loops=5), expected, rtol=1e-4, atol=1e-4)
    context = model.encode_context(xs[:, :1], ys[:, :1], n_loops=5)
    for point in range(1, 5):
        queries = torch.stack((xs[:, 0], xs[:, point]), dim=1)
        found = model.predict(queries, context)[:, 1]
        torch.testing.assert_close(found, expected[:, point], rtol=1e-4, atol=1e-4)
        context = model.encode_context(xs[:, point : point + 1], ys[:, point : point + 1], context=context)
