import pytest
import torch

from tasks.functions.decision_tree import DecisionTree


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_trees_that_are_too_deep_are_refused_or_have_no_known_limit():
    with pytest.raises(ValueError, match="`depth` must be <= 16, got 17"):
        DecisionTree(depth=17)
    assert DecisionTree(depth=6).limit is None
    assert DecisionTree(depth=5).limit.name == "posterior over trees"


def test_values_equal_a_walk_down_the_tree():
    task, state = DecisionTree(n_dims=6, depth=3), generator()
    coordinates = torch.randint(0, 6, (5, 15), generator=state)
    values = torch.randn(5, 15, generator=state)
    prompts = task.sample(5, generator(), n_points=9)
    for prompt in range(5):
        for point in range(9):
            node = 0
            for _ in range(3):
                goes_right = prompts["xs"][prompt, point, coordinates[prompt, node]] > 0
                node = 2 * node + (2 if goes_right else 1)
            assert prompts["ys"][prompt, point] == values[prompt, node]


def test_the_authors_evaluation_set_is_regenerated():
    # drawn by Yang et al. after torch.manual_seed(42): coordinates, node values, inputs
    torch.manual_seed(42)
    torch.randint(0, 20, (1280, 31))
    torch.randn(1280, 31)
    prompts = DecisionTree().sample(1280, generator(42), n_points=101)
    assert torch.equal(prompts["xs"], torch.randn(1280, 101, 20))
    # the error of predicting zero after 0 examples, and of the nearest neighbour after 1, on that set
    assert prompts["ys"][:, 0].square().mean().item() == pytest.approx(1.019022, abs=1e-5)
    assert (prompts["ys"][:, 1] - prompts["ys"][:, 0]).square().mean().item() == pytest.approx(1.854128, abs=1e-5)


def test_the_hint_is_the_box_of_the_leaf():
    prompts = DecisionTree(n_dims=5, depth=2).sample(6, generator(), n_points=30, with_hints=True)
    for xs, ys, boxes in zip(*(prompts[key] for key in ("xs", "ys", "hints")), strict=True):
        assert ((boxes == 0) | (boxes == xs.sign())).all()
        assert set((boxes != 0).sum(dim=1).tolist()) <= {1, 2}
        is_inside = ((boxes.unsqueeze(0) * xs.unsqueeze(1) > 0) | (boxes == 0)).all(dim=2)
        assert torch.equal(is_inside, ys.unsqueeze(1) == ys.unsqueeze(0))
        assert is_inside.sum() > len(xs)  # some share a leaf


def test_a_bad_depth_is_refused():
    with pytest.raises(ValueError, match="`depth` must be an integer >= 1, got 0"):
        DecisionTree(depth=0)
