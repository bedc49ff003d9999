import pytest
import torch
from tasks.decision_tree import DecisionTree
from tasks.linear_regression import NoisyLinearRegression
from tasks.relu_2nn_regression import Relu2nnRegression
from tasks.sparse_linear_regression import SparseLinearRegression

from tasks import TASKS, make_task


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", TASKS)
def test_shapes_types_and_trivial_level(name):
    task = make_task(name, n_dims=20)
    prompts = task.sample(1280, generator(), n_points=41)
    assert {key: tuple(value.shape) for key, value in prompts.items()} == {
        "xs": (1280, 41, 20),
        "ys": (1280, 41),
        "labels": (1280, 41),
    }
    assert all(value.dtype == torch.float32 for value in prompts.values())
    # predicting zero has error 1; functions vary, hence the width
    assert prompts["labels"].square().mean().item() / task.normaliser == pytest.approx(1, abs=0.1)
    assert prompts["xs"].mean().item() == pytest.approx(0, abs=0.01)
    assert prompts["xs"].std().item() == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("name", TASKS)
def test_the_generator_decides_everything(name):
    task = make_task(name, n_dims=5)
    first, again, other = (task.sample(3, generator(seed), n_points=7) for seed in (1, 1, 2))
    for key in first:
        assert torch.equal(first[key], again[key])
        assert not torch.equal(first[key], other[key])


@pytest.mark.parametrize("name", TASKS)
def test_inactive_dimensions_are_zero_and_do_not_matter(name):
    prompts = make_task(name, n_dims=20).sample(64, generator(), n_points=30, n_dims_active=5)
    assert not prompts["xs"][..., 5:].any()
    assert prompts["xs"][..., :5].all()
    # every function is alive: no prompt of zeros, as an inactive support would give
    assert (prompts["labels"].abs().amax(dim=1) > 0).all()


def test_linear_functions_are_linear():
    prompts = make_task("linear_regression", n_dims=4).sample(8, generator(), n_points=12)
    weights = torch.linalg.lstsq(prompts["xs"], prompts["ys"].unsqueeze(-1)).solution
    torch.testing.assert_close((prompts["xs"] @ weights).squeeze(-1), prompts["ys"], rtol=1e-4, atol=1e-4)


def test_noise_is_in_the_values_and_not_in_the_labels():
    prompts = NoisyLinearRegression(4, noise_std=0.5).sample(64, generator(), n_points=100)
    noise = prompts["ys"] - prompts["labels"]
    assert noise.std().item() == pytest.approx(0.5, rel=0.05)
    clean = make_task("linear_regression", n_dims=4).sample(64, generator(), n_points=100)
    assert torch.equal(clean["labels"], prompts["labels"])


@pytest.mark.parametrize("n_dims_active", [3, 5, 20])
def test_sparse_functions_have_three_weights_among_the_active(n_dims_active):
    task = SparseLinearRegression()
    function = task.draw_functions(200, n_dims_active, generator())
    weights = function(torch.eye(20).expand(200, 20, 20))
    assert ((weights != 0).sum(dim=1) == 3).all()
    assert not weights[:, n_dims_active:].any()
    used = (weights != 0).float().mean(dim=0)[:n_dims_active]
    torch.testing.assert_close(used, torch.full_like(used, 3 / n_dims_active), rtol=0, atol=0.15)


def test_tree_values_equal_a_walk_down_the_tree():
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


def test_tree_regenerates_the_authors_evaluation_set():
    # drawn by Yang et al. after torch.manual_seed(42): coordinates, node values, inputs
    torch.manual_seed(42)
    torch.randint(0, 20, (1280, 31))
    torch.randn(1280, 31)
    prompts = DecisionTree().sample(1280, generator(42), n_points=101)
    assert torch.equal(prompts["xs"], torch.randn(1280, 101, 20))
    # the error of predicting zero after 0 examples, and of the nearest neighbour after 1, on that set
    assert prompts["ys"][:, 0].square().mean().item() == pytest.approx(1.019022, abs=1e-5)
    assert (prompts["ys"][:, 1] - prompts["ys"][:, 0]).square().mean().item() == pytest.approx(1.854128, abs=1e-5)


