"""Which rows are for training and for testing."""

import numpy as np
import pytest

from scripts.suite.splits import split_rows, take_in_proportion, training_size


def test_a_quarter_of_a_table_at_least_is_for_testing():
    assert [training_size(n, 200) for n in (60, 100, 266, 267, 1000)] == [45, 75, 199, 200, 200]


@pytest.mark.parametrize("n_rows", [60, 300, 2000])
def test_rows_are_for_training_or_testing_and_those_of_a_split_are_always_the_same(n_rows):
    groups = np.arange(n_rows) % 7 // 5
    n_train = training_size(n_rows, 200)
    splits = [split_rows("a/b", groups, n_train, number) for number in range(5)]
    for train, test in splits:
        assert len(train) == n_train
        assert len(test) == min(500, n_rows - n_train)
        assert len(set(train) | set(test)) == len(train) + len(test)
        assert abs(groups[train].mean() - groups.mean()) < 1 / n_train
        assert abs(groups[test].mean() - groups.mean()) < 2 / len(test)
    again = split_rows("a/b", groups, n_train, 0)
    assert all(np.array_equal(*pair) for pair in zip(splits[0], again, strict=True))
    different = [*splits[1:], split_rows("a/c", groups, n_train, 0)]
    assert not any(np.array_equal(splits[0][0], train) for train, _ in different)


def test_every_class_is_there_twice_in_both_parts_however_rare():
    groups = np.repeat(np.arange(10), [800, 100, 50, 10, 10, 10, 10, 10, 10, 10])
    for number in range(20):
        for part in split_rows("a/b", groups, 50, number):
            assert np.bincount(groups[part], minlength=10).min() >= 2


def test_as_many_rows_are_taken_as_are_asked_of_each_group_in_proportion():
    generator = np.random.default_rng(0)
    for _ in range(200):
        groups = generator.integers(generator.integers(1, 9), size=generator.integers(30, 90))
        n_rows = generator.integers(20, len(groups) + 1)
        taken = take_in_proportion(groups, n_rows)
        assert taken.sum() == n_rows
        for group in np.unique(groups):
            share = (groups == group).mean() * n_rows
            assert taken[groups == group].sum() >= min(2, (groups == group).sum())
            assert taken[groups == group].sum() <= max(2, share + 1)
            first = np.flatnonzero(groups == group)[: taken[groups == group].sum()]
            assert taken[first].all()
