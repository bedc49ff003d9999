import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from transformers import pipeline

from modeling_looped_gpt2 import LoopedGPT2ForInContextClassification, LoopedGPT2LMHeadModel
from modeling_looped_gpt2.estimator_looped_gpt2 import InContextClassifier, InContextRegressor
from modeling_looped_gpt2.table_pipeline_looped_gpt2 import InContextTablePipeline


SIZES = {"example_order": "set", "position_embedding": "none", "n_dims": 6, "n_positions": 40}
ROWS = [[31, "a", True], [47, "b", False], [None, "b", True], [62, "a", None], [55, None, False], [38, "b", True]]
LABELS = ["no", "yes", "no", "yes", "yes", "no"]
PRICES = [3, 4.5, 4, 6, 8, 2]
QUERIES = [[50, "a", True], [33, "c", None]]


def request(ys=LABELS):
    return {"examples": [[*row, y] for row, y in zip(ROWS, ys, strict=True)], "queries": QUERIES}


@pytest.fixture
def classify(make_config):
    return InContextTablePipeline(LoopedGPT2ForInContextClassification(make_config(**SIZES, num_labels=4)).eval())


@pytest.fixture
def regress(make_model):
    return InContextTablePipeline(make_model(**SIZES, n_quantiles=10))


def test_rows_of_any_kind_are_answered_as_by_the_estimators(classify, regress):
    known, asked = pd.DataFrame(ROWS, columns=[*"abc"]), pd.DataFrame(QUERIES, columns=[*"abc"])
    answer = classify(request(), n_loops=3)
    naive = InContextClassifier(classify.model, n_loops=3).fit(known, LABELS)
    assert answer["predictions"] == naive.predict(asked).tolist()
    assert answer["n_loops_used"] == 3
    shares = [[row["no"], row["yes"]] for row in answer["probabilities"]]
    np.testing.assert_allclose(shares, naive.predict_proba(asked), atol=1e-6)
    answer = regress(request(PRICES))
    naive = InContextRegressor(regress.model).fit(known, PRICES)
    np.testing.assert_allclose(answer["predictions"], naive.predict(asked), rtol=1e-5)
    np.testing.assert_allclose(answer["intervals"], naive.predict_quantiles(asked, [0.05, 0.95]), rtol=1e-5)
    assert answer["n_loops_used"] == 4


@pytest.mark.parametrize("labels", [LABELS, [1, 2, 1, 2, 2, 1], [True, False, True, False, False, True]])
def test_labels_come_back_as_they_were(classify, labels):
    answer = classify(request(labels))
    assert set(answer["predictions"]) <= set(labels)
    assert [set(row) for row in answer["probabilities"]] == [set(labels)] * 2
    assert json.loads(json.dumps(answer["predictions"])) == answer["predictions"]


def test_all_containers_mean_the_same(classify):
    expected = classify(request())
    names = ["age", "ward", "smokes", "returned"]
    frame, asked = pd.DataFrame(request()["examples"], columns=names), pd.DataFrame(QUERIES, columns=names[:-1])
    for examples, queries in (
        (frame, asked),
        (frame, QUERIES),
        (pa.Table.from_pandas(frame), pa.Table.from_pandas(asked)),
        (frame.to_numpy(), asked.to_numpy()),
        (tuple(map(tuple, request()["examples"])), QUERIES),
    ):
        answer = classify({"examples": examples, "queries": queries})
        assert answer["predictions"] == expected["predictions"]
        for row, other in zip(answer["probabilities"], expected["probabilities"], strict=True):
            assert row == pytest.approx(other, abs=1e-5)


def test_many_tables_are_answered_one_after_another(classify):
    other = {"examples": [[1.5, "x"], [2.5, "y"], [2.0, "y"]], "queries": [[1.0]]}
    expected = [classify(request()), classify(other)]
    assert classify([request(), other]) == expected
    assert list(classify(each for each in (request(), other))) == expected
    assert classify([]) == []


def test_a_single_class_takes_no_loop(classify):
    answer = classify(request(["no"] * 6))
    assert answer["predictions"] == ["no", "no"]
    assert answer["n_loops_used"] == 0


def test_an_easy_table_may_take_fewer_loops(classify):
    assert classify(request(), n_loops=9, exit_tolerance=1e3)["n_loops_used"] == 1


BAD = {
    "no dict": (3, "must be a dict of .* got int"),
    "no queries": ({"examples": ROWS}, r"must be a dict of .* got \['examples'\]"),
    "a number": (request() | {"queries": 3}, "`queries` must be a table, .*, got 3"),
    "numbers": (request() | {"queries": [3, 4]}, "`queries` must be a table"),
    "text": (request() | {"examples": "abc"}, "`examples` must be a table"),
    "mappings": (request() | {"queries": [{"a": 1}]}, "`queries` must be a table"),
    "nothing": (request() | {"examples": []}, "`examples` must be a table"),
    "a single number": (request() | {"queries": np.array(3.0)}, "`queries` must be a table"),
    "uneven rows": (request() | {"examples": [[1, 2], [1]]}, "rows of one length"),
    "another width": (
        request() | {"queries": [[1, 2]]},
        "must have the columns of `examples` but the last, .* 2 beside 4",
    ),
    "one column": ({"examples": [["a"], ["b"]], "queries": [[]]}, "at least one, got 0 beside 1"),
    "a missing label": (request([None, *LABELS[1:]]), "y contains NaN or other missing values, 1 of them"),
    "other names": (
        {"examples": pd.DataFrame({"a": [1, 2], "y": ["n", "m"]}), "queries": pd.DataFrame({"b": [1]})},
        r"`queries` must have the columns \['a'\] of the examples, got \['b'\]",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_request_is_refused(classify, name):
    given, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        classify(given)


def test_text_is_refused_by_a_model_of_numbers_and_other_options_and_models(regress, make_config):
    with pytest.raises(ValueError, match="y must be numbers"):
        regress(request())
    with pytest.raises(TypeError, match="`n_loop` is not an argument of the pipeline"):
        regress(request(PRICES), n_loop=3)
    with pytest.raises(ValueError, match="`n_loops` must be"):
        regress(request(PRICES), n_loops=0)
    with pytest.raises(ValueError, match="got a LoopedGPT2LMHeadModel"):
        InContextTablePipeline(LoopedGPT2LMHeadModel(make_config(vocab_size=5)))


def test_it_is_found_by_name_and_saved_with_its_code(classify, tmp_path, run_isolated):
    expected = classify(request())
    assert type(pipeline("in-context-table", model=classify.model)) is InContextTablePipeline
    classify.save_pretrained(tmp_path / "saved")
    assert (tmp_path / "saved" / "estimator_columns_looped_gpt2.py").is_file()
    printed = run_isolated(f"""
import json
from transformers import pipeline
ask = pipeline("in-context-table", model={str(tmp_path / "saved")!r}, trust_remote_code=True)
print(json.dumps(ask({request()!r})))
""")
    answer = json.loads(printed.splitlines()[-1])
    assert answer["predictions"] == expected["predictions"]
    assert answer["probabilities"][0] == pytest.approx(expected["probabilities"][0], abs=1e-5)
