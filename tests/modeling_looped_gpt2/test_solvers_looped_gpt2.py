"""Solvers on loops that are plain functions of numbers, beside a row after another by hand."""

import pytest
import torch

from modeling_looped_gpt2.solvers_looped_gpt2 import run_until, truncated, unroll
from modeling_looped_gpt2.stop_rules_looped_gpt2 import PerRow, Settled


@pytest.fixture
def weight():
    return torch.tensor([0.5, -0.3], requires_grad=True)


def make_loop(weight, seen=None):
    """A loop that depends on its number, as an encoding of loops would."""

    def loop(state, number, rows):
        if seen is not None:
            seen.append((number, None if rows is None else rows.tolist(), torch.is_grad_enabled()))
        output = state * weight[0] + weight[1] * (number + 1)
        return output, output.sin()

    return loop


def by_hand(weight, state, n_loops, window):
    """Outputs of the last `window` loops of one row, those before without gradient."""
    outputs = []
    for number in range(n_loops):
        if number == n_loops - window:
            state = state.detach()
        output = state * weight[0] + weight[1] * (number + 1)
        state = output.sin()
        outputs.append(output)
    return outputs[-window:]


def gradient(values, weight):
    (grad,) = torch.autograd.grad(sum(value.square().sum() for value in values), weight)
    return grad


@pytest.mark.parametrize(("n_loops", "window"), [(1, 1), (5, 5), (5, 2), (4, 1)])
def test_unroll(weight, n_loops, window):
    state, seen, lasts = torch.randn(3, 2), [], []

    def finish(output, after, is_last):
        assert torch.equal(after, output.sin())
        lasts.append(is_last)
        return output * 2

    shown = unroll(make_loop(weight, seen), finish, state, n_loops, window, shows_window=True)
    expected = [2 * output for output in by_hand(weight, state, n_loops, window)]
    torch.testing.assert_close(shown, expected)
    torch.testing.assert_close(gradient(shown, weight), gradient(expected, weight))
    assert seen == [(number, None, number >= n_loops - window) for number in range(n_loops)]
    assert lasts == [False] * (window - 1) + [True]
    (last,) = unroll(make_loop(weight), finish, state, n_loops, window)
    torch.testing.assert_close(last, expected[-1])


@pytest.mark.parametrize("window", [None, 1, 2])
@pytest.mark.parametrize("n_shown", [1, 2])
def test_each_row_runs_its_number_of_loops(weight, window, n_shown):
    n_loops, state, seen = torch.tensor([4, 2, 6, 2]), torch.randn(4, 3), []
    loop = make_loop(weight, seen)
    if window is not None:
        loop = truncated(loop, n_loops - window)
    shown, used = run_until(loop, state, [PerRow(n_loops)], n_shown)
    assert torch.equal(used, n_loops)
    for row, n in enumerate(n_loops.tolist()):
        own = [(number, carries) for number, rows, carries in seen if row in rows]
        assert own == [(number, number >= n - (window or n)) for number in range(n)]
    assert len(shown) == n_shown
    rows = [by_hand(weight, state[row], n, window or n)[-n_shown:] for row, n in enumerate(n_loops.tolist())]
    if window == 1 and n_shown == 2:  # the first of them is before the window
        rows = [[by_hand(weight, state[row], n, n)[-2].detach(), rows[row][-1]] for row, n in enumerate(n_loops)]
    expected = [torch.stack([row[i] for row in rows]) for i in range(n_shown)]
    torch.testing.assert_close(shown, expected)
    torch.testing.assert_close(gradient(shown, weight), gradient(expected, weight))


def test_any_of_several_rules_ends_a_row():
    state = torch.tensor([[[1.0]], [[1.0]], [[100.0]]])  # (B, T, E)

    def loop(state, number, rows):
        return state, state * 0.5 + 1.0  # towards 2

    places = torch.zeros(3, 1, dtype=torch.long)
    rules = [PerRow(torch.tensor([2, 50, 50])), Settled(0.01, places)]
    used = run_until(loop, state, rules)[1].tolist()
    assert used[0] == 2
    alone = [run_until(loop, state[[row]], [Settled(0.01, places[:1])])[1].item() for row in (1, 2)]
    assert used[1:] == alone
    assert 2 < used[1] < used[2] < 50
