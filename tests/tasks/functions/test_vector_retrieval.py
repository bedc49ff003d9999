import pytest
import torch

from tasks.baselines.prefixes import predict_prefixes
from tasks.functions.vector_retrieval import VectorRetrieval


def draw(task, n_prompts, n_points, **sizes):
    return task.sample(n_prompts, torch.Generator().manual_seed(0), n_points=n_points, **sizes)


def test_equal_keys_have_equal_values_and_all_are_of_one_length():
    prompts = draw(VectorRetrieval(n_dims=6, n_keys=5), 20, 40, n_dims_active=4)
    for xs, ys in zip(prompts["xs"], prompts["ys"], strict=True):
        keys, key_of = xs.unique(dim=0, return_inverse=True)
        pairs = torch.cat((xs, ys), dim=1).unique(dim=0)
        assert len(keys) == len(pairs) == len(ys.unique(dim=0)) == 5
        assert key_of.bincount().min() > 0
        torch.testing.assert_close(xs.norm(dim=1), torch.full((40,), 2.0))
        torch.testing.assert_close(ys.norm(dim=1), torch.full((40,), 6**0.5))
    assert torch.equal(prompts["ys"], prompts["labels"])
    # keys and values of different prompts, and keys and their values, have nothing to do with each other
    directions = torch.cat((prompts["xs"][:, 0, :4], prompts["ys"][:, 0]), dim=1)
    assert (torch.corrcoef(directions.T) - torch.eye(10)).abs().max() < 0.75


def test_the_value_of_another_x_is_that_of_the_nearest_key():
    function = VectorRetrieval(n_dims=3, n_keys=4).draw_functions(2, 3, torch.Generator().manual_seed(0))
    xs = torch.randn(2, 9, 3)
    for prompt in range(2):
        for point in range(9):
            nearest = (function.keys[prompt] - xs[prompt, point]).norm(dim=1).argmin()
            assert torch.equal(function(xs)[prompt, point], function.values[prompt, nearest])


def test_the_limit_is_right_where_the_key_was_seen_and_has_the_error_of_its_probability():
    task = VectorRetrieval(n_dims=4, n_keys=6)
    prompts = draw(task, 500, 12)
    predictions = predict_prefixes(task.limit.predictor, prompts["xs"], prompts["ys"])
    errors = torch.from_numpy(task.score(predictions.numpy(), prompts))
    was_seen = (prompts["xs"].unsqueeze(1) == prompts["xs"].unsqueeze(2)).all(dim=3).tril(-1).any(dim=2)
    torch.testing.assert_close(errors, (~was_seen).double(), rtol=0, atol=1e-6)
    torch.testing.assert_close(errors.mean(dim=0), (1 - 1 / 6) ** torch.arange(12.0).double(), rtol=0, atol=0.07)


def test_a_bad_number_of_keys_is_refused():
    with pytest.raises(ValueError, match="`n_keys` must be an integer >= 1, got 0"):
        VectorRetrieval(n_keys=0)
