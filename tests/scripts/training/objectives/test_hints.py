import pytest
import torch
from accelerate.state import PartialState

from scripts.training.objectives import Regression
from scripts.training.objectives.hints import HintReader, Hints


def test_every_token_is_asked_for_the_hint_of_its_point():
    reader = HintReader(n_embd=6, n_hints=3)
    states = [torch.randn(4, 9, 6) for _ in range(2)]
    hints = torch.randn(4, 5, 3)
    errors = reader(states, hints)
    assert errors.shape == (2, 9)
    for loop in range(2):
        for point in range(5):
            read = reader.of_x(states[loop][:, 2 * point])
            expected = sum((read[prompt] - hints[prompt, point]).square().sum() for prompt in range(4)) / 4
            torch.testing.assert_close(errors[loop, point], expected)
        for point in range(4):
            read = reader.of_y(states[loop][:, 2 * point + 1])
            expected = sum((read[prompt] - hints[prompt, point]).square().sum() for prompt in range(4)) / 4
            torch.testing.assert_close(errors[loop, 5 + point], expected)


def test_hints_train_the_states():
    reader = HintReader(n_embd=6, n_hints=3)
    states = torch.randn(4, 9, 6, requires_grad=True)
    reader([states], torch.randn(4, 5, 3)).mean().backward()
    assert (states.grad.abs().sum(dim=2) > 0).all()


def test_states_that_hold_the_hints_have_no_error():
    reader = HintReader(n_embd=3, n_hints=3)
    with torch.no_grad():
        for reads in (reader.of_x, reader.of_y):
            reads.weight.copy_(torch.eye(3))
            reads.bias.zero_()
    hints = torch.randn(2, 4, 3)
    states = hints.repeat_interleave(2, dim=1)[:, :-1]
    assert not reader([states], hints).any()


@pytest.mark.parametrize("balance", [0.0, 0.5])
def test_a_hint_adds_to_the_loss_and_is_weighed_as_it_is(balance, make_model):
    model, plain = make_model(n_loops=3, n_dims=3), Regression(loss_balance=balance)
    reader = HintReader(model.config.n_embd, 3)
    batch = {"xs": torch.randn(4, 5, 3), "ys": torch.randn(4, 5), "labels": torch.randn(4, 5)}
    hints, loops = torch.randn(4, 5, 3), {"n_loops": 3, "loop_window": 2}
    objective = Hints(plain, 0.3, reader)
    loss, means = objective(model, batch | {"hints": hints}, loops)
    expected, plain_means = plain(model, batch, loops)
    states = model(**batch, **loops, output_loop_hidden_states=True).loop_hidden_states
    errors = reader(states, hints)
    expected = expected + 0.3 * (errors / errors.detach() ** balance).mean()
    torch.testing.assert_close(loss, expected)
    assert means == plain_means | {"hint_error": errors[-1].mean()}
    weights = [*model.parameters(), *reader.parameters()]
    for found, wanted in zip(torch.autograd.grad(loss, weights), torch.autograd.grad(expected, weights), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)
    assert torch.equal(objective.answers(model, batch), plain.answers(model, batch))
    assert (objective.module, objective.model_class) == (reader, Regression.model_class)
    PartialState._reset_state()
