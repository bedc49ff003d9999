import numpy as np
import torch

from tasks.baselines.relu_network import _train_networks, predict_relu_network


def test_the_network_is_trained_as_torch_trains_it():
    rng = np.random.default_rng(0)
    xs, ys, queries = rng.normal(size=(3, 8, 4)), rng.normal(size=(3, 8)), rng.normal(size=(3, 4))
    weights, biases = rng.uniform(-0.5, 0.5, size=(3, 6, 7)), rng.uniform(-0.5, 0.5, size=3)
    batches = np.array([rng.permutation(8)[:5] for _ in range(60)])
    expected = []
    for x, y, query, initial, bias in zip(xs, ys, queries, weights, biases, strict=True):
        network = torch.nn.Sequential(torch.nn.Linear(4, 7), torch.nn.ReLU(), torch.nn.Linear(7, 1)).double()
        values = (initial[:4].T, initial[4], initial[5:], [bias])
        for parameter, value in zip(network.parameters(), values, strict=True):
            parameter.data = torch.tensor(value)
        optimizer = torch.optim.Adam(network.parameters(), lr=5e-3)
        for batch in batches:
            optimizer.zero_grad()
            (network(torch.tensor(x[batch])).squeeze(1) - torch.tensor(y[batch])).square().mean().backward()
            optimizer.step()
        expected.append(network(torch.tensor(query)).item())
    arrays = (values.astype(np.float32) for values in (xs, ys, queries, weights, biases))
    np.testing.assert_allclose(_train_networks(*arrays, batches, np.float32(5e-3)), expected, rtol=1e-3, atol=1e-3)


def test_the_network_learns_its_examples():
    xs = torch.randn(5, 20, 3)
    ys = xs[..., 0].abs()
    remembered = predict_relu_network(xs, ys, xs[:, 4])
    assert (remembered - ys[:, 4]).abs().max() < 0.02
    assert torch.equal(remembered[:2], predict_relu_network(xs[:2], ys[:2], xs[:2, 4]))
