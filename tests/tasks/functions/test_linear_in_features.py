"""Classes that are linear in fixed features of x, beside their definition and beside least squares on the features."""

import math

import pytest
import torch

from tasks import make_task
from tasks.baselines.prefixes import predict_prefixes
from tasks.functions.fourier_regression import FourierRegression
from tasks.functions.representation_regression import RepresentationRegression, represent


def squares(x):
    return [value**2 / math.sqrt(3) for value in x]


def waves(x):
    angles = [(k * math.pi * value / math.sqrt(3)) for value in x for k in range(1, 4)]
    return [1.0, *map(math.cos, angles), *map(math.sin, angles)]


def network(x):
    weights = math.sqrt(2 / 4) * torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(7))
    for layer in weights.tolist():
        sums = [sum(value * row[unit] for value, row in zip(x, layer, strict=True)) for unit in range(4)]
        x = [value if value > 0 else 0.01 * value for value in sums]
    return x


CLASSES = {
    "quadratic_regression": ({"n_dims": 4}, squares),
    "fourier_regression": ({"n_dims": 2, "n_frequencies": 3}, waves),
    "representation_regression": ({"n_dims": 4, "n_layers": 3, "representation_seed": 7}, network),
}


def draw(name, n_prompts, n_points, **sizes):
    """A task, its prompts, in double precision, and the features of every x."""
    settings, features = CLASSES[name]
    task = make_task(name, **settings)
    prompts = task.sample(n_prompts, torch.Generator().manual_seed(0), n_points=n_points, **sizes)
    prompts = {key: values.double() for key, values in prompts.items()}
    return task, prompts, torch.tensor([[features(x) for x in xs] for xs in prompts["xs"].tolist()])


@pytest.mark.parametrize("name", CLASSES)
def test_values_are_linear_in_the_features_with_standard_normal_weights(name):
    _, prompts, features = draw(name, 300, 30)
    features, labels = features.double(), prompts["labels"].unsqueeze(2)
    weights = torch.linalg.lstsq(features, labels).solution
    torch.testing.assert_close(features @ weights, labels, rtol=0, atol=1e-4)
    assert weights.mean().item() == pytest.approx(0, abs=0.1)
    assert weights.std().item() == pytest.approx(1, abs=0.1)
    assert torch.equal(prompts["ys"], prompts["labels"])


@pytest.mark.parametrize("name", CLASSES)
def test_the_limit_is_least_squares_on_the_features_and_exact_when_there_are_enough(name):
    task, prompts, features = draw(name, 8, 18)
    features = features.double()
    predictions = predict_prefixes(task.limit.predictor, prompts["xs"], prompts["ys"])
    for n in (1, 3, 17):
        weights = torch.linalg.pinv(features[:, :n]) @ prompts["ys"][:, :n, None]
        torch.testing.assert_close(predictions[:, n], (features[:, n, None] @ weights).flatten(), rtol=1e-4, atol=1e-4)
    n_features = features.shape[2]
    torch.testing.assert_close(predictions[:, n_features:], prompts["labels"][:, n_features:], rtol=0, atol=1e-2)


def test_waves_of_inactive_coordinates_are_not_in_the_values():
    _, prompts, features = draw("fourier_regression", 20, 30, n_dims_active=1)
    features = features.double()[..., [0, 1, 2, 3, 7, 8, 9]]  # the constant and the waves of the first coordinate
    weights = torch.linalg.lstsq(features, prompts["labels"].unsqueeze(2)).solution
    torch.testing.assert_close((features @ weights).squeeze(2), prompts["labels"], rtol=0, atol=1e-4)
    assert weights[:, 0].std().item() == pytest.approx(1, abs=0.5)


def test_xs_of_fourier_series_are_uniform_in_one_period():
    xs = FourierRegression().sample(2000, torch.Generator().manual_seed(0))["xs"]
    counts = xs.histc(10, -math.sqrt(3), math.sqrt(3))
    torch.testing.assert_close(counts / counts.sum(), torch.full((10,), 0.1), rtol=0, atol=0.01)


def test_the_representation_is_the_same_in_all_prompts_and_another_for_another_seed():
    xs = torch.randn(5, 3)
    assert torch.equal(represent(xs, 2, 0)[1:], represent(xs[1:], 2, 0))
    assert not torch.equal(represent(xs, 2, 0), represent(xs, 2, 1))
    first = RepresentationRegression(n_dims=3)
    assert first.normaliser == RepresentationRegression(n_dims=3).normaliser
    assert first.normaliser != RepresentationRegression(n_dims=3, representation_seed=1).normaliser


@pytest.mark.parametrize("seed", [-1, 2**63, 1.5, True])
def test_a_bad_representation_is_refused(seed):
    with pytest.raises(ValueError, match=r"`representation_seed` must be an integer in 0 \.\.\. 2\*\*63 - 1, got "):
        RepresentationRegression(representation_seed=seed)
    with pytest.raises(ValueError, match="`n_layers` must be an integer >= 1, got 0"):
        RepresentationRegression(n_layers=0)


def test_a_bad_number_of_frequencies_is_refused():
    with pytest.raises(ValueError, match="`n_frequencies` must be an integer >= 1, got 0"):
        FourierRegression(n_frequencies=0)
