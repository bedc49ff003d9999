"""The pipeline `in-context-table`: from rows with an answer and rows without to answers, with the estimators."""

import reprlib
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pandas as pd
from transformers import AutoModel
from transformers.pipelines import PIPELINE_REGISTRY
from transformers.pipelines.base import Pipeline

from .estimator_columns_looped_gpt2 import is_frame
from .estimator_looped_gpt2 import InContextClassifier, InContextRegressor


TASK = "in-context-table"
INTERVAL = (0.05, 0.95)


class InContextTablePipeline(Pipeline):
    """
    Answer rows of a table from others by an [`InContextClassifier`], or numbers by an [`InContextRegressor`].

    Example:

    ```python
    >>> from transformers import pipeline

    >>> ask = pipeline("in-context-table", model="ORG/NAME", trust_remote_code=True)
    >>> ask({"examples": [[31, "a", "no"], [70, "b", "yes"], [64, None, "yes"]], "queries": [[58, "b"]]})
    {'predictions': ['yes'], 'probabilities': [{'no': 0.26, 'yes': 0.74}], 'n_loops_used': 6}
    ```"""

    _load_processor = False
    _load_image_processor = False
    _load_video_processor = False
    _load_feature_extractor = False
    _load_tokenizer = False

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        # the class may be that of a checkpoint's own code
        estimators = {each.model_class.__name__: each for each in (InContextClassifier, InContextRegressor)}
        if type(self.model).__name__ not in estimators:
            raise ValueError(f"`model` must be one of {', '.join(estimators)}, got a {type(self.model).__name__}.")
        self.estimator_class = estimators[type(self.model).__name__]

    def __call__(self, inputs: dict | Iterable[dict], **kwargs) -> dict | list[dict] | Iterator[dict]:
        """
        Answer the queries of one table or of many, one table after the other.

        Args:
            inputs (`dict`, or a list or generator of them):
                `"examples"`: a table whose last column is what is asked; `"queries"`: a table of the other columns. A
                table is a list of rows, an array, a pandas frame, or a table of pyarrow, `datasets` or polars. Its
                columns are numbers, truth values, categories or text of few values, with gaps (`None`, NaN) in all but
                the last; that of a model of numbers is of numbers, else labels of any kind.
            n_loops (`int`, *optional*, defaults to the model's), exit_tolerance (`float`, *optional*):
                As in the estimators.

        Returns:
            For every table a `dict`: `"predictions"`, an answer for each query; `"n_loops_used"` (`int`), 0 where all
            examples have one class; of a model of classes `"probabilities"`, for each query a `dict` by class; of one
            with quantiles `"intervals"`, for each query the ends of a 90% interval. A list gives a list of them, a
            generator an iterator.

        Raises:
            `ValueError`: a request is not as above, or the estimator refuses it, where X is the columns but the last
                and y that one.
        """
        if isinstance(inputs, list) and not inputs:
            return []
        return super().__call__(inputs, **kwargs)

    def _sanitize_parameters(self, n_loops: int | None = None, exit_tolerance: float | None = None, **unknown: Any):
        if unknown:
            names = "`n_loops` and `exit_tolerance`"
            raise TypeError(f"`{next(iter(unknown))}` is not an argument of the pipeline: it takes {names}.")
        given = {"n_loops": n_loops, "exit_tolerance": exit_tolerance}
        return {}, {name: value for name, value in given.items() if value is not None}, {}

    def get_iterator(
        self, inputs, num_workers: int, batch_size: int, preprocess_params, forward_params, postprocess_params
    ) -> Iterator[dict]:
        parameters = preprocess_params, forward_params, postprocess_params
        return (self.run_single(request, *parameters) for request in inputs)

    def preprocess(self, input_: dict) -> dict[str, Any]:
        if not isinstance(input_, dict) or set(input_) != {"examples", "queries"}:
            got = sorted(map(str, input_)) if isinstance(input_, dict) else type(input_).__name__
            raise ValueError(f'A request must be a dict of "examples" and "queries", got {got}.')
        tables = {name: _as_frame(name, rows) for name, rows in input_.items()}
        examples, queries = tables["examples"], tables["queries"]
        features, asked = list(examples.columns[:-1]), list(queries.columns)
        if len(features) != len(asked) or not features:
            raise ValueError(
                "`queries` must have the columns of `examples` but the last, at least one, got "
                f"{len(asked)} beside {len(examples.columns)}."
            )
        if features != asked and all(is_frame(_unpacked(rows)) for rows in input_.values()):
            raise ValueError(f"`queries` must have the columns {features} of the examples, got {asked}.")
        return {"examples": examples, "queries": queries.set_axis(examples.columns[:-1], axis=1)}

    def _forward(self, input_tensors: dict[str, Any], **options: Any) -> dict[str, Any]:
        examples, queries = input_tensors["examples"], input_tensors["queries"]
        estimator = self.estimator_class(self.model, **options, random_state=0, verbose=False)
        estimator.fit(examples.iloc[:, :-1], examples.iloc[:, -1])
        if self.estimator_class is InContextClassifier:
            shares, labels = estimator.predict_proba(queries), estimator.classes_
            probabilities = [dict(zip(labels.tolist(), row, strict=True)) for row in shares.tolist()]
            answer = {"predictions": labels[shares.argmax(axis=1)].tolist(), "probabilities": probabilities}
        else:
            answer = {"predictions": estimator.predict(queries).tolist()}
            if self.model.config.n_quantiles:
                answer["intervals"] = estimator.predict_quantiles(queries, INTERVAL).tolist()
        return answer | {"n_loops_used": getattr(estimator, "n_loops_", 0)}

    def postprocess(self, model_outputs: dict[str, Any]) -> dict[str, Any]:
        return model_outputs


def _unpacked(rows: Any) -> Any:
    """Tables of pyarrow, `datasets` and polars as those of pandas."""
    return rows.to_pandas() if hasattr(rows, "to_pandas") else rows


def _as_frame(name: str, given: Any) -> pd.DataFrame:
    """A table in any container as a data frame; one without names has the columns x0, x1, ..."""
    rows = _unpacked(given)
    if is_frame(rows):
        return rows
    rows = rows.tolist() if isinstance(rows, np.ndarray) else rows
    rows = rows if isinstance(rows, list | tuple) else []
    if not all(isinstance(row, list | tuple | np.ndarray) for row in rows) or len(set(map(len, rows))) != 1:
        raise ValueError(
            f"`{name}` must be a table, a data frame or a list of rows of one length, got {reprlib.repr(given)}."
        )
    return pd.DataFrame(list(map(list, rows))).add_prefix("x")


# every checkpoint brings its own copy of this file: the last one imported answers for the task, without a warning
PIPELINE_REGISTRY.supported_tasks.pop(TASK, None)
PIPELINE_REGISTRY.register_pipeline(TASK, InContextTablePipeline, pt_model=AutoModel, type="multimodal")

__all__ = ["InContextTablePipeline"]
