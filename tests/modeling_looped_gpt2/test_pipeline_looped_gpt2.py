from decimal import Decimal
from fractions import Fraction

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch

from modeling_looped_gpt2.pipeline_looped_gpt2 import InContextRegressionPipeline


@pytest.fixture
def regress(make_model):
    return InContextRegressionPipeline(make_model(), device="cpu")


XS, YS = [[0.5, -1.0, 2.0], [1.5, 0.3, -0.2]], [2.0, 0.7]
QUERIES = [[1.0, 1.0, 0.0], [-0.4, 0.1, 0.6], [0.0, 0.0, 0.0]]
REQUEST = {"examples": [list(pair) for pair in zip(XS, YS, strict=True)], "queries": QUERIES}


def predict_singly(model, request, **options):
    """The naive way: one prompt a query."""
    xs = torch.tensor([x for x, _ in request["examples"]])
    ys = torch.tensor([[y for _, y in request["examples"]]])
    answers = [
        model(torch.cat((xs, torch.tensor([query])))[None], ys, **options) for query in map(list, request["queries"])
    ]
    return [answer.predictions[0, -1].item() for answer in answers], [answer.n_loops_used for answer in answers]


def test_every_query_is_answered_as_a_prompt_of_its_own(regress):
    for n_loops in (None, 1, 7):
        answer = regress(REQUEST, n_loops=n_loops)
        assert answer["predictions"] == pytest.approx(
            predict_singly(regress.model, REQUEST, n_loops=n_loops)[0], abs=1e-5
        )
        assert answer["n_loops_used"] == [n_loops or 4] * 3


def test_with_an_exit_tolerance_every_query_tells_its_loops(regress):
    answer = regress(REQUEST, n_loops=50, exit_tolerance=0.05)
    predictions, loops = predict_singly(regress.model, REQUEST, n_loops=50, exit_tolerance=0.05)
    assert answer["predictions"] == pytest.approx(predictions, abs=1e-5)
    assert answer["n_loops_used"] == torch.cat(loops).tolist()
    assert max(answer["n_loops_used"]) < 50


TABLE = np.column_stack((XS, YS))
FRAMES = {
    "examples": pd.DataFrame(TABLE, columns=["a", "b", "c", "y"]),
    "queries": pd.DataFrame(QUERIES, columns=["a", "b", "c"]),
}
FORMS = {
    "arrays": {"examples": TABLE, "queries": np.array(QUERIES)},
    "arrays of another byte order": {"examples": TABLE.astype(">f8"), "queries": np.array(QUERIES, dtype=">f4")},
    "arrays of objects": {"examples": TABLE.astype(object), "queries": np.array(QUERIES, dtype=object)},
    "wide floats": {"examples": TABLE.astype(np.longdouble), "queries": np.array(QUERIES, dtype=np.longdouble)},
    "masked arrays without a masked value": {"examples": np.ma.array(TABLE), "queries": np.ma.array(QUERIES)},
    "rows": {"examples": TABLE.tolist(), "queries": [np.array(query) for query in QUERIES]},
    "integers and tuples": {"examples": tuple(zip(XS, YS, strict=True)), "queries": tuple(map(tuple, QUERIES))},
    "tensors": {"examples": torch.tensor(TABLE), "queries": torch.tensor(QUERIES, requires_grad=True)},
    "pairs of arrays": {"examples": list(zip(np.array(XS), np.array(YS), strict=True)), "queries": np.array(QUERIES)},
    "decimals": {
        "examples": [[[Decimal(str(value)) for value in x], Fraction(y)] for x, y in zip(XS, YS, strict=True)],
        "queries": [[Decimal(str(value)) for value in query] for query in QUERIES],
    },
    "data frames": FRAMES,
    **{
        name: {key: frame.astype(name) for key, frame in FRAMES.items()}
        for name in ("Float64", "float64[pyarrow]", "object", "category")
    },
    "decimals of pyarrow": {
        key: frame.map(lambda value: Decimal(str(value))).astype(pd.ArrowDtype(pa.decimal128(5, 2)))
        for key, frame in FRAMES.items()
    },
    "tables of pyarrow": {key: pa.Table.from_pandas(frame) for key, frame in FRAMES.items()},
    "datasets": {key: datasets.Dataset.from_pandas(frame) for key, frame in FRAMES.items()},
    "selected rows of datasets": {
        key: datasets.Dataset.from_pandas(pd.concat((frame, frame), ignore_index=True))
        .select(range(len(frame)))
        .with_format("torch")
        for key, frame in FRAMES.items()
    },
}


