import numpy as np
import pytest
import torch
from scipy.stats import norm, rankdata
from sklearn.decomposition import PCA

from tasks.tables.draws import standardise
from tasks.tables.presentation import normal_scores, order_columns, present, principal_components


KINDS = ("classification", "regression")
N_EXAMPLES = 12


def draw(kind, n_columns=5):
    generator = torch.Generator().manual_seed(0)
    xs = standardise(torch.randn(3, 20, n_columns, generator=generator), N_EXAMPLES)
    ys = torch.randn(3, N_EXAMPLES, generator=generator)
    return xs, ys if kind == "regression" else (ys > 0).long()


@pytest.mark.parametrize("kind", KINDS)
def test_neither_the_order_of_columns_nor_that_of_examples_matters(kind):
    xs, ys = draw(kind)
    xs[:, 3, 1] = torch.nan
    shown = present(xs, ys, 12)
    turned = present(xs[..., torch.tensor([3, 0, 4, 1, 2])], ys, 12)
    torch.testing.assert_close(turned, shown, rtol=1e-3, atol=1e-4)
    shuffle = torch.randperm(N_EXAMPLES, generator=torch.Generator().manual_seed(1))
    rows = torch.cat((shuffle, torch.arange(N_EXAMPLES, 20)))
    torch.testing.assert_close(present(xs[:, rows], ys[:, shuffle], 12), shown[:, rows], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_scores_and_components_are_standardised_filled_up_and_cut(kind):
    xs, ys = draw(kind)
    shown = present(xs, ys, 14)
    assert (shown[..., 10:] == 0).all()
    examples = shown[:, :N_EXAMPLES, :10]
    torch.testing.assert_close(examples.mean(dim=1), torch.zeros(3, 10), atol=1e-4, rtol=0)
    torch.testing.assert_close(examples.std(dim=1, correction=0), torch.ones(3, 10))
    assert torch.equal(present(xs, ys, 4), shown[..., :4])


def test_queries_change_nothing_of_each_other():
    xs, ys = draw("classification")
    changed = xs.clone()
    changed[:, -1] += 3
    torch.testing.assert_close(present(changed, ys, 10)[:, :-1], present(xs, ys, 10)[:, :-1])


def test_scores_are_normal_quantiles_of_ranks():
    values = torch.tensor([3.0, -1, 3, torch.nan, 50, 0, 0, 0])
    known = values[~values.isnan()].numpy()
    ranks = np.array([np.mean(np.flatnonzero(np.sort(known) == value)) + 1 for value in known])
    np.testing.assert_allclose(ranks, rankdata(known))
    quantiles = norm.ppf(ranks / 8)
    expected = torch.full((8,), torch.nan)
    expected[~values.isnan()] = torch.as_tensor((quantiles - quantiles.mean()) / quantiles.std()).float()
    scores = normal_scores(values.view(1, 8, 1), 8).flatten()
    torch.testing.assert_close(scores, expected, equal_nan=True, rtol=1e-4, atol=1e-5)


def test_scores_depend_on_order_alone_and_do_not_leave_the_range_of_the_examples():
    xs, _ = draw("regression")
    torch.testing.assert_close(normal_scores(torch.exp(2 * xs) - 5, N_EXAMPLES), normal_scores(xs, N_EXAMPLES))
    xs[:, -1] = 100
    scores = normal_scores(xs, N_EXAMPLES)
    # as far beyond the largest example as half a rank
    assert (scores[:, -1] >= scores[:, :N_EXAMPLES].amax(dim=1)).all()
    assert scores.max() < 4


def test_components_are_those_of_scikit_learn():
    xs = torch.randn(1, 60, 4, generator=torch.Generator().manual_seed(0)) @ torch.diag(torch.tensor([4.0, 3, 2, 1]))
    xs = xs @ torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(1))).Q
    xs = xs - xs[:, :50].mean(dim=1)
    found = principal_components(xs, 50)[0].numpy()
    expected = PCA(4, whiten=True).fit(xs[0, :50].numpy()).transform(xs[0].numpy())
    expected = expected / expected[:50].std(axis=0)
    np.testing.assert_allclose(np.abs(found), np.abs(expected), rtol=1e-3, atol=1e-4)


def test_components_without_spread_are_nothing():
    xs, _ = draw("regression", n_columns=3)
    copied = principal_components(torch.cat((xs, xs), dim=2), N_EXAMPLES)
    assert (copied[..., 3:] == 0).all()
    assert (copied[:, :N_EXAMPLES, :3].std(dim=1) > 0.9).all()
    assert not principal_components(torch.zeros(1, 5, 2), 4).any()


def test_columns_that_tell_most_come_first():
    generator = torch.Generator().manual_seed(0)
    xs = standardise(torch.randn(1, 500, 4, generator=generator))
    order = torch.tensor([2, 0, 3, 1])
    values = xs @ torch.tensor([2.0, 0.1, 4.0, 1.0]) + 0.01 * torch.randn(1, 500, generator=generator)
    assert torch.equal(order_columns(xs, values), xs[..., order])
    assert torch.equal(order_columns(xs, (values > 0).long()), xs[..., order])
