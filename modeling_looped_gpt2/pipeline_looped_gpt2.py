"""The pipeline `in-context-regression`: from examples and queries to predictions and the loops that each took."""

import reprlib
from collections.abc import Iterable, Iterator, Sized
from decimal import Decimal
from numbers import Real
from typing import Any

import numpy as np
import torch
from transformers import AutoModel
from transformers.pipelines import PIPELINE_REGISTRY
from transformers.pipelines.base import Pipeline


TASK = "in-context-regression"
ROWS_AT_A_TIME = 256


class InContextRegressionPipeline(Pipeline):
    """
    Answer queries from examples with a [`LoopedGPT2ForInContextRegression`].

    Example:

    ```python
    >>> from transformers import pipeline

    >>> regress = pipeline("in-context-regression", model="ORG/NAME", trust_remote_code=True)
    >>> regress({"examples": [[[0.5, -1.0], 2.0], [[1.5, 0.3], 0.7]], "queries": [[1.0, 1.0]]})
    {'predictions': [0.31], 'n_loops_used': [12]}
    ```"""

    _load_processor = False
    _load_image_processor = False
    _load_video_processor = False
    _load_feature_extractor = False
    _load_tokenizer = False

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        n_outputs = getattr(self.model.config, "n_outputs", 1)  # an older checkpoint's code has no such field
        if n_outputs > 1:
            raise ValueError(
                f"`model` must predict a single number, got one of `n_outputs` = {n_outputs}: ask its `predict`."
            )

    def __call__(self, inputs: dict | Iterable[dict], **kwargs) -> dict | list[dict] | Iterator[dict]:
        """
        Predict y at the queries of one request or of many.

        Args:
            inputs (`dict`, or a list, tuple, generator or `Dataset` of them, of torch or of datasets):
                `"examples"`: pairs `[x, y]`, or a table whose last column is y; at least one, at most what the model
                has positions for. `"queries"`: a list of x, or a table of the same features. x is a list of numbers,
                or a number where there is one feature; it is padded with zeros to the model's `n_dims`. A table is an
                array, a list of rows, a pandas frame, or a table of pyarrow or `datasets`. A number is an integer,
                float, `Decimal` or truth value of any width, used as it is in float32: the models are trained on x
                of unit variance.
            n_loops (`int`, *optional*, defaults to the model's):
                Loops, >= 1.
            exit_tolerance (`float`, *optional*):
                Let the loops of every query end once a loop changes its state by less than this share (> 0). Every
                query is then a prompt of its own, which costs the examples again for each.
            batch_size (`int`, *optional*, defaults to 1):
                Requests computed together where they follow one another with equal numbers of examples.

        Returns:
            For every request a `dict` of two lists, one entry per query: `"predictions"` (`float`), `"n_loops_used"`
            (`int`). A list or tuple of requests gives a list of them, a generator or `Dataset` an iterator.

        Raises:
            `ValueError`: examples or queries are missing, empty, not numbers, not finite, of unequal shapes, or more
                than the model can read; the message names which, and the column of a frame. Or the answers are not
                finite.
        """
        if isinstance(inputs, tuple):
            inputs = list(inputs)
        if isinstance(inputs, list) and not inputs:
            return []
        if hasattr(inputs, "with_format") and not isinstance(inputs, dict):  # of `datasets`: rows as plain lists
            inputs = (request for request in inputs.with_format(None))
        return super().__call__(inputs, **kwargs)

    def _sanitize_parameters(self, n_loops: int | None = None, exit_tolerance: float | None = None, **unknown: Any):
        if unknown:
            names = "`n_loops`, `exit_tolerance` and `batch_size`"
            raise TypeError(f"`{next(iter(unknown))}` is not an argument of the pipeline: it takes {names}.")
        given = {"n_loops": n_loops, "exit_tolerance": exit_tolerance}
        return {}, {name: value for name, value in given.items() if value is not None}, {}

    def preprocess(self, input_: dict) -> dict[str, torch.Tensor]:
        if not isinstance(input_, dict) or set(input_) != {"examples", "queries"}:
            got = sorted(map(str, input_)) if isinstance(input_, dict) else type(input_).__name__
            raise ValueError(f'A request must be a dict of "examples" and "queries", got {got}.')
        examples, given_queries = (_as_frame(input_[name]) for name in ("examples", "queries"))
        xs, ys = _read_examples(examples)
        queries = _read_queries(given_queries, _columns(examples))
        if queries.shape[1] != xs.shape[1]:
            raise ValueError(
                f"`queries` must have the features of `examples`, {xs.shape[1]} of them, got {queries.shape[1]}."
            )
        max_examples = self.model.max_examples
        if len(xs) > max_examples:
            raise ValueError(
                f"`examples` must be at most {max_examples} for this model, got {len(xs)}: give fewer, or use the "
                "project's InContextRegressor, which deals them into several prompts."
            )
        n_dims, n_features = self.model.config.n_dims, xs.shape[1]
        if n_features > n_dims:
            raise ValueError(
                f"`examples` must have at most `n_dims` = {n_dims} features, got {n_features}: select or project them."
            )
        xs, queries = (torch.nn.functional.pad(x, (0, n_dims - n_features)) for x in (xs, queries))
        return {"xs": xs, "ys": ys, "queries": queries}

    def run_single(self, inputs, *parameters) -> dict:
        return next(self.get_iterator([inputs], 0, 1, *parameters))

    def get_iterator(
        self, inputs, num_workers: int, batch_size: int, preprocess_params, forward_params, postprocess_params
    ) -> Iterator[dict]:
        if not isinstance(batch_size, int) or batch_size < 1:
            raise ValueError(f"`batch_size` must be an integer >= 1, got {batch_size!r}.")
        # the base class batches what a tokenizer has padded; requests are not padded but grouped
        if isinstance(inputs, Sized):
            inputs = map(inputs.__getitem__, range(len(inputs)))
        requests = (self.preprocess(request) for request in inputs)
        for group in _group(requests, batch_size):
            n_queries = [len(request["queries"]) for request in group]
            queries = [request["queries"] for request in group]
            batch = {name: torch.stack([request[name] for request in group]) for name in ("xs", "ys")}
            batch["queries"] = torch.nn.utils.rnn.pad_sequence(queries, batch_first=True)
            outputs = self.forward(batch, **forward_params)
            for row, n in enumerate(n_queries):
                yield self.postprocess({name: values[row, :n] for name, values in outputs.items()})

    def _forward(
        self, input_tensors: dict[str, torch.Tensor], n_loops: int | None = None, exit_tolerance: float | None = None
    ) -> dict[str, torch.Tensor]:
        xs, ys, queries = (input_tensors[name] for name in ("xs", "ys", "queries"))
        if exit_tolerance is None:
            context = self.model.encode_context(xs, ys, n_loops=n_loops)
            predictions = self.model.predict(queries, context)
            n_loops = self.model.config.n_loops if n_loops is None else n_loops
            return {
                "predictions": predictions,
                "n_loops_used": torch.full_like(predictions, n_loops, dtype=torch.long),
            }
        shape = queries.shape[:2]
        xs, ys = (x.repeat_interleave(shape[1], dim=0) for x in (xs, ys))
        prompts = torch.cat((xs, queries.flatten(0, 1).unsqueeze(1)), dim=1)
        parts = [
            self.model(xs_part, ys_part, n_loops=n_loops, exit_tolerance=exit_tolerance)
            for xs_part, ys_part in zip(prompts.split(ROWS_AT_A_TIME), ys.split(ROWS_AT_A_TIME), strict=True)
        ]
        return {
            "predictions": torch.cat([part.predictions[:, -1] for part in parts]).view(shape),
            "n_loops_used": torch.cat([part.n_loops_used for part in parts]).view(shape),
        }

    def postprocess(self, model_outputs: dict[str, torch.Tensor]) -> dict[str, list]:
        return {name: values.tolist() for name, values in model_outputs.items()}