@pytest.mark.parametrize("form", FORMS)
def test_all_containers_mean_the_same(form, regress):
    assert regress(FORMS[form]) == regress(REQUEST)


def test_whole_numbers_and_truth_values_are_numbers_in_every_column(regress):
    rows = [[3, 1, 0, 5], [-2, 0, 1, 7]]
    names = ["a", "b", "c", "y"]
    expected = regress({"examples": rows, "queries": [row[:3] for row in rows]})
    for types in (
        {"a": "int8", "b": "bool", "c": "uint64"},
        {"a": "Int64", "b": "boolean", "c": "UInt8", "y": "Float32"},
        {"a": "int16[pyarrow]", "b": "bool[pyarrow]", "c": "category", "y": "float16"},
        {"a": "object", "b": "Sparse[int]", "c": "object", "y": "Int32"},
    ):
        frame = pd.DataFrame(rows, columns=names).astype(types)
        assert regress({"examples": frame, "queries": frame[names[:3]]}) == expected
    array = np.array(rows)
    assert regress({"examples": array, "queries": [tuple(row) for row in array[:, :3]]}) == expected
    truth = [[[True, False, True], True]]
    assert regress({"examples": truth, "queries": [truth[0][0]]}) == regress(
        {"examples": [[[1, 0, 1], 1]], "queries": [[1, 0, 1]]}
    )


def test_one_feature_may_be_a_plain_number_and_missing_features_are_zeros(regress):
    plain = regress({"examples": [[0.5, 2.0], [1, 0.7]], "queries": [1.0, -0.4]})
    rows = regress({"examples": [[[0.5], 2.0], [[1], 0.7]], "queries": [[1.0], [-0.4]]})
    padded = regress({"examples": [[[0.5, 0, 0], 2.0], [[1, 0, 0], 0.7]], "queries": [[1.0, 0, 0], [-0.4, 0, 0]]})
    assert plain == rows == padded
    for queries in (np.array([1.0, -0.4]), pd.Series([1.0, -0.4]), pa.array([1.0, -0.4]), torch.tensor([1.0, -0.4])):
        assert regress({"examples": [[0.5, 2.0], [1, 0.7]], "queries": queries}) == plain


def test_batches_change_nothing(regress):
    requests = [
        REQUEST,
        {"examples": REQUEST["examples"], "queries": QUERIES[:1]},
        {"examples": REQUEST["examples"][:1], "queries": QUERIES[1:]},
        REQUEST,
    ]
    singly = [regress(request) for request in requests]
    for batch_size in (1, 2, 8):
        for answers in (
            regress(requests, batch_size=batch_size),
            list(regress((request for request in requests), batch_size=batch_size)),
            regress(requests, batch_size=batch_size, exit_tolerance=1e-9),
        ):
            for answer, expected in zip(answers, singly, strict=True):
                assert answer["predictions"] == pytest.approx(expected["predictions"], abs=1e-5)
                assert answer["n_loops_used"] == expected["n_loops_used"]
    assert regress([]) == regress(()) == []


def test_requests_may_come_from_a_dataset_or_a_tuple(regress):
    requests = [{"examples": TABLE.tolist(), "queries": QUERIES[:n]} for n in (1, 3, 2)]
    expected = regress(requests)
    assert regress(tuple(requests)) == expected
    dataset = datasets.Dataset.from_list(requests)
    for inputs in (dataset, dataset.to_iterable_dataset(), dataset.with_format("numpy"), dataset.with_format("torch")):
        for batch_size in (1, 2):
            answers = list(regress(inputs, batch_size=batch_size))
            for answer, known in zip(answers, expected, strict=True):
                assert answer["predictions"] == pytest.approx(known["predictions"], abs=1e-5)


