"""Which rows of a table are for training and which for testing."""

import zlib

import numpy as np


N_SPLITS = 5
MOST_TEST_ROWS = 500


def training_size(n_rows: int, n_asked: int) -> int:
    """The rows for training where `n_asked` are wanted: three quarters of the table at most, the others test."""
    return min(n_asked, 3 * n_rows // 4)


def split_rows(name: str, groups: np.ndarray, n_train: int, number: int) -> tuple[np.ndarray, np.ndarray]:
    """
    Draw rows for training and up to 500 others for testing, each group in proportion.

    Args:
        name (`str`):
            Name of the table; it and `number` are the seed.
        groups (`np.ndarray` of shape `(rows,)`):
            Classes, or one value for all.
        n_train (`int`):
            Rows for training, at least two of every group.
        number (`int`):
            Number of the split, 0 to 4.

    Returns:
        Indices `(n_train,)` and `(up to 500,)`, in random order.
    """
    generator = np.random.default_rng([zlib.crc32(name.encode()), n_train, number])
    order = generator.permutation(len(groups))
    is_train = take_in_proportion(groups[order], n_train)
    rest = order[~is_train]
    is_test = take_in_proportion(groups[rest], min(MOST_TEST_ROWS, len(rest)))
    return order[is_train], rest[is_test]


def take_in_proportion(groups: np.ndarray, n_rows: int) -> np.ndarray:
    """Mark `n_rows` of `(rows,)`: the first of each group, in proportion to its size but at least two or all."""
    _, members, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    shares = n_rows * sizes / len(groups)
    least = np.minimum(sizes, 2)
    counts = np.maximum(np.floor(shares).astype(int), least)
    while counts.sum() < n_rows:
        counts[np.argmax(np.where(counts < sizes, shares - counts, -np.inf))] += 1
    while counts.sum() > n_rows:
        counts[np.argmax(np.where(counts > least, counts - shares, -np.inf))] -= 1
    taken = np.zeros(len(groups), bool)
    for group, count in enumerate(counts):
        taken[np.flatnonzero(members == group)[:count]] = True
    return taken
