"""Predictions kept on disk under a fingerprint of all they depend on, so that an interrupted evaluation goes on."""

import functools
import hashlib
import importlib.metadata
import inspect
import io
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

from .baselines import Predictor, predict_prefixes


CHUNK = 128  # prompts of an entry: a run that is killed loses no more than these
LIBRARIES = ("torch", "numpy", "numba", "scikit-learn")


class PredictionCache:
    """
    A folder of predictions of classical predictors.

    An entry is a file named after the SHA-256 of the prompts' bytes, the predictor with its settings, the code
    of this package and the versions of the libraries, and begins with the checksum of its content. One that does
    not match it is computed again. Entries are written whole or not at all, so several processes may share a folder.

    Args:
        folder (`str` or `Path`):
            Created when the first entry is written.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)

    def predict(
        self, predictor: Predictor, prompts: dict[str, torch.Tensor], step: Callable[[], object] = lambda: None
    ) -> np.ndarray:
        """
        [`~tasks.baselines.predict_prefixes`] on `prompts["xs"]`, `["ys"]` and, where there are some, `["queries"]`.

        Calls `step` after each of the [`n_chunks`] chunks of prompts.
        """
        predictions = []
        for chunk in chunks(prompts):
            path = self.folder / f"{_fingerprint(predictor, chunk)}.predictions"
            values = _read(path)
            if values is None:
                values = predict_prefixes(predictor, chunk["xs"], chunk["ys"], chunk["queries"]).cpu().numpy()
                _write(path, values)
            predictions.append(values)
            step()
        return np.concatenate(predictions)


def n_chunks(n_prompts: int) -> int:
    """Chunks that so many prompts are predicted in."""
    return -(-n_prompts // CHUNK)


def chunks(prompts: dict[str, torch.Tensor]) -> Iterator[dict[str, torch.Tensor]]:
    """The prompts in parts of at most `CHUNK`, `"queries"` defaulting to `"xs"`."""
    prompts = {"queries": prompts["xs"]} | prompts
    for start in range(0, len(prompts["xs"]), CHUNK):
        yield {name: values[start : start + CHUNK] for name, values in prompts.items()}


def _fingerprint(predictor: Predictor, prompts: dict[str, torch.Tensor]) -> str:
    settings = {}
    while isinstance(predictor, functools.partial):
        settings, predictor = predictor.keywords | settings, predictor.func
    about = [predictor.__module__, predictor.__qualname__, settings, _environment()]
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for name in ("xs", "ys", "queries"):
        values = prompts[name].detach().cpu().contiguous().numpy()
        digest.update(f"{name} {values.shape} {values.dtype}".encode())
        digest.update(values.tobytes())
    return digest.hexdigest()


@functools.cache
def _environment() -> list[str]:
    """The code of this package and the versions of the libraries it computes with."""
    code = hashlib.sha256()
    for path in sorted(Path(inspect.getfile(predict_prefixes)).parent.glob("*.py")):
        code.update(path.read_bytes())
    return [code.hexdigest(), *(f"{name} {importlib.metadata.version(name)}" for name in LIBRARIES)]


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
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    partial.write_bytes(hashlib.sha256(buffer.getvalue()).hexdigest().encode() + buffer.getvalue())
    os.replace(partial, path)
