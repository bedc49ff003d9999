"""Tasks of tables: what their prompts show, and classical classifiers beside scikit-learn's own."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from tasks import make_task
from tasks.baselines.prefixes import predict_prefixes
from tasks.curriculum import Schedule
from tasks.streams import Stream
from tasks.tables import real_tables
from tasks.tables.classifiers import predict_logistic_regression, predict_majority_of_3_nearest
from tasks.tables.random_tables import RandomTables
from tasks.tables.real_tables import RealTables


def make_generator(seed=0):
    return torch.Generator().manual_seed(seed)


def accuracy(predictor, prompts):
    xs, ys = prompts["xs"].double(), prompts["ys"].double()
    return (predictor(xs[:, :-1], ys[:, :-1], xs[:, -1]) == ys[:, -1]).float().mean().item()


@pytest.mark.parametrize("name", ["random_tables", "real_tables"])
def test_prompts_are_arguments_of_the_model_and_depend_on_the_generator_alone(name):
    task = make_task(name, n_dims=7, n_points=9)
    prompts, again = task.sample(300, make_generator()), task.sample(300, make_generator())
    assert all(torch.equal(values, again[key]) for key, values in prompts.items())
    assert {key: (*values.shape, values.dtype) for key, values in prompts.items()} == {
        "xs": (300, 9, 7, torch.float32),
        "ys": (300, 9, torch.int64),
        "labels": (300, 9, torch.int64),
    }
    assert prompts["xs"].isfinite().all()
    assert prompts["labels"].float().mean().item() == pytest.approx(0.5, abs=0.05)
    assert not torch.equal(prompts["xs"], task.sample(300, make_generator(1))["xs"])
    few = task.sample(50, make_generator(), n_points=4, n_columns=2)
    assert few["xs"].shape == (50, 4, 7)
    assert not few["xs"][..., 2:].any()
    stream = Stream(task, 8, {"n_points": Schedule(3, 9), "n_columns": Schedule(1, 7)}, seed=0)
    assert stream.batch(2)["xs"].shape == (8, 5, 7)


def test_random_tables_can_mostly_be_told_apart_and_their_columns_are_correlated():
    prompts = RandomTables(n_dims=5).sample(400, make_generator())
    width = (prompts["xs"] != 0).any(dim=1).sum(dim=1)
    assert width.bincount(minlength=6)[1:].min() > 50  # 1 to 5 columns, each about as often
    assert prompts["xs"][width == 5].std().item() == pytest.approx(1, abs=0.1)
    assert 0.75 < accuracy(predict_logistic_regression, prompts) < 0.95
    of_class = [x[y == 0][:, :2] for x, y in zip(prompts["xs"][width == 5], prompts["ys"][width == 5], strict=True)]
    assert np.mean([abs(np.corrcoef(xs.T)[0, 1]) for xs in of_class]) > 0.25  # 0.18 by chance alone
    # columns are standardised over the classes that are not shown too: both of a prompt are often on one side of zero
    first = zip(prompts["xs"][..., 0], prompts["ys"], strict=True)
    centres = torch.tensor([[xs[ys == label].mean() for label in (0, 1)] for xs, ys in first])
    assert (centres.prod(dim=1) > 0).float().mean() > 0.25  # 0.13 over those that are shown


def test_a_prompt_shows_standardised_rows_of_two_classes_of_one_table():
    table = real_tables.load_tables("scikit-learn")["wine"]
    torch.testing.assert_close(table.columns.mean(dim=0), torch.zeros(13), atol=1e-5, rtol=0)
    torch.testing.assert_close(table.columns.std(dim=0, correction=0), torch.ones(13))
    prompts = RealTables(only="wine", n_points=30).sample(20, make_generator())
    assert not prompts["xs"][..., 13:].any()  # wine has 13 columns
    for xs, ys in zip(prompts["xs"][..., :13], prompts["ys"], strict=True):
        # rows are known by their values, whatever the order and the signs of the columns
        mode = {"compute_mode": "donot_use_mm_for_euclid_dist"}
        known = torch.cdist(xs.abs().sort().values, table.columns.abs().sort().values, **mode)
        assert known.min(dim=1).values.max() < 1e-5
        rows = known.argmin(dim=1)
        assert len(rows.unique()) == 30
        classes = [next(c for c, rows_ in enumerate(table.rows_of_class) if row in rows_) for row in rows]
        assert len(set(classes)) == len(set(zip(classes, ys.tolist(), strict=True))) == 2
    assert (prompts["xs"][0, :, :13] - prompts["xs"][1, :, :13]).any()


def test_a_row_comes_again_once_its_class_has_no_other(monkeypatch):
    rows, classes = np.random.default_rng(0).normal(size=(6, 2)), np.array(list("aabbbb"))
    monkeypatch.setattr(real_tables, "load_tables", lambda source: {"tiny": real_tables.standardise(rows, classes)})
    prompts = RealTables(n_points=20).sample(5, make_generator())
    for xs, ys in zip(prompts["xs"], prompts["ys"], strict=True):
        assert sorted(len(xs[ys == label].unique(dim=0)) for label in (0, 1)) == [2, 4]


def test_tables_are_all_or_one_or_all_but_one():
    names = list(real_tables.load_tables("scikit-learn"))
    assert names == ["iris", "wine", "breast_cancer", "digits", "diabetes"] == list(RealTables().tables)
    assert list(RealTables(only="iris").tables) == ["iris"]
    assert list(RealTables(left_out="iris").tables) == names[1:]
    easy = RealTables(only="iris").sample(100, make_generator())
    assert accuracy(predict_logistic_regression, easy) > 0.9


def test_more_classes_can_be_shown():
    for task in (RandomTables(n_labels=3), RealTables(n_labels=3, only="digits")):
        prompts = task.sample(40, make_generator())
        assert prompts["labels"].unique().tolist() == [0, 1, 2]
        assert accuracy(predict_logistic_regression, prompts) > 0.6
        assert task.model_fields["num_labels"] == 3


@pytest.mark.parametrize(
    ("predictor", "reference"),
    [
        (predict_logistic_regression, LogisticRegression()),
        (predict_majority_of_3_nearest, KNeighborsClassifier(3)),
    ],
)
def test_classifiers_answer_as_those_of_scikit_learn_and_know_single_classes(predictor, reference):
    prompts = RealTables(n_points=12, n_dims=5).sample(20, make_generator())
    xs, ys = prompts["xs"].double(), prompts["ys"].clone()
    ys[0], ys[1] = 1, 0
    answers = predictor(xs[:, :-1], ys[:, :-1].double(), xs[:, -1])
    assert answers[:2].tolist() == [1, 0]
    for x, y, answer in zip(xs[2:].numpy(), ys[2:].numpy(), answers[2:], strict=True):
        assert reference.fit(x[:-1], y[:-1]).predict(x[-1:])[0] == answer
    everywhere = predict_prefixes(predictor, xs, ys)
    assert everywhere.shape == (20, 12)
    assert everywhere[:, 1].tolist() == ys[:, 0].tolist()  # one example: its class


def test_the_score_is_1_where_the_class_is_wrong():
    task = RandomTables(n_points=5)
    prompts = task.sample(3, make_generator())
    answers = prompts["labels"].numpy().copy()
    answers[1, 2] ^= 1
    scores = task.score(answers, prompts)
    assert scores.dtype == np.float64
    assert scores.tolist() == [[0] * 5, [0, 0, 1, 0, 0], [0] * 5]
    assert list(task.baselines) == ["logistic regression", "3-nearest neighbours"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_labels": 1}, "`n_labels` must be >= 2, got 1"),
        ({"n_dims": 0}, "`n_dims` must be an integer >= 1, got 0"),
        ({"source": "kaggle"}, "`source` must be one of scikit-learn, openml, got 'kaggle'"),
        ({"only": "irs"}, "`only` must be one of iris, wine, breast_cancer, digits, diabetes, got 'irs'"),
        ({"left_out": "irs"}, "`left_out` must be one of iris"),
        ({"only": "iris", "left_out": "iris"}, "must leave tables of at least `n_labels` = 2 classes, got none"),
        ({"n_labels": 3}, "must leave tables of at least `n_labels` = 3 classes, got breast_cancer, diabetes"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        RealTables(**settings)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_prompts": 0}, "`n_prompts` must be an integer >= 1, got 0"),
        ({"n_points": 0}, "`n_points` must be an integer >= 1, got 0"),
        ({"n_columns": 21}, "`n_columns` must be <= `n_dims` = 20, got 21"),
        ({"with_hints": True}, "random_tables has no hints"),
    ],
)
def test_bad_sizes_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        RandomTables().sample(**{"n_prompts": 2, "generator": make_generator()} | arguments)


def test_tables_that_cannot_be_fetched_are_told_in_one_line(monkeypatch):
    def no_network():
        raise OSError("no route to host")

    monkeypatch.setitem(real_tables.SOURCES, "openml", no_network)
    real_tables.load_tables.cache_clear()
    with pytest.raises(ValueError, match=r"the tables of openml \(`source`\) cannot be loaded: no route to host"):
        RealTables(source="openml")
