import pytest
import torch
from sklearn.tree import DecisionTreeRegressor

from tasks.baselines.boosted_trees import predict_boosted_trees


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_the_greedy_tree_fits_as_well_as_that_of_scikit_learn(depth):
    # of equally good splits either may take another, so the answers may differ but not the error
    xs, ys = torch.randn(20, 25, 5), torch.randn(20, 25)
    settings = {"n_trees": 1, "depth": depth, "learning_rate": 1.0, "l2": 0.0, "base_score": None}
    fitted = torch.stack([predict_boosted_trees(xs, ys, xs[:, i], **settings) for i in range(25)], dim=1)
    for x, y, values in zip(xs, ys.double(), fitted, strict=True):
        tree = DecisionTreeRegressor(max_depth=depth, random_state=0).fit(x.numpy(), y.numpy())
        expected = (tree.predict(x.numpy()) - y.numpy()) @ (tree.predict(x.numpy()) - y.numpy())
        assert (values - y).square().sum().item() == pytest.approx(expected, rel=1e-5)


def test_a_deep_greedy_tree_remembers_every_example():
    xs, ys = torch.randn(8, 10, 4), torch.randn(8, 10)
    remembered = predict_boosted_trees(
        xs, ys, xs[:, 3], n_trees=1, depth=9, learning_rate=1.0, l2=0.0, base_score=None
    )
    torch.testing.assert_close(remembered.float(), ys[:, 3], rtol=1e-5, atol=1e-5)
