"""Run compiled functions of prompts on all cores."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np


def n_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def map_prompts(kernel: Callable[..., np.ndarray], *arrays: np.ndarray, settings: tuple = ()) -> np.ndarray:
    """
    Split arrays with one row per prompt among threads; a kernel compiled with `nogil=True` runs in all at once.

    Returns the concatenation of `kernel(*rows_of_the_arrays, *settings)`, in the order of the prompts.
    """
    slices = np.array_split(np.arange(len(arrays[0])), n_cores())
    parts = [[np.ascontiguousarray(values[rows]) for values in arrays] for rows in slices if len(rows)]
    with ThreadPoolExecutor(len(parts)) as pool:
        return np.concatenate(list(pool.map(lambda part: kernel(*part, *settings), parts)))
