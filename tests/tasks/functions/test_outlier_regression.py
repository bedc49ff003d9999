"""Linear functions among outliers: what an outlier is, how many there are, and what is left when they are known."""

import numpy as np
import pytest
import torch

from tasks.baselines.prefixes import predict_prefixes
from tasks.functions.outlier_regression import ManyOutlierRegression, OrthogonalOutlierRegression


def draw(task, n_prompts, n_points, **sizes):
    """Weights `(B, D)`, prompts, and which points are wrong, `(B, P)`."""
    generator = torch.Generator().manual_seed(0)
    prompts = task.sample(n_prompts, generator, n_points=n_points, with_hints=True, **sizes)
    return prompts["hints"][:, 0], prompts, prompts["ys"] != prompts["labels"]


@pytest.mark.parametrize("share", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("kind", [ManyOutlierRegression, OrthogonalOutlierRegression])
def test_so_many_points_are_outliers_and_labels_are_the_function_at_all_of_them(kind, share):
    weights, prompts, is_wrong = draw(kind(n_dims=4, outlier_share=share), 400, 50)
    assert is_wrong.float().mean().item() == pytest.approx(share, abs=0.015)
    # each point for itself, not whole prompts or the same points of all
    assert is_wrong.float().mean(dim=0).std() < 0.05
    assert is_wrong.float().mean(dim=1).std() < 0.1
    torch.testing.assert_close((prompts["xs"] @ weights.unsqueeze(2)).squeeze(2), prompts["labels"], rtol=0, atol=1e-5)


def test_constant_outliers_are_ones():
    _, prompts, is_wrong = draw(ManyOutlierRegression(n_dims=5), 20, 100, n_dims_active=3)
    assert torch.equal(prompts["xs"][is_wrong], torch.tensor([1.0, 1, 1, 0, 0]).expand(int(is_wrong.sum()), 5))
    assert (prompts["ys"][is_wrong] == 1).all()


def test_orthogonal_outliers_fill_a_plane_that_is_orthogonal_to_the_weights_and_a_circle_in_it():
    weights, prompts, is_wrong = draw(OrthogonalOutlierRegression(n_dims=8), 30, 60, n_dims_active=6)
    for w, xs, ys, wrong in zip(weights, prompts["xs"], prompts["ys"], is_wrong, strict=True):
        torch.testing.assert_close(xs[wrong] @ w, torch.zeros(int(wrong.sum())), rtol=0, atol=1e-4)
        assert not xs[:, 6:].any()
        singular = torch.linalg.svdvals(xs[wrong].double())
        assert singular[1] > 0.5 * singular[0]
        assert singular[2] < 1e-5 * singular[0]
        torch.testing.assert_close(xs[wrong].norm(dim=1), torch.full((int(wrong.sum()),), 6**0.5))
        assert abs(torch.corrcoef(torch.stack((ys[wrong], xs[wrong][:, 0])))[0, 1]) < 0.75
    assert prompts["ys"][is_wrong].square().mean().item() == pytest.approx(6, rel=0.2)


@pytest.mark.parametrize("task", [ManyOutlierRegression(n_dims=4, outlier_share=0.5), OrthogonalOutlierRegression(5)])
def test_the_limit_is_exact_after_as_many_clean_examples_as_dimensions_and_least_squares_is_not(task):
    _, prompts, is_wrong = draw(task, 100, 40)
    predictions = {
        name: predict_prefixes(predictor, prompts["xs"], prompts["ys"]).numpy()
        for name, predictor in ({"limit": task.limit.predictor} | task.baselines).items()
        if name in ("limit", "least squares")
    }
    n_clean = (~is_wrong).cumsum(dim=1) - (~is_wrong).long()  # before each point
    known = (n_clean >= task.n_dims).numpy()
    errors = {name: task.score(values, prompts) for name, values in predictions.items()}
    assert known.mean() > 0.5
    assert errors["limit"][known].max() < 1e-6
    assert errors["least squares"][known].mean() > 0.05
    assert errors["limit"][~known].mean() < errors["least squares"][~known].mean()


def test_the_limit_of_constant_outliers_is_that_of_fewer_clean_examples():
    task = ManyOutlierRegression(n_dims=6, outlier_share=0.5)
    _, prompts, is_wrong = draw(task, 10, 12)
    predictions = predict_prefixes(task.limit.predictor, prompts["xs"], prompts["ys"])
    for prompt in range(10):
        xs, ys = prompts["xs"][prompt].double().numpy(), prompts["ys"][prompt].double().numpy()
        clean = (~is_wrong[prompt, :11]).numpy()
        expected = np.linalg.pinv(xs[:11][clean]) @ ys[:11][clean] @ xs[11]
        assert predictions[prompt, 11].item() == pytest.approx(expected, abs=1e-8)


def test_the_answer_at_an_outlier_is_zero_and_elsewhere_not_once_there_is_a_clean_example():
    task = OrthogonalOutlierRegression(n_dims=5)
    _, prompts, is_wrong = draw(task, 50, 6)
    predictions = predict_prefixes(task.limit.predictor, prompts["xs"], prompts["ys"])
    assert not predictions[is_wrong].any()
    has_clean = (~is_wrong).cumsum(dim=1) > 1
    assert predictions[~is_wrong & has_clean].all()


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match=r"`outlier_share` must be in \[0, 1\), got 1"):
        ManyOutlierRegression(outlier_share=1)
    with pytest.raises(ValueError, match="`n_dims_active` must be >= 3 for a plane orthogonal to w, got 2"):
        OrthogonalOutlierRegression(n_dims=2)
    with pytest.raises(ValueError, match="`n_dims_active` must be >= 3 for a plane orthogonal to w, got 2"):
        OrthogonalOutlierRegression().sample(1, torch.Generator(), n_dims_active=2)