NAN = float("nan")
BAD_REQUESTS = {
    "no dict": (3, 'must be a dict of "examples" and "queries", got int'),
    "no queries": ({"examples": [[1, 2]]}, r"got \['examples'\]"),
    "another key": (REQUEST | {"loops": 3}, "got .*'loops'"),
    "no examples": ({"examples": [], "queries": QUERIES}, "`examples` must not be empty"),
    "an empty array": ({"examples": np.zeros((0, 4)), "queries": QUERIES}, "`examples` must not be empty"),
    "no query": (REQUEST | {"queries": []}, "`queries` must not be empty"),
    "text": ({"examples": [["a", 1]], "queries": [1]}, "`examples` must be real numbers"),
    "complex numbers": ({"examples": np.ones((2, 3)) * 1j, "queries": [[1, 1]]}, "must be real numbers"),
    "text as y": ({"examples": [[1, "a"]], "queries": [1]}, "`examples` must be real numbers"),
    "text as examples": ({"examples": "abc", "queries": [1]}, "`examples` must be real numbers"),
    "text in a frame": (
        {"examples": pd.DataFrame({"x": ["abc"], "y": [1]}), "queries": [1]},
        "column 'x' of `examples` must be real numbers.*, got\\s.*abc",
    ),
    "None": (REQUEST | {"queries": None}, "`queries` must be real numbers"),
    "NaN in x": ({"examples": [[[NAN, 1], 1]], "queries": [[1, 1]]}, "`examples` must be finite"),
    "NaN in y": ({"examples": [[[1, 1], NAN]], "queries": [[1, 1]]}, "`examples` must be finite"),
    "infinity": (REQUEST | {"queries": [[1, 2, float("inf")]]}, "`queries` must be finite"),
    "too large for float32": (REQUEST | {"queries": [[1e39, 0, 0]]}, "`queries` must be finite"),
    "some pairs": ({"examples": [[[1, 2], 3], [1, 2, 3]], "queries": [[1, 2]]}, "`examples` must be real numbers"),
    "numbers alone": ({"examples": [1, 2, 3], "queries": [1]}, r"must be pairs \[x, y\], or a table"),
    "None among numbers": (REQUEST | {"queries": [[1, 2, None]]}, "`queries` must be real numbers.*None"),
    "text of digits": (REQUEST | {"queries": [["1", "2", "3"]]}, "`queries` must be real numbers"),
    "dates": (REQUEST | {"queries": np.ones((1, 3), dtype="M8[D]")}, "`queries` must be real numbers"),
    "durations": (REQUEST | {"queries": np.ones((1, 3), dtype="m8[s]")}, "`queries` must be real numbers"),
    "complex tensors": (REQUEST | {"queries": torch.ones(1, 3) * 1j}, "`queries` must be real numbers"),
    "masked values": (
        REQUEST | {"queries": np.ma.array(QUERIES, mask=np.eye(3))},
        "`queries` must be finite, got NaN",
    ),
    "too large for any float": (REQUEST | {"queries": [[10**400, 0, 0]]}, "`queries` must be real numbers"),
    "wide floats": (REQUEST | {"queries": np.full((1, 3), np.longdouble("1e400"))}, "`queries` must be finite"),
    "an empty frame": (REQUEST | {"examples": FRAMES["examples"][:0]}, "`examples` must not be empty"),
    **{
        f"a missing value, {dtype}": (
            {"examples": FRAMES["examples"].astype({"b": dtype}).mask(FRAMES["examples"] == 0.3), "queries": QUERIES},
            "column 'b' of `examples` must be finite, got NaN or a missing value: drop or impute",
        )
        for dtype in ("float64", "Float64", "float64[pyarrow]", "object")
    },
    "a missing value in a dataset": (
        FORMS["arrays"] | {"examples": datasets.Dataset.from_dict({"a": [1, None], "y": [1.0, 2.0]})},
        "column 'a' of `examples` must be finite",
    ),
    "a column of dates": (
        REQUEST | {"queries": FRAMES["queries"].assign(c=pd.Timestamp(0))},
        "column 'c' of `queries` must be real numbers",
    ),
    "a column of categories": (
        REQUEST | {"queries": FRAMES["queries"].assign(c=pd.Categorical(list("xyz")))},
        "column 'c' of `queries` must be real numbers",
    ),
    "lists in a dataset": (
        {"examples": datasets.Dataset.from_dict({"x": [[1.0], [2.0]], "y": [1.0, 2.0]}), "queries": [1]},
        "column 'x' of `examples` must be",
    ),
    "a dictionary of datasets": (datasets.DatasetDict(train=FORMS["datasets"]["examples"]), r"got \['train'\]"),
    "a y of two values": ({"examples": [[[1], [2, 3]]], "queries": [1]}, "`examples` must be rows of numbers"),
    "one column": ({"examples": np.ones((2, 1)), "queries": [1]}, "at least one feature beside its last column of y"),
    "ragged examples": ({"examples": [[[1], 2], [[1, 2], 3]], "queries": [1]}, "one number of features"),
    "ragged queries": (REQUEST | {"queries": [[1, 2, 3], [1]]}, r"`queries` must have one number of features"),
    "a cube": (REQUEST | {"queries": np.ones((2, 2, 2))}, r"`queries` must be rows of numbers.*\(2, 2, 2\)"),
    "unequal features": (
        REQUEST | {"queries": [[1, 2]]},
        "`queries` must have the features of `examples`, 3 of them, got 2",
    ),
    "too many features": (
        {"examples": np.ones((2, 6)), "queries": np.ones((1, 5))},
        "`examples` must have at most `n_dims` = 3 features, got 5",
    ),
    "too many examples": ({"examples": np.ones((7, 3)), "queries": [[1, 1]]}, "`examples` must be at most 6 for"),
    "other columns": (
        {"examples": FORMS["data frames"]["examples"], "queries": pd.DataFrame(QUERIES, columns=["b", "a", "c"])},
        r"`queries` must have the columns \['a', 'b', 'c'\]",
    ),
}


