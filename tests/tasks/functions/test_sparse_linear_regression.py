import pytest
import torch

from tasks import make_task
from tasks.functions.sparse_linear_regression import SparseLinearRegression


@pytest.mark.parametrize("n_dims_active", [3, 5, 20])
def test_sparse_functions_have_three_weights_among_the_active(n_dims_active):
    function = SparseLinearRegression().draw_functions(2000, n_dims_active, torch.Generator().manual_seed(0))
    weights = function(torch.eye(20).expand(2000, 20, 20))
    assert ((weights != 0).sum(dim=1) == 3).all()
    assert not weights[:, n_dims_active:].any()
    used = (weights != 0).float().mean(dim=0)[:n_dims_active]
    torch.testing.assert_close(used, torch.full_like(used, 3 / n_dims_active), rtol=0, atol=0.045)


def test_bad_sparsity_is_refused():
    with pytest.raises(ValueError, match="`sparsity` must be an integer >= 1, got 0"):
        SparseLinearRegression(sparsity=0)
    with pytest.raises(ValueError, match=r"`sparsity` must be <= the active dim.* 3 > 2"):
        make_task("sparse_linear_regression", n_dims=2)
    with pytest.raises(ValueError, match=r"`sparsity` must be <= the active dim.* 3 > 2"):
        SparseLinearRegression().sample(1, torch.Generator(), n_dims_active=2)
