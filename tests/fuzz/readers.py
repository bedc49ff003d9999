"""Tables and texts: the pipeline, the estimators and the reader of texts."""

import warnings
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pandas as pd
import torch

from modeling_looped_gpt2 import (
    LoopedGPT2Config,
    LoopedGPT2ForInContextClassification,
    LoopedGPT2ForInContextRegression,
)
from modeling_looped_gpt2.estimator_looped_gpt2 import InContextClassifier, InContextRegressor
from modeling_looped_gpt2.pipeline_looped_gpt2 import InContextRegressionPipeline
from scripts.training.text_file import TextFile
from scripts.training.text_stream import TextStream
from scripts.training.text_tokenizer import build_tokenizer
from tests.fuzz.model_calls import N_DIMS, model_of
from tests.fuzz.outcome import ODD, REFUSALS, Fault, check, check_message, describe


TEXTS = (
    "a",
    "ab c",
    "</s>",
    "<s> x",
    "<pad>",
    "\n",
    "\r\n",
    " ",
    "é",
    "日本",
    "\U0001f600",
    "<|endoftext|>",
    "\t",
    "\x0b",
)


@cache
def pipeline() -> InContextRegressionPipeline:
    """The pipeline around a small model."""
    return InContextRegressionPipeline(model_of(0, 0))


@cache
def table_model(classify: bool) -> torch.nn.Module:
    """A small model of tables."""
    torch.manual_seed(0)
    settings = {"n_embd": 16, "n_head": 2, "n_layer": 2, "n_loops": 2, "num_labels": 3, "initializer_range": 0.2}
    config = LoopedGPT2Config(**settings, example_order="cells", position_embedding="none")
    return (LoopedGPT2ForInContextClassification if classify else LoopedGPT2ForInContextRegression)(config).eval()


def draw_table(rng: Random, n_rows: int, n_columns: int) -> np.ndarray:
    """Numbers of any scale, some columns of which do not vary."""
    generator = np.random.default_rng(rng.randrange(2**31))
    table = generator.normal(size=(n_rows, n_columns)) * 10.0 ** rng.choice((0, 0, 0, -3, 3, 6, -9))
    for column in range(n_columns):
        if rng.random() < 0.1:
            table[:, column] = rng.choice((0.0, 1.0, 2023.0))
    return table


def container(rng: Random, table: np.ndarray) -> Any:
    """The same numbers in another container."""
    kind = rng.choice(("array", "float32", "lists", "frame", "nullable", "object", "tensor"))
    frame = pd.DataFrame(table, columns=[f"c{i}" for i in range(table.shape[1])])
    makers = {
        "array": lambda: table,
        "float32": lambda: table.astype(np.float32),
        "lists": table.tolist,
        "frame": lambda: frame,
        "nullable": lambda: frame.astype("Float64"),
        "object": lambda: frame.astype(object),
        "tensor": lambda: torch.as_tensor(table),
    }
    return makers[kind]()