@pytest.mark.parametrize("name", BAD_REQUESTS)
def test_a_bad_request_is_refused_by_name(name, regress):
    request, message = BAD_REQUESTS[name]
    for asked in (request, [REQUEST, request]):
        with pytest.raises(ValueError, match=message):
            regress(asked)


def test_answers_that_are_not_finite_are_refused(regress):
    for request in (REQUEST | {"queries": [[1e38, 1e38, 1e38]]}, {"examples": [[1e30, 1e38]], "queries": [1.0]}):
        torch.nn.init.constant_(regress.model.read_in.weight, 100.0)
        with pytest.raises(ValueError, match="finite"):
            regress(request)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"n_loops": 0}, ValueError, "`n_loops` must be an integer >= 1, got 0"),
        ({"n_loops": "2"}, ValueError, "`n_loops`"),
        ({"exit_tolerance": 0}, ValueError, "`exit_tolerance` must be a finite number > 0"),
        ({"n_loop": 3}, TypeError, "`n_loop` is not an argument of the pipeline: it takes `n_loops`"),
        ({"batch_size": 0}, ValueError, "`batch_size` must be an integer >= 1, got 0"),
        ({"batch_size": "2"}, ValueError, "`batch_size` must be an integer >= 1, got '2'"),
        ({"loops": 3}, TypeError, "loops"),
    ],
)
def test_a_bad_option_is_refused(options, error, message, regress):
    with pytest.raises(error, match=message):
        regress([REQUEST], **options)


def test_a_model_of_vectors_is_refused(make_model):
    with pytest.raises(ValueError, match="`model` must predict a single number, got one of `n_outputs` = 2"):
        InContextRegressionPipeline(make_model(n_outputs=2), device="cpu")
