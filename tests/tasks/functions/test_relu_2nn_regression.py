import pytest
import torch

from tasks.functions.relu_2nn_regression import Relu2nnRegression


def generator():
    return torch.Generator().manual_seed(0)


def test_values_equal_the_formula():
    task, state = Relu2nnRegression(n_dims=4, hidden_size=6), generator()
    hidden, output = torch.randn(3, 4, 6, generator=state), torch.randn(3, 6, 1, generator=state)
    prompts = task.sample(3, generator(), n_points=5)
    for prompt in range(3):
        units = (prompts["xs"][prompt] @ hidden[prompt]).clamp(min=0)
        expected = (2 / 6) ** 0.5 * (units @ output[prompt])[:, 0]
        torch.testing.assert_close(prompts["ys"][prompt], expected)


def test_a_bad_width_is_refused():
    with pytest.raises(ValueError, match="`hidden_size` must be an integer >= 1, got 0"):
        Relu2nnRegression(hidden_size=0)
