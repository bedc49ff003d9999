"""Every objective against its definition, gradients included."""

import numpy as np
import pytest
import torch
from accelerate.state import PartialState

from modeling_looped_gpt2 import LoopedGPT2Config
from scripts.training.objectives import OBJECTIVES, Regression
from tasks import TASKS


SIZES = {"n_embd": 8, "n_head": 2, "n_dims": 2, "n_positions": 12, "n_loops": 3, "num_labels": 3, "vocab_size": 7}
LOOPS = {"n_loops": 3, "loop_window": 2}
WINDOW = (1, 2)  # the loops of it; loop i is the last of i + 1, of which all but the first carry a gradient


@pytest.fixture(autouse=True)
def _no_state_is_left():
    yield
    PartialState._reset_state()


def batch_of(name):
    xs = torch.randn(4, 5, 2)
    ids = torch.randint(7, (4, 6))
    classes = torch.randint(3, (4, 5))
    values = torch.randn(4, 5)
    asked = torch.tensor([[0, 0, 1, 0, 1, 1]] * 3 + [[1, 1, 1, 1, 1, 1]]).bool()
    return {
        "regression": {"xs": xs, "ys": values, "labels": values + 0.1},
        "classification": {"xs": xs, "ys": classes, "labels": classes},
        "next_token": {"input_ids": ids, "labels": ids},
        "answer_slots": {"input_ids": ids, "labels": torch.where(asked, torch.randint(7, (4, 6)), -100)},
    }[name]


def model_of(name):
    return OBJECTIVES[name].model_class(LoopedGPT2Config(**SIZES)).train()


def squared_errors(model, batch):
    for loop in WINDOW:
        predictions = model(batch["xs"], batch["ys"], n_loops=loop + 1, loop_window=loop).predictions
        for prompt in range(4):
            for point in range(5):
                yield loop, point, (predictions[prompt, point] - batch["labels"][prompt, point]) ** 2


def mean(values):
    values = list(values)
    return sum(values) / len(values)


def naive_regression(model, batch):
    return mean(error for _, _, error in squared_errors(model, batch))


def naive_classification(model, batch):
    def nats():
        for loop in WINDOW:
            logits = model(batch["xs"], batch["ys"], n_loops=loop + 1, loop_window=loop).logits
            for prompt in range(4):
                for point in range(5):
                    yield -logits[prompt, point].log_softmax(dim=0)[batch["labels"][prompt, point]]

    return mean(nats())


def naive_tokens(model, batch, shift):
    def nats():
        for loop in WINDOW:
            logits = model(batch["input_ids"], n_loops=loop + 1, loop_window=loop).logits
            for prompt in range(4):
                for place in range(6 - shift):
                    label = batch["labels"][prompt, place + shift]
                    if label != -100:
                        yield -logits[prompt, place].log_softmax(dim=0)[label]

    return mean(nats())


NAIVE = {
    "regression": naive_regression,
    "classification": naive_classification,
    "next_token": lambda model, batch: naive_tokens(model, batch, shift=1),
    "answer_slots": lambda model, batch: naive_tokens(model, batch, shift=0),
}


def gradients(loss, model):
    return torch.autograd.grad(loss, [p for p in model.parameters() if p.requires_grad])


