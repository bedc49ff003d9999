import numpy as np
import torch

from tasks.baselines.prefixes import predict_prefixes
from tasks.functions.linear_autoregression import LinearAutoregression


def generator():
    return torch.Generator().manual_seed(0)


def test_each_vector_is_the_rotation_of_the_one_before():
    prompts = LinearAutoregression(n_dims=5).sample(6, generator(), n_points=12, n_dims_active=4)
    xs, ys = prompts["xs"], prompts["ys"]
    assert torch.equal(xs[:, 1:], ys[:, :-1])
    assert torch.equal(ys, prompts["labels"])
    assert not ys[..., 4:].any()
    rotations = torch.linalg.lstsq(xs[..., :4].double(), ys[..., :4].double()).solution
    torch.testing.assert_close(rotations @ rotations.mT, torch.eye(4).double().expand(6, 4, 4), rtol=0, atol=1e-3)
    torch.testing.assert_close(xs.norm(dim=2), xs[:, :1].norm(dim=2).expand(6, 12), rtol=1e-4, atol=0)


def test_rotations_are_uniform_with_and_without_a_mirror():
    rotations = LinearAutoregression(n_dims=3).draw_functions(4000, 3, generator())(torch.eye(3).expand(4000, 3, 3))
    assert abs((torch.linalg.det(rotations) > 0).float().mean() - 0.5) < 0.03
    # each entry is a coordinate of a uniform direction, so uniform in -1 ... 1 in three dimensions
    for entries in rotations.flatten(1).T:
        np.testing.assert_allclose(entries.histc(5, -1, 1) / 4000, 0.2, atol=0.025)


def test_the_limit_follows_the_span_of_the_xs_and_is_exact_after_as_many_as_dimensions():
    task = LinearAutoregression(n_dims=6)
    prompts = task.sample(100, generator(), n_points=12)
    predictions = predict_prefixes(task.limit.predictor, prompts["xs"], prompts["ys"])
    errors = task.score(predictions.numpy(), prompts)
    xs = prompts["xs"].double().numpy()
    for n in (1, 3, 5):  # what lies outside the span keeps its length under W, and its direction there is unknown
        for prompt in range(10):
            basis = np.linalg.qr(xs[prompt, :n].T).Q
            rest = xs[prompt, n] - basis @ (basis.T @ xs[prompt, n])
            np.testing.assert_allclose(errors[prompt, n], rest @ rest / 6, atol=1e-4)
    assert errors[:, 6:].mean() < 1e-4