def _group(requests: Iterable[dict], batch_size: int) -> Iterator[list[dict]]:
    """Yield groups of at most `batch_size` requests in a row that have equally many examples and features."""
    group = []
    for request in requests:
        if group and (len(group) == batch_size or request["xs"].shape != group[0]["xs"].shape):
            yield group
            group = []
        group.append(request)
    if group:
        yield group


def _as_frame(values: Any) -> Any:
    """Return tables and columns of pyarrow and `datasets` as those of pandas, anything else as it is."""
    return values.to_pandas() if hasattr(values, "to_pandas") and not hasattr(values, "to_numpy") else values


def _columns(values: Any) -> list | None:
    """Names of a data frame's columns."""
    return list(values.columns) if hasattr(values, "columns") else None


def _read_examples(examples: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Pairs [x, y], or a table with y in its last column, to xs (P, F) and ys (P,)."""
    is_list = isinstance(examples, list | tuple) and len(examples)
    if is_list and all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in examples):
        return _read_rows("examples", [x for x, _ in examples]), _read("`examples`", [y for _, y in examples], 1)
    table = _read_rows("examples", examples)
    if table.shape[1] < 2:
        raise ValueError(
            "`examples` must be pairs [x, y], or a table with at least one feature beside its last column of y, got "
            "one column."
        )
    return table[:, :-1], table[:, -1]


def _read_queries(queries: Any, columns: list | None) -> torch.Tensor:
    """Queries to (Q, F); a data frame must have the features of the examples' `columns`, in their order."""
    names = _columns(queries)
    if columns is not None and names is not None and names != columns[:-1]:
        raise ValueError(f"`queries` must have the columns {columns[:-1]} of the examples, got {names}.")
    return _read_rows("queries", queries)


def _read_rows(name: str, rows: Any) -> torch.Tensor:
    """A table, a list of rows or of single numbers to (rows, columns)."""
    if hasattr(rows, "iloc") and rows.ndim == 2 and rows.size:
        columns = [_read(f"column {column!r} of `{name}`", values, 1) for column, values in rows.items()]
        return torch.stack(columns, dim=1)
    if isinstance(rows, list | tuple) and len(rows) and all(hasattr(row, "__len__") for row in rows):
        rows = [_read(f"`{name}`", row, 1) for row in rows]
        if len({len(row) for row in rows}) > 1:
            raise ValueError(f"`{name}` must have one number of features, got {sorted({len(row) for row in rows})}.")
        return torch.stack(rows)
    table = _read(f"`{name}`", rows)
    return table.unsqueeze(1) if table.ndim == 1 else _check_ndim(f"`{name}`", table, 2)


def _read(subject: str, values: Any, n_axes: int | None = None) -> torch.Tensor:
    """Numbers in any container to a finite float32 tensor that is not empty; errors speak of the `subject`."""
    try:
        numbers = torch.from_numpy(_to_float64(values))
    except (TypeError, ValueError, RuntimeError, OverflowError):
        raise ValueError(
            f"{subject} must be real numbers in lists of equal lengths, an array or a data frame, "
            f"got {reprlib.repr(values)}."
        ) from None
    if numbers.numel() == 0:
        raise ValueError(f"{subject} must not be empty.")
    if numbers.isnan().any():
        raise ValueError(f"{subject} must be finite, got NaN or a missing value: drop or impute those.")
    numbers = numbers.to(torch.float32)
    if not numbers.isfinite().all():
        raise ValueError(f"{subject} must be finite in float32, got infinity or a number beyond 3.4e38: rescale it.")
    return numbers if n_axes is None else _check_ndim(subject, numbers, n_axes)


def _to_float64(values: Any) -> np.ndarray:
    """Integers, floats, decimals and truth values in any container; NaN for those that are missing."""
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        values = values.double().numpy() if values.is_floating_point() else values.numpy()  # numpy has no bfloat16
    if np.ma.is_masked(values) or (hasattr(values, "isna") and np.any(values.isna())):
        return np.full(np.shape(values), np.nan)
    array = np.asarray(values)
    types = {type(value) for value in array.flat} if array.dtype == object else {array.dtype.type}
    if not all(issubclass(kind, Real | Decimal | np.bool_) and kind is not np.timedelta64 for kind in types):
        raise TypeError
    with np.errstate(over="ignore"):  # a wider float becomes infinite, and is refused as such
        return array.astype(np.float64)


def _check_ndim(subject: str, values: torch.Tensor, n_axes: int) -> torch.Tensor:
    if values.ndim != n_axes:
        raise ValueError(f"{subject} must be rows of numbers, got an array of shape {tuple(values.shape)}.")
    return values


# every checkpoint brings its own copy of this file: the last one imported answers for the task, without a warning
PIPELINE_REGISTRY.supported_tasks.pop(TASK, None)
PIPELINE_REGISTRY.register_pipeline(TASK, InContextRegressionPipeline, pt_model=AutoModel, type="multimodal")

__all__ = ["InContextRegressionPipeline"]
