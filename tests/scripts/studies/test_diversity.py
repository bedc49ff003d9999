import re
from pathlib import Path

import pytest
import torch

from scripts.studies import diversity
from scripts.studies.diversity import (
    COLOURS,
    FUNCTIONS,
    HEADINGS,
    PLACES,
    DiversityGrid,
    fresh_prompts,
    measure_diversity,
    predict,
    training_functions,
    write_diversity,
)
from tasks.baselines.classical import predict_ridge


@pytest.fixture(scope="module")
def grid():
    return DiversityGrid(Path("out"), full=False, max_steps=100, more=["--n_embd", "8", "--n_head", "2"])


def test_cells_differ_in_the_functions_that_they_show(grid):
    fields = {functions: grid.run(f"{functions}/1").arguments.as_dict() for functions in FUNCTIONS}
    base = fields.pop(1)
    assert (base["n_distinct_functions"], base["seed"], base["n_embd"], base["max_steps"]) == (1, 1, 8, 100)
    for functions, others in fields.items():
        changed = {name for name, value in others.items() if value != base[name]}
        assert changed == {"n_distinct_functions", "output_dir"}
        assert others["n_distinct_functions"] == functions
    assert DiversityGrid(Path("out"), True, None, []).run("4/0").arguments.optimization.max_steps == 20_000


def test_prompts_are_of_the_training_functions_or_of_new_ones_and_of_no_step(grid):
    stream = grid.run("4/0").arguments.stream
    functions = training_functions(stream)
    assert functions.shape == (4, 8)
    for n_distinct, is_known in ((4, True), (None, False)):
        prompts = fresh_prompts(stream, n_distinct)
        assert prompts["xs"].shape == (diversity.N_PROMPTS, 17, 8)
        weights = torch.linalg.lstsq(prompts["xs"].double(), prompts["labels"].double().unsqueeze(2)).solution
        nearest = torch.cdist(weights.squeeze(2), functions.double()).min(dim=1).values
        assert ((nearest < 1e-4) == is_known).all()
        assert not torch.isin(prompts["xs"], stream.batch(0)["xs"]).all()


def test_predictions_are_of_every_prefix_and_of_none(grid):
    prompts = fresh_prompts(grid.run("4/0").arguments.stream, None)
    predictions = predict(predict_ridge, prompts)
    assert not predictions[:, 0].any()
    xs, ys = prompts["xs"].double(), prompts["ys"].double()
    expected = predict_ridge(xs[:, :5], ys[:, :5], xs[:, 5])
    torch.testing.assert_close(torch.from_numpy(predictions[:, 5]), expected)


def test_a_cell_is_measured_beside_both_predictors_and_written(tmp_path, monkeypatch):
    monkeypatch.setattr(diversity, "N_PROMPTS", 200)
    run = DiversityGrid(tmp_path, False, 2, ["--n_embd", "8", "--n_head", "2"]).run("4/0")
    model = run.arguments.objective.model_class(run.arguments.config)
    model.save_pretrained(run.folder)
    figures = measure_diversity(run, torch.device("cpu"))
    assert figures["n_steps"] == 2
    for place in PLACES:
        assert figures["error"][place].keys() == COLOURS.keys()
    known, new = (figures["error"][place] for place in PLACES)
    assert known["discrete posterior"] < known["ridge"] < known["model"]  # it has learned nothing
    assert new["ridge"] < new["discrete posterior"]
    prompts = fresh_prompts(run.arguments.stream, None)
    answers = run.answers(model.eval(), prompts)
    ridge = predict(run.task.limit.predictor, prompts)
    assert figures["distance"]["ridge"] == pytest.approx(((answers - ridge) ** 2).mean() / 8, rel=1e-4)
    write_diversity({"4/0": figures, "4/2": figures, "64/0": figures}, tmp_path)
    heading, _, first, second = (tmp_path / "study.md").read_text().splitlines()
    assert {line.count("|") for line in (heading, first, second)} == {len(HEADINGS) + 1}
    assert first.startswith("| 4 |")
    assert " | 2 of 3 | 2 | " in first
    assert " | 1 of 3 | 2 | " in second
    drawn = re.findall("<!-- (.*) -->", (tmp_path / "study.svg").read_text())
    assert {*COLOURS, *PLACES} <= set(drawn)


def test_where_nothing_is_finished_the_table_is_empty(tmp_path):
    write_diversity({}, tmp_path)
    assert len((tmp_path / "study.md").read_text().splitlines()) == 2