def test_network_values_equal_the_formula():
    task, state = Relu2nnRegression(n_dims=4, hidden_size=6), generator()
    hidden, output = torch.randn(3, 4, 6, generator=state), torch.randn(3, 6, 1, generator=state)
    prompts = task.sample(3, generator(), n_points=5)
    for prompt in range(3):
        units = (prompts["xs"][prompt] @ hidden[prompt]).clamp(min=0)
        expected = (2 / 6) ** 0.5 * (units @ output[prompt])[:, 0]
        torch.testing.assert_close(prompts["ys"][prompt], expected)


WITH_HINTS = [name for name in TASKS if make_task(name, n_dims=20).n_hints]


@pytest.mark.parametrize("name", WITH_HINTS)
def test_hints_come_beside_prompts_that_they_do_not_change(name):
    task = make_task(name, n_dims=6)
    plain, hinted = (
        task.sample(3, generator(), n_points=7, n_dims_active=4, with_hints=wanted) for wanted in (False, True)
    )
    hints = hinted.pop("hints")
    assert hints.shape == (3, 7, task.n_hints)
    assert hints.dtype == torch.float32
    assert not hints[..., 4:].any()
    assert hinted.keys() == plain.keys()
    assert all(torch.equal(hinted[key], plain[key]) for key in plain)


@pytest.mark.parametrize("name", [name for name in WITH_HINTS if "linear" in name])
def test_the_hints_of_linear_functions_are_their_weights(name):
    prompts = make_task(name, n_dims=6).sample(5, generator(), n_points=9, with_hints=True)
    torch.testing.assert_close((prompts["xs"] * prompts["hints"]).sum(dim=2), prompts["labels"])
    assert torch.equal(prompts["hints"], prompts["hints"][:, :1].expand(5, 9, 6))


def test_the_hint_of_a_tree_is_the_box_of_the_leaf():
    prompts = DecisionTree(n_dims=5, depth=2).sample(6, generator(), n_points=30, with_hints=True)
    for xs, ys, boxes in zip(*(prompts[key] for key in ("xs", "ys", "hints")), strict=True):
        assert ((boxes == 0) | (boxes == xs.sign())).all()
        assert set((boxes != 0).sum(dim=1).tolist()) <= {1, 2}
        is_inside = ((boxes.unsqueeze(0) * xs.unsqueeze(1) > 0) | (boxes == 0)).all(dim=2)
        assert torch.equal(is_inside, ys.unsqueeze(1) == ys.unsqueeze(0))
        assert is_inside.sum() > len(xs)  # some share a leaf


BAD_SETTINGS = {
    "unknown class": (lambda: make_task("linear", n_dims=5), "`task` must be one of .*, got 'linear'"),
    "n_dims": (lambda: make_task("linear_regression", n_dims=0), "`n_dims` must be an integer >= 1, got 0"),
    "sparsity 0": (lambda: SparseLinearRegression(sparsity=0), "`sparsity` must be an integer >= 1, got 0"),
    "too few dims": (
        lambda: make_task("sparse_linear_regression", n_dims=2),
        "`sparsity` must be <= the active dim.* 3 > 2",
    ),
    "noise": (lambda: NoisyLinearRegression(noise_std=-1), "`noise_std` must be a finite number >= 0, got -1"),
    "depth": (lambda: DecisionTree(depth=0), "`depth` must be an integer >= 1, got 0"),
    "hidden_size": (lambda: Relu2nnRegression(hidden_size=0), "`hidden_size` must be an integer >= 1, got 0"),
    "n_points": (
        lambda: DecisionTree().sample(1, generator(), n_points=0),
        "`n_points` must be an integer >= 1, got 0",
    ),
    "n_prompts": (
        lambda: DecisionTree().sample(2.0, generator(), n_points=1),
        "`n_prompts` must be an integer >= 1, got 2.0",
    ),
    "hints": (
        lambda: make_task("relu_2nn_regression", n_dims=3).sample(1, generator(), n_points=1, with_hints=True),
        "the function class relu_2nn_regression has no hints",
    ),
    "active": (
        lambda: DecisionTree().sample(1, generator(), n_points=1, n_dims_active=21),
        "`n_dims_active` must be <= `n_dims` = 20, got 21",
    ),
}


@pytest.mark.parametrize("name", BAD_SETTINGS)
def test_a_bad_setting_is_refused_by_name(name):
    call, message = BAD_SETTINGS[name]
    with pytest.raises(ValueError, match=message):
        call()
