import torch

from tasks.functions.relu_2nn_regression import Relu2nnRegression
from tasks.limits.arc_cosine_kernel import _arc_cosine


def test_the_kernel_is_the_covariance_of_the_networks():
    task = Relu2nnRegression(n_dims=3)
    xs = torch.randn(1, 4, 3)
    values = task.draw_functions(40_000, 3, torch.Generator().manual_seed(0))(xs.expand(40_000, 4, 3))
    torch.testing.assert_close(values.mT @ values / 40_000, _arc_cosine(xs, xs)[0], rtol=0.03, atol=0.1)
