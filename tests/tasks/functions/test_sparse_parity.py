import itertools

import numpy as np
import pytest
import torch

from tasks.baselines.prefixes import predict_prefixes
from tasks.functions.sparse_parity import SparseParity


def draw(task, n_prompts, n_points, **sizes):
    prompts = task.sample(n_prompts, torch.Generator().manual_seed(0), n_points=n_points, **sizes)
    return prompts["xs"], prompts["ys"]


def explanations(xs, ys, sparsity, n_dims):
    """All choices of coordinates whose product is y at every x."""
    choices = itertools.combinations(range(n_dims), sparsity)
    return [choice for choice in choices if (xs[:, list(choice)].prod(dim=1) == ys).all()]


@pytest.mark.parametrize(("sparsity", "n_dims_active"), [(2, 4), (2, 6), (3, 5)])
def test_each_prompt_is_the_parity_of_a_choice_of_its_own_among_the_active(sparsity, n_dims_active):
    xs, ys = draw(SparseParity(n_dims=6, sparsity=sparsity), 400, 60, n_dims_active=n_dims_active)
    assert set(xs[..., :n_dims_active].unique().tolist()) == {-1, 1}
    found = [explanations(x, y, sparsity, 6) for x, y in zip(xs, ys, strict=True)]
    assert {len(choices) for choices in found} == {1}
    used = np.bincount([coordinate for (choice,) in found for coordinate in choice], minlength=6) / 400
    np.testing.assert_allclose(used[:n_dims_active], sparsity / n_dims_active, atol=0.1)
    assert not used[n_dims_active:].any()


@pytest.mark.parametrize("sparsity", [1, 2, 3])
def test_the_limit_is_the_mean_over_all_parities_that_agree(sparsity):
    task = SparseParity(n_dims=6, sparsity=sparsity)
    xs, ys = draw(task, 10, 12)
    predictions = predict_prefixes(task.limit.predictor, xs, ys)
    for prompt in range(10):
        for n in (1, 3, 11):
            agreeing = explanations(xs[prompt, :n], ys[prompt, :n], sparsity, 6)
            expected = np.mean([xs[prompt, n, list(choice)].prod().item() for choice in agreeing])
            assert predictions[prompt, n].item() == pytest.approx(expected)


def test_the_limit_is_right_after_few_examples_and_zero_where_nothing_agrees():
    task = SparseParity()
    xs, ys = draw(task, 200, 20)
    predictions = predict_prefixes(task.limit.predictor, xs, ys)
    errors = task.score(predictions.numpy(), {"labels": ys})
    assert errors[:, 1].mean() > 0.9
    assert errors[:, 15:].mean() < 0.01
    assert not task.limit.predictor(xs[:, :3], 0.5 * ys[:, :3], xs[:, 3]).any()


def test_bad_sparsity_is_refused():
    with pytest.raises(ValueError, match="`sparsity` must be an integer >= 1, got 0"):
        SparseParity(sparsity=0)
    with pytest.raises(ValueError, match=r"`sparsity` must be <= the active dim.* 2 > 1"):
        SparseParity(n_dims=1)
