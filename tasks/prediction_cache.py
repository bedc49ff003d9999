"""Predictions kept on disk under a fingerprint of all they depend on, so that an interrupted evaluation can go on."""

import functools
import hashlib
import importlib.metadata
import inspect
import io
import json
import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from .baselines.prefixes import Predictor, PredictorFamily, predict_prefixes
from .common import Prompts


CHUNK = 128  # prompts per entry of a baseline: a run that is killed loses at most so many
LIBRARIES = ("torch", "numpy", "numba", "scikit-learn")


class PredictionCache:
    """
    A folder of predictions.

    An entry is a file. Its name is a SHA-256 of the prompts' bytes, the predictor with its settings, the code of this
    package and the versions of the libraries. It begins with a checksum of its content; a damaged entry is computed
    again. Entries are written whole or not at all, so several processes may share a folder.

    Args:
        folder (`str` or `Path`):
            Created when the first entry is written.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)

    def predict(
        self, predictor: Predictor, prompts: Prompts, on_chunk: Callable[[], object] = lambda: None
    ) -> np.ndarray:
        """
        Return what `predict_prefixes` returns for `prompts["xs"]`, `["ys"]` and, where there are some, `["queries"]`.

        Calls `on_chunk` after each of the [`n_chunks`] chunks of prompts.
        """

        def answer(chunk: Prompts) -> np.ndarray:
            return predict_prefixes(predictor, chunk["xs"], chunk["ys"], chunk["queries"]).cpu().numpy()

        columns = {name: prompts[name] for name in ("xs", "ys", "queries") if name in prompts}
        return self.recall(answer, _identity(predictor), columns, on_chunk)

    def recall(
        self,
        answer: Callable[[Prompts], np.ndarray],
        about: Any,
        prompts: Prompts,
        on_chunk: Callable[[], object] = lambda: None,
        size: int = CHUNK,
    ) -> np.ndarray:
        """
        Return what `answer` returns for the prompts; only chunks that are not in the folder are computed.

        Args:
            answer (`Callable`):
                From a chunk of the prompts, with `"queries"`, to an array with one row per prompt.
            about (anything `json` can write):
                Everything that the answers depend on besides the prompts, this package and the libraries.
            prompts (`dict`):
                All columns that the answers depend on, one row per prompt; `queries` default to `xs`.
            on_chunk (`Callable`, *optional*):
                Called after each of the [`n_chunks`] chunks, for a progress bar.
            size (`int`, defaults to 128):
                Prompts per chunk, >= 1.
        """
        answers = []
        for chunk in chunks(prompts, size):
            path = self.folder / f"{_fingerprint(about, chunk)}.predictions"
            values = _read(path)
            if values is None:
                values = answer(chunk)
                _write(path, values)
            answers.append(values)
            on_chunk()
        return np.concatenate(answers)


def n_chunks(n_prompts: int, size: int = CHUNK) -> int:
    """Return the number of chunks of at most `size` prompts that `n_prompts` are split into."""
    return -(-n_prompts // size)


def chunks(prompts: Prompts, size: int = CHUNK) -> Iterator[Prompts]:
    """Yield the prompts in chunks of at most `size`; where prompts have `"xs"`, `"queries"` default to them."""
    if "xs" in prompts:
        prompts = {"queries": prompts["xs"]} | prompts
    for start in range(0, len(next(iter(prompts.values()))), size):
        yield {name: values[start : start + size] for name, values in prompts.items()}


def code_digest(of: Any) -> str:
    """SHA-256 of all Python files in and below the folder with the code of this function or class."""
    digest = hashlib.sha256()
    for path in sorted(Path(inspect.getfile(of)).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _identity(predictor: Predictor) -> list:
    """The name of a predictor's function, its settings and the labels of a family."""
    if isinstance(predictor, PredictorFamily):
        return [*_identity(predictor.predictor), predictor.labels]
    settings = {}
    while isinstance(predictor, functools.partial):
        settings, predictor = predictor.keywords | settings, predictor.func
    return [predictor.__module__, predictor.__qualname__, settings]


def _fingerprint(about: Any, prompts: Prompts) -> str:
    digest = hashlib.sha256(json.dumps([about, _environment()], sort_keys=True).encode())
    for name in sorted(prompts):
        values = prompts[name].detach().cpu().contiguous().numpy()
        digest.update(f"{name} {values.shape} {values.dtype}".encode())
        digest.update(values.tobytes())
    return digest.hexdigest()


@functools.cache
def _environment() -> list[str]:
    """The code of this package and the versions of the libraries it computes with."""
    versions = (f"{name} {importlib.metadata.version(name)}" for name in LIBRARIES)
    return [code_digest(PredictionCache), *versions]


def _read(path: Path) -> np.ndarray | None:
    """The entry, or `None` where there is none or it is damaged."""
    try:
        checksum, content = (entry := path.read_bytes())[:64], entry[64:]
    except OSError:
        return None
    if hashlib.sha256(content).hexdigest().encode() != checksum:
        return None
    return np.load(io.BytesIO(content), allow_pickle=False)


def _write(path: Path, values: np.ndarray):
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    np.save(buffer, values, allow_pickle=False)
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        partial.write_bytes(hashlib.sha256(buffer.getvalue()).hexdigest().encode() + buffer.getvalue())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
