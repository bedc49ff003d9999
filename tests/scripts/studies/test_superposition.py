"""How answers to mixed examples divide, where it is known."""

import numpy as np
import pytest
import torch

from modeling_looped_gpt2 import LoopedGPT2Config, LoopedGPT2ForInContextRegression
from scripts.studies.superposition import SHARES, divide, measure_superposition, sample_superposition, tasks_for
from tasks import make_task


CONFIG = LoopedGPT2Config(n_embd=16, n_head=2, n_dims=4, n_positions=14, n_loops=2)


def generator():
    return torch.Generator().manual_seed(0)


def pair_of(*names):
    return tuple(make_task(name, n_dims=4, n_points=12) for name in names)


def test_every_example_is_of_one_of_both_functions_by_the_share():
    pair = pair_of("linear_regression", "decision_tree")
    drawn = {share: sample_superposition(pair, share, 500, generator()) for share in SHARES}
    for share, prompts in drawn.items():
        is_first = prompts["ys"] == prompts["values"][..., 0]
        assert is_first.float().mean().item() == pytest.approx(share, abs=0.03)
        assert torch.equal(prompts["ys"][~is_first], prompts["values"][..., 1][~is_first])
        # in no order: as often at the first as at the last example
        assert is_first[:, 0].float().mean().item() == pytest.approx(is_first[:, -1].float().mean().item(), abs=0.1)
        assert all(torch.equal(prompts[name], drawn[1.0][name]) for name in ("xs", "values"))


def test_values_are_those_of_both_classes_and_examples_are_seen_through_their_noise():
    prompts = sample_superposition(pair_of("noisy_linear_regression", "quadratic_regression"), 0.5, 300, generator())
    xs, ys, values = (prompts[name].double() for name in ("xs", "ys", "values"))
    for place, features in enumerate((xs, xs.square())):
        weights = torch.linalg.lstsq(features, values[..., place, None], driver="gelsd").solution
        torch.testing.assert_close((features @ weights).squeeze(2), values[..., place], rtol=1e-3, atol=1e-3)
    of_second = ys == values[..., 1]
    assert of_second.double().mean().item() == pytest.approx(0.5, abs=0.05)
    noise = (ys - values[..., 0])[~of_second]
    assert noise.std().item() == pytest.approx(0.1, rel=0.1)


def test_answers_that_are_a_sum_of_both_functions_are_explained():
    values = torch.randn(50, 3, 2, generator=generator())
    divided = divide(values @ torch.tensor([2.0, -0.5]), values)
    np.testing.assert_allclose(divided, [[2, -0.5, 0, 1]] * 3, atol=1e-6)


def test_a_division_is_the_least_squares_fit_of_each_question_and_knows_its_error():
    values = torch.randn(60, 400, 2, generator=generator())
    noise = 3 * torch.randn(60, 400, generator=torch.Generator().manual_seed(1))
    answers = values @ torch.tensor([2.0, 1.0]) + noise
    first, second, errors, explained = divide(answers, values).T
    for question in (0, 7):
        coefficients, rest, *_ = np.linalg.lstsq(values[:, question].double(), answers[:, question].double())
        assert coefficients == pytest.approx([first[question], second[question]])
        assert explained[question] == pytest.approx(1 - rest[0] / answers[:, question].double().square().sum())
    # the larger of both errors is no less than that of either
    assert 0.85 < ((first - 2) / errors).std() < 1.05
    assert explained.mean() == pytest.approx(5 / 14, abs=0.03)


def test_examples_of_one_function_alone_determine_it():
    torch.manual_seed(0)
    model = LoopedGPT2ForInContextRegression(CONFIG).eval()
    pair = tasks_for(("linear_regression", "linear_regression"), {}, CONFIG)
    record = measure_superposition(model, pair, n_loops=2, n_prompts=300, seed=0)
    assert record["n_examples"] == [1, 3, 4, 6]
    solved = {name: np.array(values) for name, values in record["ridge"].items()}
    for row, names in ((0, ("first", "second")), (-1, ("second", "first"))):
        # the more examples, the more is known of the function they are of; none knows of the other
        assert (np.diff(solved[names[0]][row]) > 0).all()
        np.testing.assert_allclose(solved[names[1]][row], 0, atol=0.1)
        # more examples than dimensions determine it
        assert solved[names[0]][row, -1] == pytest.approx(1, abs=0.03)
        assert solved["explained"][row, -1] == pytest.approx(1, abs=0.03)
    assert solved["first"][2, -1] == pytest.approx(solved["second"][2, -1], abs=0.2)
    again = measure_superposition(model, pair, n_loops=2, n_prompts=300, seed=0)
    for name, column in record["model"].items():
        assert np.shape(column) == (len(SHARES), 4)
        np.testing.assert_allclose(again["model"][name], column, rtol=1e-4, atol=1e-6)


def test_what_a_prompt_cannot_mix_is_refused():
    with pytest.raises(
        ValueError, match="functions of any x, got many_outlier_regression, which draws x and y together"
    ):
        tasks_for(("linear_regression", "many_outlier_regression"), {}, CONFIG)
    with pytest.raises(ValueError, match="`tasks` must draw x alike, got sparse_parity and decision_tree"):
        tasks_for(("sparse_parity", "decision_tree"), {}, CONFIG)
    with pytest.raises(ValueError, match="`sparsity` must be <= the active dimensions, got 3 > 2"):
        config = LoopedGPT2Config(n_embd=16, n_head=2, n_dims=2, n_positions=14)
        tasks_for(("linear_regression", "sparse_linear_regression"), {}, config)
    with pytest.raises(ValueError, match="`n_positions` of the model must be >= 3"):
        tasks_for(("linear_regression",) * 2, {}, LoopedGPT2Config(n_embd=16, n_head=2, n_dims=2, n_positions=2))
    with pytest.raises(ValueError, match=r"1000000000000 prompts \(`n_prompts`\) cannot be drawn"):
        sample_superposition(pair_of("linear_regression", "decision_tree"), 0.5, 10**12, generator())


def test_settings_are_those_of_the_training():
    names = ("decision_tree", "sparse_linear_regression")
    components = {"decision_tree": {"weight": 1, "depth": 2}, "linear_regression": 1}
    mixture = {"task": "mixture", "task_settings": {"components": components, "guidance": True}}
    assert [tasks_for(names, recipe, CONFIG)[0].depth for recipe in ({}, mixture)] == [4, 2]
    alone = {"task": "sparse_linear_regression", "task_settings": {"sparsity": 2}}
    assert [tasks_for(names, recipe, CONFIG)[1].sparsity for recipe in (mixture, alone)] == [3, 2]
