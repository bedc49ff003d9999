import pytest
import torch

from tasks import make_task
from tasks.baselines.prefixes import predict_prefixes
from tasks.shifts import SHIFTS


def sample(shift, n_dims=6, n_points=10, n_prompts=400):
    task = make_task("linear_regression", n_dims=n_dims)
    return task.shifts[shift].sample(task, n_prompts, torch.Generator().manual_seed(0), n_points)


def same_points(prompts):
    return torch.equal(prompts["queries"], prompts["xs"])


@pytest.mark.parametrize("shift", SHIFTS)
def test_every_shift_draws_linear_functions_again_and_again_the_same(shift):
    prompts, again = sample(shift), sample(shift)
    assert all(torch.equal(values, again[name]) for name, values in prompts.items())
    if shift != "noisy":
        limit = predict_prefixes(SHIFTS[shift].limit, prompts["xs"], prompts["ys"], prompts["queries"])
        weights = torch.linalg.lstsq(prompts["xs"], prompts["ys"].unsqueeze(2), driver="gelsd").solution
        if shift != "orthogonal_query":  # which leaves no prompt with more examples than dimensions
            torch.testing.assert_close(limit[:, -1].float(), prompts["labels"][:, -1], rtol=1e-2, atol=1e-2)
        if shift not in ("half_subspace", "orthogonal_query"):
            values = (prompts["queries"] @ weights).squeeze(2)
            torch.testing.assert_close(values, prompts["labels"], rtol=1e-2, atol=1e-2)


def eigenvalues(shift):
    xs = sample(shift, n_prompts=4000)["xs"].flatten(0, 1)
    return torch.linalg.eigvalsh(xs.T @ xs / len(xs)).flip(0)


def test_the_covariances_are_those_of_the_paper():
    expected = 1 / torch.arange(1.0, 7) ** 2
    torch.testing.assert_close(eigenvalues("skewed"), expected * 6 / expected.sum(), rtol=0.05, atol=0.01)
    torch.testing.assert_close(eigenvalues("half_subspace"), torch.tensor([2.0, 2, 2, 0, 0, 0]), rtol=0.05, atol=1e-4)


def test_noise_keeps_the_mean_square_and_is_scored():
    prompts = sample("noisy")
    assert prompts["ys"].std().item() == pytest.approx(6**0.5, rel=1e-4)
    assert torch.equal(prompts["ys"], prompts["labels"])
    weights = torch.linalg.lstsq(prompts["xs"], prompts["ys"].unsqueeze(2)).solution
    residual = (prompts["xs"] @ weights).squeeze(2) - prompts["ys"]
    # 10 points less 6 weights, and noise of one seventh of the variance
    assert residual.square().sum(dim=1).mean().item() == pytest.approx(4 * 6 / 7, rel=0.1)


def test_examples_lie_in_one_quadrant_and_queries_in_any():
    prompts = sample("random_quadrants")
    assert torch.equal(prompts["xs"].sign(), prompts["xs"][:, :1].sign().expand_as(prompts["xs"]))
    assert torch.equal(prompts["xs"].abs(), prompts["queries"].abs())
    assert (prompts["xs"] == prompts["queries"]).float().mean().item() == pytest.approx(0.5, abs=0.02)


def test_orthogonal_queries_keep_their_length_and_no_example_helps():
    prompts = sample("orthogonal_query")
    assert prompts["xs"].shape[1] == 6
    for n in range(1, 6):
        products = prompts["xs"][:, :n] @ prompts["queries"][:, n].unsqueeze(2)
        assert products.abs().max() < 1e-3
    torch.testing.assert_close(prompts["queries"].norm(dim=2), prompts["xs"].norm(dim=2))


def test_overlapping_queries_are_earlier_examples():
    prompts = sample("overlapping_query", n_prompts=4000)
    equal = (prompts["queries"].unsqueeze(2) == prompts["xs"].unsqueeze(1)).all(dim=3)  # (B, query, point)
    for n in range(1, 10):
        assert equal[:, n, :n].any(dim=1).all()
        torch.testing.assert_close(equal[:, n, :n].float().mean(dim=0), torch.full((n,), 1 / n), rtol=0, atol=0.03)


@pytest.mark.parametrize(("shift", "scale"), [("scale_x_3", 3), ("scale_x_1/2", 0.5), ("scale_y_2", 2)])
def test_scales_multiply_values_and_errors(shift, scale):
    plain = make_task("linear_regression", n_dims=6).sample(400, torch.Generator().manual_seed(0), n_points=10)
    prompts = sample(shift)
    torch.testing.assert_close(prompts["ys"], scale * plain["ys"])
    torch.testing.assert_close(prompts["xs"], plain["xs"] * (scale if "x" in shift else 1))
    assert same_points(prompts)
