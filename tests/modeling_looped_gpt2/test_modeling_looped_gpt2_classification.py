import pytest
import torch

from modeling_looped_gpt2 import LoopedGPT2Config, LoopedGPT2ForInContextClassification


@pytest.fixture
def model(make_config):
    return LoopedGPT2ForInContextClassification(make_config(n_positions=12, n_loops=3, num_labels=4)).eval()


@pytest.fixture
def examples():
    xs = torch.randn(2, 6, 3)
    return xs, torch.randint(0, 4, (2, 6))


def test_logits_and_loss_are_those_of_every_loop_of_the_window(model, examples):
    xs, ys = examples
    outputs = model(xs, ys, labels=ys, loop_window=2, output_loop_logits=True)
    assert outputs.logits.shape == (2, 6, 4)
    assert outputs.loop_logits.shape == (2, 2, 6, 4)
    alone = torch.stack([model(xs, ys, n_loops=n).logits for n in (2, 3)], dim=1)
    torch.testing.assert_close(outputs.loop_logits, alone)
    log_probabilities = alone.log_softmax(dim=-1)
    expected = -log_probabilities.gather(3, ys[:, None, :, None].expand(2, 2, 6, 1)).mean()
    torch.testing.assert_close(outputs.loss, expected)


def test_a_point_that_is_left_out_counts_in_no_loss(model, examples):
    xs, ys = examples
    kept = [0, 2, 3, 5]
    outputs = model(xs, ys, labels=ys.index_fill(1, torch.tensor([1, 4]), -100), loop_window=1)
    expected = torch.nn.functional.cross_entropy(outputs.logits[:, kept].flatten(0, 1), ys[:, kept].flatten())
    torch.testing.assert_close(outputs.loss, expected)


def test_scores_depend_on_earlier_classes_only(model, examples):
    xs, ys = examples
    changed = ys.clone()
    changed[:, 3] = (changed[:, 3] + 1) % 4
    before, after = model(xs, ys).logits, model(xs, changed).logits
    assert torch.equal(before[:, :4], after[:, :4])
    assert not torch.allclose(before[:, 4:], after[:, 4:])
    assert torch.equal(model(xs, ys[:, :-1]).logits, before)


def test_it_learns_a_rule_from_its_examples(model):
    optimizer = torch.optim.Adam(model.train().parameters(), lr=3e-3)
    losses = []
    for _ in range(60):
        xs = torch.randn(32, 6, 3)
        ys = (xs[..., 0] > 0).long() + 2  # the same rule in every prompt: classes 2 and 3
        loss = model(xs, ys, labels=ys).loss
        losses.append(loss.item())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1] < 0.6 * losses[0]


def test_the_checkpoint_loads_with_its_code_where_the_project_is_unknown(model, examples, tmp_path, run_isolated):
    model.save_pretrained(tmp_path / "saved")
    names = {path.name for path in (tmp_path / "saved").glob("*.py")}
    assert {"modeling_looped_gpt2.py", "modeling_looped_gpt2_classification.py"} <= names
    torch.save((*examples, model(*examples).logits), tmp_path / "examples.pt")
    run_isolated(f"""
import torch
from transformers import AutoModel
xs, ys, logits = torch.load({str(tmp_path / "examples.pt")!r})
model = AutoModel.from_pretrained({str(tmp_path / "saved")!r}, trust_remote_code=True)
assert type(model).__name__ == "LoopedGPT2ForInContextClassification"
torch.testing.assert_close(model(xs, ys).logits, logits)
""")


def test_each_query_to_a_context_equals_the_last_point_of_its_own_prompt(model, examples):
    xs, ys = examples
    xs, ys, queries = xs[:, :4], ys[:, :4], torch.randn(len(xs), 5, 3)
    context = model.encode_context(xs[:, :3], ys[:, :3], n_loops=3)
    context = model.encode_context(xs[:, 3:], ys[:, 3:], context=context)
    logits = model.predict(queries, context)
    for i in range(5):
        expected = model(torch.cat((xs, queries[:, i : i + 1]), dim=1), ys, n_loops=3).logits[:, -1]
        torch.testing.assert_close(logits[:, i], expected, rtol=1e-4, atol=1e-5)


BAD = {
    "shape of xs": (lambda xs, ys: (xs[..., :2], ys, None), "`xs` must have shape .*n_dims = 3"),
    "too long": (lambda xs, ys: (xs.repeat(1, 2, 1), ys, None), "`xs` must hold 1 to 6 points"),
    "shape of ys": (lambda xs, ys: (xs, ys[:, :2], None), "`ys` must have shape"),
    "shape of labels": (lambda xs, ys: (xs, ys, ys[:, :2]), "`labels` must have shape"),
    "integers": (lambda xs, ys: (xs.long(), ys, None), "`xs` must be floating point"),
    "classes as floats": (lambda xs, ys: (xs, ys.float(), None), "`ys` must hold classes as integers"),
    "class out of range": (lambda xs, ys: (xs, ys + 4, None), r"`ys` must be in 0 \.\.\. `num_labels` - 1 = 3"),
    "labels as floats": (lambda xs, ys: (xs, ys, ys.float()), "`labels` must hold classes as integers"),
    "label out of range": (lambda xs, ys: (xs, ys, ys - 9), r"`labels` must be in 0 \.\.\. `num_labels` - 1 = 3"),
    "NaN": (lambda xs, ys: (xs * torch.nan, ys, None), "`xs` must be finite"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_prompts_are_refused_by_name(name, model, examples):
    change, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        model(*change(*examples))


def test_one_class_is_refused():
    with pytest.raises(ValueError, match="`num_labels` must be >= 2, got 1"):
        LoopedGPT2ForInContextClassification(LoopedGPT2Config(num_labels=1))
