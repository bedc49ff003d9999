import numpy as np
import pytest
import torch

from tasks import make_task
from tasks.streams import Stream, make_generator
from tasks.tables.columns import dress, join_levels, lose_values
from tasks.tables.presentation import present
from tasks.tables.table_prior import count_columns
from tasks.tables.targets import LAWS


KINDS = ("classification", "regression")


def draw(kind, seed=0, n_prompts=16, n_dims=None, **sizes):
    task = make_task("table_prior", kind=kind, n_columns=6, n_points=40, n_dims=n_dims)
    return task.sample(n_prompts, make_generator("test", seed), **sizes)


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_is_tables_of_one_size_with_examples_and_queries(kind):
    widths, counts = set(), set()
    for seed in range(40):
        batch = draw(kind, seed)
        n_columns, n_examples = batch["xs"].shape[2], batch["ys"].shape[1]
        assert batch["xs"].shape == (16, 40, n_columns)
        assert batch["labels"].shape == (16, 40 - n_examples)
        assert batch["ys"].dtype == batch["labels"].dtype == (torch.int64 if kind == "classification" else torch.float)
        assert not batch["xs"].isinf().any()
        assert batch["ys"].isfinite().all()
        assert batch["labels"].isfinite().all()
        widths.add(n_columns)
        counts.add(n_examples)
    assert widths == set(range(1, 7))
    assert min(counts) >= 5
    assert max(counts) <= 35
    assert len(counts) > 15


@pytest.mark.parametrize("kind", KINDS)
def test_examples_alone_decide_the_scale(kind):
    batch = draw(kind, n_prompts=64)
    examples = batch["xs"][:, : batch["ys"].shape[1]].double()
    mean, square = examples.nanmean(dim=1), examples.square().nanmean(dim=1)
    constant = (examples.nan_to_num() == 0).all(dim=1)
    clipped = (examples.nan_to_num().abs() == 10).any(dim=1)
    plain = ~constant & ~clipped & ~mean.isnan()
    assert plain.float().mean() > 0.8
    torch.testing.assert_close(mean[plain], torch.zeros_like(mean[plain]), atol=1e-4, rtol=0)
    torch.testing.assert_close(square[plain], torch.ones_like(square[plain]), atol=1e-3, rtol=0)


def test_tables_are_a_function_of_the_generator_alone():
    stream = Stream(make_task("table_prior", n_columns=4, n_points=20), 8, {}, seed=3)
    first, again, other = stream.batch(5), stream.batch(5), stream.batch(6)
    assert all(torch.equal(first[name].nan_to_num(99), again[name].nan_to_num(99)) for name in first)
    assert first["ys"].shape != other["ys"].shape or not torch.equal(first["ys"], other["ys"])


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_columns_tell_of_the_signals_of_a_law(law):
    columns, signals = law(64, 200, 3, 10, torch.Generator().manual_seed(0))
    assert columns.shape == (64, 200, 3)
    assert signals.shape == (64, 200, 10)
    assert signals.isfinite().all()
    varies = signals.std(dim=1) > 0.1
    assert varies.float().mean() > 0.8
    assert signals.mean(dim=1).abs().max() < 1e-2
    # the nearest other row, judged by the columns, has a signal nearer to one's own than any other has
    distances = torch.cdist(columns, columns) + 1e9 * torch.eye(200)
    nearest = signals.gather(1, distances.argmin(dim=2, keepdim=True).expand_as(signals))
    assert (nearest - signals).square().mean() < 0.9 * (signals.roll(1, dims=1) - signals).square().mean()


def test_classes_are_many_or_few_and_have_numbers_of_no_meaning():
    batches = [draw("classification", seed, n_prompts=64) for seed in range(10)]
    counts = [len(row.unique()) for batch in batches for row in batch["ys"]]
    assert set(counts) >= {1, 2, 3, 5}
    assert np.mean(np.array(counts) <= 2) > 0.35
    labels = torch.cat([batch["labels"].flatten() for batch in batches])
    assert labels.min() == 0
    assert labels.max() == 9
    # every table has the first two
    lean = [(row == 0).float().mean() - (row == 1).float().mean() for batch in batches for row in batch["labels"]]
    assert abs(np.mean(lean)) < 0.06


def test_values_are_lost_in_some_tables_only():
    columns = torch.randn(400, 50, 6, generator=torch.Generator().manual_seed(0))
    lost = lose_values(columns, torch.Generator().manual_seed(1)).isnan()
    has_gaps = lost.any(dim=2).any(dim=1).float().mean()
    assert 0.15 < has_gaps < 0.3
    assert torch.equal(lose_values(columns, torch.Generator().manual_seed(1))[~lost], columns[~lost])
    assert 0.005 < lost.float().mean() < 0.05


