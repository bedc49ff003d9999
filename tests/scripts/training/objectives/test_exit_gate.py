"""The loss of a gate against its definition, loop by loop, gradients included."""

import math

import pytest
import torch
from accelerate.state import PartialState

from modeling_looped_gpt2 import LoopedGPT2Config
from scripts.training.objectives import OBJECTIVES, Classification, Regression
from scripts.training.objectives.exit_gate import ExitGate, log_exit_probabilities
from scripts.training.objectives.hints import HintReader, Hints


SIZES = {"n_embd": 8, "n_head": 2, "n_dims": 2, "n_positions": 12, "n_loops": 4, "num_labels": 3, "vocab_size": 7}


@pytest.fixture(autouse=True)
def _no_state_is_left():
    yield
    PartialState._reset_state()


def model_of(name, **changes):
    config = LoopedGPT2Config(**SIZES | changes, exit_gate=True, initializer_range=0.3)
    return OBJECTIVES[name].model_class(config).train()


def batch_of(name):
    ids, xs, values = torch.randint(7, (3, 6)), torch.randn(3, 5, 2), torch.randn(3, 5)
    classes = torch.randint(3, (3, 5))
    asked = torch.rand(3, 6) < 0.5
    asked[0, 0] = True
    return {
        "regression": {"xs": xs, "ys": values, "labels": values + 0.1},
        "classification": {"xs": xs, "ys": classes, "labels": classes},
        "next_token": {"input_ids": ids, "labels": ids},
        "answer_slots": {"input_ids": ids, "labels": torch.where(asked, ids.roll(1, 1), -100)},
    }[name]


def places(name, model, batch, n_loops, window):
    """The errors of every scored place after each loop of the window, and what the gate says there."""
    columns = {column: batch[column] for column in OBJECTIVES[name].answer_columns}
    embeds = [model._embed_prompt(columns["xs"], columns["ys"])] if "xs" in columns else []
    tokens = {"inputs_embeds": embeds[0]} if embeds else columns
    states = model.transformer(
        **tokens, n_loops=n_loops, loop_window=window, output_loop_hidden_states=True
    ).loop_hidden_states
    step, shift = (2, 0) if embeds else (1, int(name == "next_token"))
    for row, labels in enumerate(batch["labels"]):
        for place in range(len(labels) - shift):
            label = labels[place + shift]
            if label == -100:
                continue
            own = [state[row, step * place] for state in states]
            if name == "regression":
                errors = [(model.read_out(state)[0] - label) ** 2 for state in own]
            else:
                read_out = model.score if embeds else model.lm_head
                errors = [-read_out(state).log_softmax(-1)[label] for state in own]
            yield errors, [model.transformer.exit_gate(state)[0].sigmoid() for state in own]


def naive(name, model, batch, n_loops, window, weight, rate):
    weights = [(1 - rate) ** loop for loop in range(window)]
    losses = []
    for errors, gates in places(name, model, batch, n_loops, window):
        left, loss = 1.0, 0.0
        for loop in range(window):
            exits = left * gates[loop] if loop < window - 1 else left
            left = left * (1 - gates[loop])
            prior = weights[loop] / sum(weights)
            loss = loss + exits * errors[loop] + weight * exits * torch.log(torch.as_tensor(exits) / prior)
        losses.append(loss)
    return sum(losses) / len(losses)


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize(("n_loops", "window", "rate"), [(4, None, 0.0), (4, 3, 0.4), (2, 1, 0.0)])
def test_a_loss_is_what_it_is_defined_as(name, n_loops, window, rate):
    model, batch = model_of(name), batch_of(name)
    plain = OBJECTIVES[name]()
    loops = {"n_loops": n_loops, "loop_window": window}
    loss, means = ExitGate(plain, 0.3, rate)(model, batch, loops)
    expected = naive(name, model, batch, n_loops, window or n_loops, 0.3, rate)
    torch.testing.assert_close(loss, expected)
    parameters = list(model.parameters())
    found = torch.autograd.grad(loss, parameters)  # every parameter has one, as several processes need
    wanted = torch.autograd.grad(expected, parameters, allow_unused=True)
    for ours, theirs in zip(found, wanted, strict=True):
        theirs = torch.zeros_like(ours) if theirs is None else theirs
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)
    assert means.keys() == plain(model, batch, loops)[1].keys() | {"expected_loss", "exit_loops"}
    assert next(iter(means)) == "loss"
    assert all(value.shape == () and not value.requires_grad for value in means.values())
    assert 1 <= means["exit_loops"] <= (window or n_loops)