def assert_same_gradients(loss, naive, model):
    for found, expected in zip(gradients(loss, model), gradients(naive, model), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_loss_is_what_it_is_defined_as(name):
    model, batch = model_of(name), batch_of(name)
    loss, means = OBJECTIVES[name]()(model, batch, LOOPS)
    naive = NAIVE[name](model, batch)
    torch.testing.assert_close(loss, naive)
    assert next(iter(means)) == "loss"
    torch.testing.assert_close(means["loss"], loss.detach())
    assert all(value.shape == () and not value.requires_grad for value in means.values())
    assert_same_gradients(loss, naive, model)


@pytest.mark.parametrize("balance", [0.5, 1.0])
def test_a_balanced_loss_weighs_every_loop_and_point_by_its_own_error(balance):
    model, batch = model_of("regression"), batch_of("regression")
    loss, means = Regression(loss_balance=balance)(model, batch, LOOPS)
    errors = list(squared_errors(model, batch))
    terms = []
    for loop in WINDOW:
        for point in range(5):
            error = mean(error for at, place, error in errors if (at, place) == (loop, point))
            terms.append(error / error.item() ** balance)
    torch.testing.assert_close(loss, mean(terms))
    torch.testing.assert_close(means["loss"], mean(error for *_, error in errors).detach())
    assert_same_gradients(loss, mean(terms), model)


def test_what_is_logged_beside_the_loss_is_of_the_last_loop():
    for name, kind in OBJECTIVES.items():
        model, batch = model_of(name), batch_of(name)
        answers = kind().answers(model.eval(), batch)
        _, means = kind()(model, batch, {"n_loops": 3, "loop_window": None})
        labels = batch["labels"]
        expected = {
            "regression": {"error_at_last_point": mean((answers[:, -1] - labels[:, -1]) ** 2)},
            "classification": {"error_at_last_point": mean((answers[:, -1] != labels[:, -1]).float())},
            "answer_slots": {"error_rate": (answers != labels)[labels != -100].float().mean()},
        }.get(name, {})
        assert means.keys() == {"loss"} | expected.keys()
        for key, value in expected.items():
            torch.testing.assert_close(means[key], value)


@pytest.mark.parametrize("loop_encoding", [None, "step", "share"])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_answers_after_every_loop_are_those_of_calls_of_as_many(name, loop_encoding):
    objective = OBJECTIVES[name]()
    model = objective.model_class(LoopedGPT2Config(**SIZES, loop_encoding=loop_encoding)).eval()
    for parameter in model.transformer.loop_weights.parameters():
        torch.nn.init.normal_(parameter)
    batch = batch_of(name) | {"hops": torch.zeros(4, 5)}  # a column that is not for the model
    loops = objective.answers(model, batch, n_loops=3, every_loop=True)
    for n_loops in (1, 2, 3):
        answers = objective.answers(model, batch, n_loops)
        assert answers.dtype == (torch.float32 if name == "regression" else torch.int64)
        assert answers.shape == batch["labels"].shape
        torch.testing.assert_close(loops[:, n_loops - 1], answers)
    assert torch.equal(objective.answers(model, batch), loops[:, -1])
    assert not loops.requires_grad


@pytest.mark.parametrize("name", ["regression", "classification"])
def test_a_model_of_sets_is_asked_for_every_number_of_examples(name):
    kind, batch = OBJECTIVES[name], batch_of(name)
    model = kind.model_class(LoopedGPT2Config(**SIZES, example_order="set")).eval()
    answers, by_loop = kind().answers(model, batch), kind().answers(model, batch, every_loop=True)
    assert answers.shape == (4, 5)
    assert torch.equal(by_loop[:, -1], answers)
    for n in range(5):
        outputs = model(batch["xs"][:, : n + 1], batch["ys"][:, :n])
        expected = outputs.predictions if name == "regression" else outputs.logits.argmax(dim=-1)
        torch.testing.assert_close(answers[:, n : n + 1], expected)
    split = {"xs": batch["xs"], "ys": batch["ys"][:, :3], "labels": batch["labels"][:, 3:]}
    loss, means = kind()(model.train(), split, LOOPS)
    expected = model(**split, **LOOPS).loss
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(means["loss"], expected.detach())
    assert_same_gradients(loss, expected, model)


def test_answers_do_not_look_at_labels():
    for name, kind in OBJECTIVES.items():
        model, batch = model_of(name).eval(), batch_of(name)
        hidden = {column: batch[column] for column in kind.answer_columns}
        assert torch.equal(kind().answers(model, batch), kind().answers(model, hidden))


@pytest.mark.parametrize("name", ["next_token", "answer_slots"])
def test_a_batch_may_bring_its_positions(name):
    model, objective, batch = model_of(name), OBJECTIVES[name](), batch_of(name)
    n_tokens = batch["input_ids"].shape[1]
    digits = {"position_ids": torch.arange(n_tokens) % 3, "attention_mask": torch.ones(n_tokens, dtype=torch.long)}
    digits = {column: values.expand(batch["input_ids"].shape) for column, values in digits.items()}
    loss, _ = objective(model, batch | digits, LOOPS)
    positions = model.transformer.wpe.weight
    positions.data[:n_tokens] = positions.data[torch.arange(n_tokens) % 3]
    expected, _ = objective(model, batch, LOOPS)
    torch.testing.assert_close(loss, expected)
    answers = objective.answers(model.eval(), batch | digits)
    assert torch.equal(answers, objective.answers(model, batch))


def test_vectors_are_predicted_as_values_are():
    model = Regression.model_class(LoopedGPT2Config(**SIZES, n_outputs=2)).train()
    batch = {"xs": torch.randn(4, 5, 2), "ys": torch.randn(4, 5, 2), "labels": torch.randn(4, 5, 2)}
    loss, means = Regression()(model, batch, LOOPS)
    torch.testing.assert_close(loss.detach(), means["loss"])
    answers = Regression().answers(model.eval(), batch)
    assert answers.shape == (4, 5, 2)
    last = mean((answers[:, -1] - batch["labels"][:, -1]).square().sum(dim=1))
    torch.testing.assert_close(means["error_at_last_point"], last)


def test_a_task_scores_the_answers_of_its_objective():
    task = TASKS["linear_regression"](n_dims=2, n_points=5)
    prompts = task.sample(4, torch.Generator().manual_seed(0))
    answers = Regression().answers(model_of("regression").eval(), prompts)
    assert np.isfinite(task.score(answers.numpy(), prompts)).all()


def test_prompts_of_fewer_dimensions_than_are_read_are_answered_with_zeros_in_the_others():
    model = model_of("regression").eval()
    xs, ys = torch.randn(4, 5, 1), torch.randn(4, 5)
    answers = Regression().answers(model, {"xs": xs, "ys": ys})
    wide = Regression().answers(model, {"xs": torch.cat((xs, torch.zeros_like(xs)), dim=2), "ys": ys})
    assert torch.equal(answers, wide)
    with pytest.raises(ValueError, match="`xs` must have shape"):
        Regression().answers(model, {"xs": torch.randn(4, 5, 3), "ys": ys})
