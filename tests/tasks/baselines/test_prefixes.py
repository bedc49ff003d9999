from functools import partial

import pytest
import torch

from tasks import make_task
from tasks.baselines.classical import predict_least_squares, predict_ridge, predict_zero
from tasks.baselines.prefixes import PredictorFamily, name_predictions, predict_prefixes


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


def test_a_family_answers_as_its_members_do_each_under_a_name_of_its_own(prompts):
    def predict(xs, ys, query):
        return torch.stack([predict_ridge(xs, ys, query, alpha) for alpha in (0.5, 2.0)], dim=1)

    ridge = PredictorFamily(predict, ("alpha 0.5", "alpha 2"))
    xs, ys = prompts["xs"], torch.stack((prompts["ys"], -prompts["ys"]), dim=2)
    for values in (prompts["ys"], ys):
        curves = name_predictions("ridge", ridge, predict_prefixes(ridge, xs, values))
        assert list(curves) == ["ridge, alpha 0.5", "ridge, alpha 2"]
        for alpha, curve in zip((0.5, 2.0), curves.values(), strict=True):
            assert torch.equal(curve, predict_prefixes(partial(predict_ridge, alpha=alpha), xs, values))
    alone = predict_prefixes(predict_ridge, xs, ys)
    assert name_predictions("ridge", predict_ridge, alone) == {"ridge": alone}


BAD_PROMPTS = {
    "empty": ((0, 3, 2), (0, 3), "`xs` must have shape .*, none of them 0, got"),
    "two axes": ((3, 2), (3, 2), "`xs` must have shape"),
    "ys": ((4, 3, 2), (4, 5), r"`ys` must have shape \(4, 3\) or \(4, 2\), and one more axis for vec.*, got \(4, 5\)"),
    "no outputs": ((4, 3, 2), (4, 3, 0), r"`ys` must have shape .*, got \(4, 3, 0\)"),
    "too many axes": ((4, 3, 2), (4, 3, 2, 1), r"`ys` must have shape .*, got \(4, 3, 2, 1\)"),
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
