from functools import partial

import numpy as np
import pytest
import torch

from tasks.baselines.prefixes import predict_last, predict_prefixes
from tasks.functions.relu_2nn_regression import Relu2nnRegression
from tasks.functions.relu_chain import ReluChain


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("n_layers", [1, 2, 3])
def test_a_chain_shows_every_layer_and_what_a_point_answers_the_next_one_asks_with(n_layers):
    task, n_steps = ReluChain(n_dims=5, n_layers=n_layers), n_layers + 1
    prompts = task.sample(6, generator(), n_points=11, n_dims_active=4)
    function = task.draw_functions(6, 4, generator())
    xs, ys = prompts["xs"], prompts["ys"]
    assert torch.equal(ys, prompts["labels"])
    assert not xs[..., 4:].any()
    assert not ys[..., 4:].any()
    for place in range(11):
        states, step = xs[:, place], place % n_steps
        if step < n_layers:
            expected = torch.einsum("bd,bde->be", states, function.hidden[step]).relu()
            assert (ys[:, place] >= 0).all()
        else:
            expected = torch.einsum("bd,bde->be", states, function.output)
            assert not ys[:, place, 1:].any()
        torch.testing.assert_close(ys[:, place], expected)
        if step and place:
            assert torch.equal(xs[:, place], ys[:, place - 1])
    torch.testing.assert_close(function(xs), ys)
    shorter = ReluChain(n_dims=5, n_points=11, n_layers=n_layers).sample(6, generator(), n_dims_active=4)
    assert torch.equal(shorter["ys"], ys)


@pytest.mark.parametrize("active", [3, 6])
def test_every_layer_has_the_mean_square_of_its_input(active):
    task = ReluChain(n_dims=6, n_layers=2)
    prompts = task.sample(20_000, generator(), n_points=3, n_dims_active=active)
    squares = prompts["labels"].square().sum(dim=2)
    errors = 4 * squares.std(dim=0) / 20_000**0.5
    assert ((squares.mean(dim=0) - active).abs() < errors).all()


def test_without_its_chain_it_is_the_network_of_two_layers_with_as_many_units_as_dimensions():
    xs = torch.tensor([1.0, 2.0, -1.0]).expand(20_000, 1, 3)
    ours = ReluChain(n_dims=3).draw_functions(20_000, 3, generator(1))
    values = ours.layer(1, ours.layer(0, xs))[:, 0, 0]
    theirs = Relu2nnRegression(n_dims=3, hidden_size=3).draw_functions(20_000, 3, generator(2))(xs)[:, 0]
    quantiles = torch.linspace(0.1, 0.9, 5)  # of a standard deviation of 2.4
    torch.testing.assert_close(values.quantile(quantiles), theirs.quantile(quantiles), rtol=0, atol=0.12)


