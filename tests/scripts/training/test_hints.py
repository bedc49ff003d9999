import torch

from scripts.training.hints import HintReader


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