def test_the_probabilities_of_exits_are_those_of_a_gate_and_sum_to_one():
    gates = torch.randn(5, 7, 4) * 3
    exits = log_exit_probabilities(gates).exp()
    torch.testing.assert_close(exits.sum(-1), torch.ones(5, 7))
    left = torch.ones(5, 7)
    for loop in range(3):
        torch.testing.assert_close(exits[..., loop], left * gates[..., loop].sigmoid())
        left = left * (1 - gates[..., loop].sigmoid())
    huge = log_exit_probabilities(torch.tensor([[1e4, 0.0, 0.0], [-1e4, -1e4, 0.0]], requires_grad=True))
    assert huge.isfinite().all()
    assert huge.exp().argmax(-1).tolist() == [0, 2]


@pytest.mark.parametrize("rate", [0.0, 0.3])
def test_without_errors_the_gate_learns_the_prior(rate):
    gates = torch.zeros(4, requires_grad=True)
    prior = torch.tensor([(1 - rate) ** loop for loop in range(4)])
    prior = prior / prior.sum()
    objective = ExitGate(Regression(), 1.0, rate)

    class Outputs:
        loss = torch.zeros(())
        predictions, loop_predictions = torch.zeros(1, 1), torch.zeros(1, 4, 1)
        loop_quantiles = None

        @property
        def loop_exit_logits(self):
            return gates.view(1, 4, 1)

    optimizer = torch.optim.Adam([gates], lr=0.1)
    for _ in range(300):
        loss, _ = objective.losses(Outputs(), {"labels": torch.zeros(1, 1)})
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    torch.testing.assert_close(log_exit_probabilities(gates.detach()).exp(), prior, rtol=1e-2, atol=1e-3)
    assert math.isclose(loss.item(), 0.0, abs_tol=1e-4)


def test_a_gate_learns_to_wait_for_the_better_loop():
    """Errors of two places fall to nothing after loop 1 or loop 3: the gate that sees which learns to stop there."""
    gates = torch.zeros(2, 4, requires_grad=True)
    errors = torch.tensor([[0.0, 0.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0]])
    optimizer = torch.optim.Adam([gates], lr=0.1)
    for _ in range(300):
        exits = log_exit_probabilities(gates).exp()
        loss = (exits * errors).sum(-1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.01
    assert exits[1, :2].sum() < 0.02


def test_hints_are_learned_beside_a_gate():
    model, gate = model_of("regression"), ExitGate(Regression(), 0.1, 0.0)
    reader, batch, hints = HintReader(8, 3), batch_of("regression"), torch.randn(3, 5, 3)
    loops = {"n_loops": 3, "loop_window": 2}
    loss, means = Hints(gate, 0.3, reader)(model, batch | {"hints": hints}, loops)
    alone, _ = gate(model, batch, loops)
    states = model(**batch, **loops, output_loop_hidden_states=True).loop_hidden_states
    torch.testing.assert_close(loss, alone + 0.3 * reader(states, hints).mean())
    assert {"exit_loops", "hint_error"} <= means.keys()


def test_answers_are_those_of_the_other_objective():
    model, batch = model_of("regression").eval(), batch_of("regression")
    gate = ExitGate(Regression(), 0.1, 0.0)
    assert torch.equal(gate.answers(model, batch, 3), Regression().answers(model, batch, 3))
    assert (gate.model_class, gate.auto_class, gate.module) == (Regression.model_class, "AutoModel", None)


def test_vectors_are_predicted_as_values_are():
    model = model_of("regression", n_outputs=2)
    batch = {"xs": torch.randn(3, 5, 2), "ys": torch.randn(3, 5, 2), "labels": torch.randn(3, 5, 2)}
    outputs = model(**batch, output_loop_predictions=True)
    errors, is_scored = Regression().errors(outputs, batch)
    assert errors.shape == (3, 4, 5)
    torch.testing.assert_close(errors.mean(), outputs.loss)
    assert is_scored.all()


def test_checkpointing_and_bfloat16_train_the_same_gate():
    model, batch, gate = model_of("classification"), batch_of("classification"), ExitGate(Classification(), 0.1, 0.2)
    loops = {"n_loops": 4, "loop_window": 3}
    parameters = list(model.parameters())
    loss, _ = gate(model, batch, loops)
    expected = torch.autograd.grad(loss, parameters)
    with torch.autocast("cpu", torch.bfloat16):
        assert model(**batch, **loops).loop_exit_logits.dtype == torch.float32
        torch.testing.assert_close(gate(model, batch, loops)[0], loss, rtol=0.02, atol=0.02)
    getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)()
    found = torch.autograd.grad(gate(model, batch, loops)[0], parameters)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