@pytest.mark.parametrize("n_layers", [1, 2])
def test_scored_are_the_answers_after_whole_chains(n_layers):
    task = ReluChain(n_dims=4, n_layers=n_layers)
    prompts = task.sample(5, generator(), n_points=9)
    answers = prompts["labels"].numpy().copy()
    scores = task.score(answers, prompts)
    assert scores.shape == (5, 9 // (n_layers + 1))
    assert not scores.any()
    answers[:, 0] += 1  # of a hidden layer
    assert not task.score(answers, prompts).any()
    answers[:, 2 * n_layers + 1, 0] += 3  # of y after one chain
    expected = np.zeros_like(scores)
    expected[:, 1] = 9 / 4
    np.testing.assert_allclose(task.score(answers, prompts), expected, rtol=1e-5)


def test_the_limit_is_exact_after_as_many_chains_as_dimensions_where_the_steps_are_given():
    task = ReluChain(n_dims=4, n_points=14)
    prompts = task.sample(100, generator())
    predictions = predict_prefixes(task.limit.predictor, prompts["xs"], prompts["ys"])
    errors = np.median(task.score(predictions.numpy(), prompts), axis=0)
    assert (errors[:3] > 1e-3).all()
    assert (errors[4:] < 1e-9).all()


@pytest.mark.parametrize("n_layers", [1, 2])
def test_examples_where_a_unit_is_active_tell_its_weights_exactly(n_layers):
    n_dims, n_steps = 3, n_layers + 1
    task = ReluChain(n_dims=n_dims, n_points=37 * n_steps, n_layers=n_layers)
    prompts = task.sample(30, generator())
    function = task.draw_functions(30, n_dims, generator())
    xs, ys = prompts["xs"].double(), prompts["ys"].double()
    for layer in range(n_layers):
        n_shown = 36 * n_steps + layer
        states, active = xs[:, layer:n_shown:n_steps], ys[:, layer:n_shown:n_steps] > 0
        spread = torch.linalg.svdvals(states.unsqueeze(1) * active.mT.unsqueeze(3))  # (B, units, D)
        is_told = spread.amin(dim=2) > 0.3
        assert is_told.double().mean() > 0.5

        def ask(query, n_shown=n_shown):
            shown = torch.cat((xs[:, :n_shown], query.expand(30, 1, n_dims)), dim=1)
            return predict_last(task.limit.predictor, shown, ys[:, :n_shown])

        # relu(w) - relu(-w) = w; (B, D, units)
        recovered = torch.stack([ask(axis) - ask(-axis) for axis in torch.eye(n_dims).double()], dim=1)
        weights = function.hidden[layer].double()
        torch.testing.assert_close(recovered.mT[is_told], weights.mT[is_told], rtol=0, atol=1e-4)


def test_a_roll_out_shows_own_steps_and_is_exact_once_the_layers_are():
    task = ReluChain(n_dims=3, n_points=40)
    prompts = task.sample(60, generator())
    answers = task.roll_out(partial(predict_last, task.solver.predictor), prompts["xs"], prompts["ys"])
    given = predict_prefixes(task.solver.predictor, prompts["xs"], prompts["ys"])
    errors, told = (task.score(values.numpy(), prompts) for values in (answers, given))
    assert answers.shape == prompts["ys"].shape
    np.testing.assert_allclose(answers[:, 0::2], given[:, 0::2], rtol=1e-4, atol=1e-4)  # the first layer asks with x
    assert (errors[:, 1:5].mean(axis=0) > told[:, 1:5].mean(axis=0)).all()
    often = (prompts["ys"][:, :-2:2] > 0).sum(dim=1).amin(dim=1) >= 6
    assert often.sum() > 10
    assert errors[often.numpy(), -1].max() < 1e-6


@pytest.mark.parametrize("n_layers", [1, 2])
def test_a_roll_out_never_sees_the_steps_of_its_own_chain(n_layers):
    task, n_steps = ReluChain(n_dims=3, n_layers=n_layers), n_layers + 1
    prompts = task.sample(4, generator(), n_points=4 * n_steps + 1)
    seen = []

    def answer(xs, ys):
        assert xs.shape[1] == ys.shape[1] + 1
        seen.append((xs, ys))
        return xs[:, -1] + 100

    answers = task.roll_out(answer, prompts["xs"], prompts["ys"])
    assert not answers[:, 4 * n_steps :].any()  # a chain that is cut off
    for number, (xs, ys) in enumerate(seen):
        start, step = number // n_steps * n_steps, number % n_steps
        assert torch.equal(xs[:, : start + 1], prompts["xs"][:, : start + 1])
        assert torch.equal(ys[:, :start], prompts["ys"][:, :start])
        for own in range(step):  # each answer is the next question
            torch.testing.assert_close(xs[:, start + own + 1], prompts["xs"][:, start] + 100 * (own + 1))
            assert torch.equal(ys[:, start + own], xs[:, start + own + 1])
        assert torch.equal(answers[:, start + step], xs[:, -1] + 100)


def test_what_has_no_whole_chain_is_refused():
    with pytest.raises(ValueError, match="`n_layers` must be an integer >= 1, got 0"):
        ReluChain(n_layers=0)
    with pytest.raises(ValueError, match=r"`n_points` must be >= `n_layers` \+ 1 = 3, a whole chain, got 2"):
        ReluChain(n_layers=2, n_points=2)
    with pytest.raises(ValueError, match=r"`n_points` must be >= .*, got 1"):
        ReluChain().sample(1, generator(), n_points=1)
