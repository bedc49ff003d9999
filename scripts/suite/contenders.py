"""Who takes part in the suite: the classical methods, and models behind their estimators."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import sklearn
import torch

from modeling_looped_gpt2 import LoopedGPT2Config
from modeling_looped_gpt2.estimator_looped_gpt2 import InContextClassifier, InContextRegressor
from scripts.common.devices import fastest_attention
from scripts.common.model_loading import ModelError, check_name, load_model, weights_digest
from scripts.suite.baselines import make_baselines
from scripts.suite.results import Results
from scripts.suite.tables import KINDS


ESTIMATORS = {"classification": InContextClassifier, "regression": InContextRegressor}
BASELINES = "baselines"  # their folder; no model may have this name


def classical_results(output_dir: Path) -> Results:
    """The results of the classical methods."""
    methods = {kind: make_baselines(kind) for kind in KINDS}
    return Results(output_dir / BASELINES, methods, {"scikit-learn": sklearn.__version__})


def parse_names(given: Sequence[str]) -> dict[str, str]:
    """
    Read models given as `PATH` or `NAME=PATH`; the name of a path is its last part.

    Raises:
        `ValueError`: two models have one name, or a name is not that of a folder.
    """
    pairs = [text.partition("=")[::2] if "=" in text else (Path(text).name, text) for text in given]
    names = [name for name, _ in pairs]
    for name in names:
        if names.count(name) > 1 or name in ("", BASELINES) or Path(name).name != name:
            raise ValueError(f"`models` must have names of folders, each once and not {BASELINES}, got {name!r}.")
    return dict(pairs)


def kind_of(path: str) -> str:
    """The kind of tables that a model answers; raises [`ModelError`] where it answers none."""
    check_name(path)
    content, _ = LoopedGPT2Config.get_config_dict(path)
    names = content.get("architectures") or [None]
    kinds = [kind for kind, estimator in ESTIMATORS.items() if names == [estimator.model_class.__name__]]
    if not kinds:
        heads = " or ".join(estimator.model_class.__name__ for estimator in ESTIMATORS.values())
        raise ModelError(f"{path} must hold a {heads}, got {names[0]}.")
    return kinds[0]


def model_results(output_dir: Path, name: str, path: str, loops: Sequence[int], device: torch.device) -> Results:
    """The results of a model: at its trained number of loops, or at each of `loops`."""
    kind = kind_of(path)
    estimator = ESTIMATORS[kind]
    model = load_model(path, estimator.model_class, attn_implementation=fastest_attention(device)).to(device)
    counts = {f"{name}, {n_loops} loops": n_loops for n_loops in loops} or {name: None}
    methods = {
        method: estimator(model, n_loops=n_loops, random_state=0, verbose=False) for method, n_loops in counts.items()
    }
    return Results(output_dir / name, {kind: methods}, {"weights_sha256": weights_digest(model)})


def description_of(results: Results) -> dict[str, Any]:
    """What a comparison records of a model: the digest of its weights, and by method the loops, `None` if trained."""
    (methods,) = results.methods.values()
    loops = {name: method.n_loops for name, method in methods.items()}
    return {"weights_sha256": results.record["settings"]["weights_sha256"], "n_loops": loops}