def test_columns_are_dressed_as_numbers_levels_and_categories():
    columns = dress(
        torch.randn(200, 100, 5, generator=torch.Generator().manual_seed(0)), torch.Generator().manual_seed(1)
    )
    n_levels = torch.tensor([[len(column.unique()) for column in table.T] for table in columns])
    assert 0.2 < (n_levels <= 10).float().mean() < 0.5
    assert (n_levels == 2).any()
    assert 0.5 < (n_levels > 50).float().mean() < 0.8


def test_some_columns_are_the_levels_of_one_category():
    columns = torch.randn(300, 50, 6, generator=torch.Generator().manual_seed(0))
    joined = join_levels(columns, torch.full_like(columns, 7), torch.Generator().manual_seed(1))
    is_level = (joined != 7).all(dim=1)
    n_levels = is_level.sum(dim=1)
    assert set(n_levels.tolist()) == {0, 3, 4, 5, 6}
    assert 0.04 < (n_levels > 0).float().mean() < 0.2  # a third, of which those with 3 ... 15 levels fit
    assert torch.equal(
        joined.where(is_level.unsqueeze(1), 0).sum(dim=2), (n_levels > 0).float()[:, None].expand(-1, 50)
    )


@pytest.mark.parametrize("kind", KINDS)
def test_tables_for_a_model_that_reads_rows_are_the_same_presented(kind):
    plain, shown = draw(kind, 2), draw(kind, 2, n_dims=9)
    assert shown["xs"].shape == (16, 40, 9)
    assert torch.equal(shown["xs"], present(plain["xs"], plain["ys"], 9))
    assert torch.equal(shown["ys"], plain["ys"])


@pytest.mark.parametrize("kind", KINDS)
def test_a_table_is_scored_at_the_place_of_its_examples_by_the_mean_over_its_queries(kind):
    task = make_task("table_prior", kind=kind, n_points=40)
    assert (task.first_place, task.place_step) == (5, 5)
    for seed in range(10):
        batch = draw(kind, seed)
        right, n_examples = batch["labels"].numpy(), batch["ys"].shape[1]
        place = np.arange(5, 36, 5).searchsorted(n_examples)
        wrong = right.copy()
        wrong[:, 0] += 2
        for answers, error in ((right, 0), (wrong, (1 if kind == "classification" else 4) / right.shape[1])):
            scores = task.score(answers, batch)
            assert scores.shape == (16, 7)
            np.testing.assert_allclose(scores[:, place], error, rtol=1e-5)
            assert np.isnan(np.delete(scores, place, axis=1)).all()


@pytest.mark.parametrize("n_prompts", [7, 100, 200])
def test_tables_of_all_shapes_are_drawn_to_be_scored(n_prompts):
    task = make_task("table_prior", n_columns=6, n_points=40)
    parts = task.sample_parts(n_prompts, make_generator("test", 0))
    assert sum(len(part["labels"]) for part in parts) == n_prompts
    counts = [part["ys"].shape[1] for part in parts]
    assert counts[:7] == list(range(5, 36, 5)) == sorted(set(counts))
    widths = [part["xs"].shape[2] for part in parts]
    assert widths == sorted(widths)
    assert set(widths) >= {1} | ({1, 2, 3, 5} if n_prompts > 7 else set())
    assert all(part["xs"].shape[1] == 40 for part in parts)
    again = task.sample_parts(n_prompts, make_generator("test", 0))
    assert all(torch.equal(first["ys"], second["ys"]) for first, second in zip(parts, again, strict=True))


def test_the_shares_of_columns_are_those_of_the_batches_of_a_training():
    task = make_task("table_prior", n_columns=6, n_points=40)
    generator = torch.Generator().manual_seed(0)
    drawn = np.array([task.draw_shape(generator, **task.sizes)[1] for _ in range(4000)])
    counted = np.array([count_columns(6, (share + 0.5) / 4000) for share in range(4000)])
    np.testing.assert_allclose(np.bincount(drawn) / 4000, np.bincount(counted) / 4000, atol=0.03)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "ranking"}, "`kind` must be classification or regression, got 'ranking'"),
        ({"n_columns": 0}, "`n_columns` must be an integer >= 1, got 0"),
        ({"n_points": 7}, "`n_points` must be >= 8, got 7"),
        ({"n_columns": 10, "n_dims": 9}, "`n_dims` must be >= `n_columns` = 10, got 9"),
    ],
)
def test_settings_that_cannot_be(settings, message):
    with pytest.raises(ValueError, match=message):
        make_task("table_prior", **settings)


def test_sizes_that_cannot_be():
    with pytest.raises(ValueError, match="`n_columns` must be <= that of the task, 6, got 7"):
        draw("regression", n_columns=7)