def fuzz_pipeline(rng: Random) -> str:
    """One request; `"answered"` as the model answers each query alone, or `"refused"`."""
    n_examples, n_queries, n_features = rng.randint(1, 6), rng.randint(1, 4), rng.randint(1, N_DIMS)
    table, queries = draw_table(rng, n_examples, n_features + 1), draw_table(rng, n_queries, n_features)
    request = {"examples": container(rng, table), "queries": container(rng, queries)}
    if isinstance(request["examples"], list):
        request["examples"] = [[row[:-1], row[-1]] for row in request["examples"]]
    if isinstance(request["examples"], pd.DataFrame) and isinstance(request["queries"], pd.DataFrame):
        request["queries"].columns = request["examples"].columns[:-1]
    spoilt = rng.random() < 0.5
    if spoilt:
        name = rng.choice(("examples", "queries", "n_loops", "more"))
        request[name] = rng.choice(ODD) if rng.random() < 0.6 else container(rng, draw_table(rng, 9, N_DIMS + 2))
    what = describe(request)
    try:
        answer = pipeline()(request)
    except REFUSALS as error:
        check(spoilt or np.abs(table).max() > 1e5, f"a right request was refused: {error}: {what}")
        check_message(str(error))
        return "refused"
    except Exception as error:
        raise Fault(f"{type(error).__name__}: {error}; {what}") from error
    if spoilt:
        check(bool(np.isfinite(answer["predictions"]).all()), f"not finite: {what}")
        return "answered"
    xs = torch.zeros(n_examples + 1, N_DIMS)
    xs[:-1, :n_features] = torch.as_tensor(table[:, :-1])
    for prediction, query in zip(answer["predictions"], queries, strict=True):
        xs[-1, :n_features] = torch.as_tensor(query)
        with torch.no_grad():
            alone = model_of(0, 0)(xs[None], torch.as_tensor(table[None, :, -1]).float()).predictions[0, -1].item()
        check(abs(alone - prediction) < 1e-3 * max(1, abs(alone)), f"{prediction} instead of {alone}: {what}")
    return "answered"


def draw_column(rng: Random, n_rows: int) -> Any:
    """A column of a data frame as people have them: numbers, levels, gaps, and what is refused."""
    generator = np.random.default_rng(rng.randrange(2**31))
    levels = generator.choice(["", "a", "b c", "é", *map(str, range(rng.choice((1, 2, 9, 40))))], size=n_rows)
    numbers = generator.integers(-3, 4, size=n_rows) * 10.0 ** rng.choice((0, 0, 200, -200))
    makers = {
        "numbers": lambda: numbers,
        "truth": lambda: numbers > 0,
        "text": lambda: levels,
        "category": lambda: pd.Categorical(levels, ordered=rng.random() < 0.5),
        "numbers as categories": lambda: pd.Categorical(numbers),
        "nullable": lambda: pd.array(numbers, dtype="Float64"),
        "nothing": lambda: [None] * n_rows,
        "mixed": lambda: [rng.choice((1, "1", True, None, 2.5)) for _ in range(n_rows)],
    }
    refused = {
        "dates": lambda: pd.to_datetime(["2020-01-01"] * n_rows),
        "infinity": lambda: np.full(n_rows, rng.choice((np.inf, -np.inf))),
        "lists": lambda: [[1]] * n_rows,
    }
    kinds = refused if rng.random() < 0.1 else makers
    column = pd.Series(kinds[rng.choice(list(kinds))]())
    return column.where(generator.random(n_rows) > rng.choice((0, 0, 0.3, 1)))


def fuzz_table(rng: Random) -> str:
    """One data frame fitted and asked; `"answered"`, the same whatever the order of its columns, or `"refused"`."""
    n_rows, n_columns = rng.choice((1, 2, 3, 9, 50)), rng.randint(1, 5)
    rows = pd.DataFrame({f"c{i}": draw_column(rng, n_rows + 3) for i in range(n_columns)})
    X, queries = rows.iloc[:n_rows], rows.iloc[n_rows:]
    classify = rng.random() < 0.5
    y = np.arange(n_rows) % 3 if classify else np.random.default_rng(rng.randrange(2**31)).normal(size=n_rows)
    estimator = (InContextClassifier if classify else InContextRegressor)(table_model(classify))
    what, answers = describe((X.to_dict("list"), queries.to_dict("list"), y)), []
    for names in (list(rows), list(rows)[::-1]):
        try:
            fitted = estimator.fit(X[names], y)
            answers.append(fitted.predict_proba(queries[names]) if classify else fitted.predict(queries[names]))
        except REFUSALS as error:
            check_message(str(error), ("columns",))
            check(not answers, f"refused in another order of columns alone: {error}: {what}")
            return "refused"
        except Exception as error:
            raise Fault(f"{type(error).__name__}: {error}; {what}") from error
    check(bool(np.isfinite(answers[0]).all()), f"not finite: {answers[0]}: {what}")
    check(bool(np.allclose(*answers, rtol=1e-3, atol=1e-3)), f"{answers[1]} in another order, {answers[0]}: {what}")
    return "answered"


