import numpy as np
import pytest
import torch

from modeling_looped_gpt2 import LoopedGPT2Config
from modeling_looped_gpt2.estimator_input_looped_gpt2 import Standardizer
from modeling_looped_gpt2.estimator_views_looped_gpt2 import RowView
from tasks.tables.draws import standardise
from tasks.tables.presentation import present


@pytest.fixture
def table():
    """Eighty rows of columns that go together, some in steps and some with gaps, and a y that has none."""
    generator = np.random.default_rng(0)
    X = generator.normal(size=(80, 9)) @ generator.normal(size=(9, 9))
    y = X[:, 2] + generator.normal(size=80)
    X[:, 0], X[:, 1] = X[:, 0].round(), X[:, 1] > 0
    X[:, 5] = np.exp(X[:, 5] / 3)
    X[generator.random(X.shape) < 0.1] = np.nan
    return X, y


@pytest.mark.parametrize("n_dims", [5, 9, 30])
@pytest.mark.parametrize("is_class", [True, False], ids=["classes", "values"])
def test_rows_are_shown_as_in_training(is_class, n_dims, table):
    (X, y), n = table, 50
    y = (y > 0).astype(int) if is_class else (y - y[:n].mean()) / y[:n].std()
    targets = np.eye(2)[y[:n]] / np.bincount(y[:n]) ** 0.5 if is_class else y[:n, None] / n**0.5
    view = RowView(LoopedGPT2Config(n_dims=n_dims))
    view.fit(X[:n], targets)
    ys = torch.as_tensor(y[None, :n]) if is_class else torch.as_tensor(y[None, :n], dtype=torch.float32)
    expected = present(standardise(torch.as_tensor(X[None], dtype=torch.float32), n), ys, n_dims)[0]
    assert expected.abs().amax(dim=0).count_nonzero() == min(n_dims, 18)
    torch.testing.assert_close(view.show(X), expected, rtol=1e-3, atol=1e-4)


def test_of_a_table_without_differences_nothing_is_shown():
    view = RowView(LoopedGPT2Config(n_dims=4))
    view.fit(np.full((3, 2), np.nan), np.eye(3)[:, :1])
    assert not view.show(np.array([[1.0, np.nan]])).any()


def test_a_copy_of_a_column_has_no_component_of_its_own(table):
    X = Standardizer(table[0]).transform(table[0])[:, [2, 3, 2]]
    view = RowView(LoopedGPT2Config(n_dims=30))
    view.fit(X, table[1][:, None])
    assert view.weights.shape == (3, 2)
