import pytest
import torch

from tasks import make_task
from tasks.baselines.classical import predict_least_squares, predict_zero
from tasks.baselines.prefixes import predict_prefixes


@pytest.fixture
def prompts():
    return make_task("linear_regression", n_dims=4).sample(8, torch.Generator().manual_seed(0), n_points=10)


def test_queries_take_the_place_of_the_points(prompts):
    xs, ys = prompts["xs"], prompts["ys"]
    queries = torch.randn(xs.shape)
    predictions = predict_prefixes(predict_least_squares, xs, ys, queries)
    for n in (1, 5, 9):
        swapped = torch.cat((xs[:, :n], queries[:, n : n + 1]), dim=1)
        expected = predict_prefixes(predict_least_squares, swapped, ys[:, :n])[:, n]
        torch.testing.assert_close(predictions[:, n], expected)


BAD_PROMPTS = {
    "empty": ((0, 3, 2), (0, 3), "`xs` must have shape .*, none of them 0, got"),
    "two axes": ((3, 2), (3, 2), "`xs` must have shape"),
    "ys": ((4, 3, 2), (4, 5), r"`ys` must have shape \(4, 3\) or \(4, 2\), got \(4, 5\)"),
}


@pytest.mark.parametrize("name", BAD_PROMPTS)
def test_wrong_shapes_are_refused(name):
    xs, ys, message = BAD_PROMPTS[name]
    with pytest.raises(ValueError, match=message):
        predict_prefixes(predict_zero, torch.zeros(xs), torch.zeros(ys))


def test_values_that_are_not_finite_and_strange_queries_are_refused(prompts):
    xs, ys = prompts["xs"], prompts["ys"].clone()
    with pytest.raises(ValueError, match="`queries` must have the shape"):
        predict_prefixes(predict_zero, xs, ys, xs[:, 1:])
    ys[0, 0] = torch.nan
    with pytest.raises(ValueError, match="`ys` must be finite"):
        predict_prefixes(predict_zero, xs, ys)