def fuzz_estimator(rng: Random) -> str:
    """One table fitted and asked; `"answered"`, the same for any units of x and y, or `"refused"`."""
    classify = rng.random() < 0.3
    n_rows, n_features = rng.choice((1, 2, 5, 6, 20)), rng.randint(1, N_DIMS)
    X, queries = draw_table(rng, n_rows, n_features), draw_table(rng, 4, n_features)
    y = np.arange(n_rows) % 2 if classify else draw_table(rng, n_rows, 1)[:, 0]
    spoil = rng.choice(("none", "none", "X", "y", "queries", "n_loops", "y_std", "max_contexts", "random_state"))
    settings = {"random_state": 0}
    if spoil in ("n_loops", "max_contexts", "random_state") or (spoil == "y_std" and not classify):
        settings[spoil] = rng.choice([value for value in ODD if not isinstance(value, int) or value < 50])
    given = {"X": container(rng, X), "y": y, "queries": container(rng, queries)}
    if spoil in given:
        given[spoil] = rng.choice(
            (np.nan, None, "text", [], X[:, :0], np.full_like(X, np.inf), X * 1e300, X.astype(str))
        )
    what = describe((settings, given))
    estimator = (InContextClassifier if classify else InContextRegressor)(
        model_of(1 if classify else 0, 0), **settings
    )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # scikit-learn's own, of feature names
            answer = estimator.fit(given["X"], given["y"]).predict(given["queries"])
    except REFUSALS as error:
        refusable = spoil != "none" or n_rows == 1 or classify
        check(refusable, f"a right table was refused: {error}: {what}")
        check(bool(str(error).strip()) and "Traceback" not in str(error), f"an empty error: {what}")
        return "refused"
    except Exception as error:
        raise Fault(f"{type(error).__name__}: {error}; {what}") from error
    if classify:
        check(set(answer) <= {0, 1}, f"no class: {answer}: {what}")
        return "answered"
    check(bool(np.isfinite(answer).all()), f"not finite: {answer}: {what}")
    if spoil == "none":
        if np.ptp(y) == 0:
            check(bool((answer == y[0]).all()), f"{answer} instead of {y[0]}: {what}")
        scaled = InContextRegressor(model_of(0, 0), **settings).fit(X * 4, y * 8).predict(queries * 4) / 8
        tolerance = 1e-3 * (np.abs(y).max() + np.ptp(y))
        check(
            bool(np.allclose(scaled, answer, rtol=1e-3, atol=tolerance)), f"{scaled} in other units, {answer}: {what}"
        )
    return "answered"


def fuzz_text(rng: Random, scratch: Path) -> str:
    """One file of text; `"answered"` with every token in its place, or `"refused"`."""
    n_tokens = rng.choice((2, 5, 16))
    text = "".join(rng.choice(TEXTS) for _ in range(rng.randrange(200)))
    path = scratch / rng.choice(("corpus.txt", "a[1].txt", "no suffix", "b*.txt", "corpus.md"))
    path.write_text(text, encoding="utf-8", newline="")
    try:
        file = TextFile(path, "text")
        blocks = list(TextStream(file, build_tokenizer("bytes", file), n_tokens, 2, seed=None).blocks())
    except REFUSALS as error:
        check(len(text.encode()) < n_tokens, f"a right text was refused: {error}: {text!r}")
        check_message(str(error), [str(path)])
        return "refused"
    except Exception as error:
        raise Fault(f"{type(error).__name__}: {error}; {text!r}") from error
    tokens = [token for block in blocks for token in block]
    expected = [byte + 3 for byte in text.encode()]
    kept = len(expected) // n_tokens * n_tokens
    check(tokens == expected[:kept], f"other tokens than those of {text!r}")
    return "answered"
