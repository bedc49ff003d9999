"""Every model that is trained on prompts has a card and a release of its own, whatever its head."""

import copy
import json
import re

import pytest
import torch
import yaml

from scripts.release.card import HUB_TASKS, TEMPLATES, render_card
from scripts.release.folder import load_checked, stage_release, write_release
from scripts.training.objectives import OBJECTIVES
from tasks import TASKS, make_task


REPO = "ana/looped"
# the sizes of a head, what its card says of its prompts, and code that makes one
HEADS = {
    "classification": (
        {"n_dims": 3, "num_labels": 4},
        "up to 4 examples (x, y), x of 3 dimensions and y one of 4 classes, and tells the class of a query x.",
        "xs, ys = torch.ones(2, 5, 3), torch.ones(2, 5, dtype=torch.long)",
    ),
    "answer_slots": (
        {"vocab_size": 12},
        "up to 10 tokens of 12 kinds, and answers with a token at the very positions that ask.",
        "input_ids = torch.arange(10).view(2, 5)",
    ),
}
by_head = pytest.mark.parametrize("objective", HEADS)


def test_what_is_trained_on_prompts_has_a_card():
    assert {path.stem for path in TEMPLATES.glob("objectives/*.md")} == HUB_TASKS.keys()
    assert HUB_TASKS.keys() == OBJECTIVES.keys() - {"next_token"}  # which train_lm.py trains, on texts


@by_head
def test_its_card_speaks_of_its_task(objective, evaluated_as):
    sizes, prompts, _ = HEADS[objective]
    card = render_card(evaluated_as(objective, **sizes), REPO)
    assert f"It reads {prompts}" in card
    assert re.search(r"\n# Looped GPT-2, toy problems\n\nA looped GPT-2 that .* toy problems.*: 1 block of", card)
    assert (
        "With 4 steps to take its error on fresh prompts is **0.0654** (90% interval 0.0554 to 0.165; share of wrong "
        "answers); guessing, the best of the classical predictors below, has 0.99 on the same prompts."
    ) in card
    assert "| error, mean over 0 to 4 steps to take | 0.92 | 0.401 | 0.45 |" in card
    assert "Share of wrong answers, on 40 fresh prompts (seed 7), after 2 loops." in card
    assert "| steps to take | 0 | 1 | 2 | 3 | 4 |" in card
    assert "It was trained on toy problems and on nothing else" in card
    for of_regression in ("quared", "pipeline(", "functions", "estimator", "predicting 0"):
        assert of_regression not in card
    _, metadata, _ = card.split("---\n", 2)
    metadata = yaml.safe_load(metadata)
    assert metadata["pipeline_tag"] == HUB_TASKS[objective][0]
    (result, *_) = metadata["model-index"][0]["results"]
    assert result["task"] == dict(zip(("type", "name"), HUB_TASKS[objective], strict=True))
    assert result["dataset"] == {"type": "toy_problems", "name": "toy_problems, 40 prompts"}
    name = "share of wrong answers, 4 steps to take"
    assert result["metrics"][0] == {"type": "share_of_wrong_answers", "value": 0.0654, "name": name}


def test_releases_answer_by_the_lines_of_their_cards_where_the_project_is_unknown(
    evaluated_as, tmp_path, run_isolated
):
    (tmp_path / "elsewhere").mkdir()
    code, expected = ["import torch", "collected = {}"], {}
    for objective, (sizes, _, prompt) in HEADS.items():
        folder = evaluated_as(objective, **sizes)
        stage_release(folder, f"ana/{objective}", staged := tmp_path / "elsewhere" / objective)
        (use,) = re.findall(r"```python\n(.*?)```", (staged / "README.md").read_text(), flags=re.DOTALL)
        answer = use.strip().splitlines()[-1].split(" = ")[0]
        code += [prompt, use, f"collected[{objective!r}] = {answer}"]
        exec(prompt, {"torch": torch}, prompts := {})
        expected[objective] = OBJECTIVES[objective]().answers(load_checked(folder), prompts)
        config = json.loads((staged / "config.json").read_text())
        assert {"AutoConfig", OBJECTIVES[objective].auto_class} <= set(config["auto_map"])
        assert "custom_pipelines" not in config
    run_isolated("\n".join([*code, f"torch.save(collected, {str(tmp_path / 'answers.pt')!r})"]))
    answers = torch.load(tmp_path / "answers.pt")
    assert all(torch.equal(answers[objective], expected[objective]) for objective in HEADS)


@by_head
def test_its_release_takes_the_place_of_an_earlier_one(objective, evaluated_as, tmp_path):
    folder = evaluated_as(objective, **HEADS[objective][0])
    for _ in range(2):
        write_release(folder, REPO, tmp_path / "release")
    write_release(folder, REPO, folder)
    assert (folder / "README.md").read_text() == (tmp_path / "release" / "README.md").read_text()


@by_head
def test_a_model_of_another_head_than_its_task_needs_is_refused(objective, evaluated_as, monkeypatch):
    sizes, _, _ = HEADS[objective]
    folder = evaluated_as(objective, **sizes)
    monkeypatch.setattr(TASKS["toy_problems"], "objective", "regression")
    with pytest.raises(ValueError, match="must hold a LoopedGPT2ForInContextRegression"):
        load_checked(folder)


@pytest.mark.parametrize("objective", ["regression", "classification"])
def test_the_card_of_a_model_of_sets_tells_examples_from_queries(objective, evaluated_as):
    card = render_card(evaluated_as(objective, n_dims=3, example_order="set"), REPO)
    assert "It reads up to 9 examples (x, y)" in card
    assert "`(batch, n_examples)`; the first points, as many as there are ys, are examples, in any order" in card
    assert "before i only" not in card


def test_a_model_of_vectors_has_a_card_without_the_pipeline_of_numbers(evaluated_as, tmp_path):
    folder = evaluated_as("regression", n_dims=3, n_outputs=2)
    stage_release(folder, REPO, staged := tmp_path / "staged")
    card = (staged / "README.md").read_text()
    assert "`ys` `(batch, n_points, 2)` or one point shorter" in card
    assert "pipeline(" not in card
    assert "custom_pipelines" not in json.loads((staged / "config.json").read_text())


def test_an_objective_without_a_card_says_what_to_write(evaluated_as, monkeypatch):
    folder = evaluated_as("regression", n_dims=3)
    monkeypatch.setitem(OBJECTIVES, "median", OBJECTIVES["regression"])
    monkeypatch.setattr(TASKS["toy_problems"], "objective", "median")
    with pytest.raises(ValueError, match=r"the objective median has no card: write model_cards/objectives/median.md"):
        render_card(folder, REPO)


def test_a_class_that_is_not_of_this_project_is_called_by_its_name(evaluated, change):
    change("metrics.json", lambda metrics: metrics["settings"].update(task="cubic_functions"))
    change("recipe.yaml", lambda recipe: recipe.update(task="cubic_functions"))
    card = render_card(evaluated, REPO)
    assert "# Looped GPT-2, cubic functions" in card
    assert "A looped GPT-2 that learns cubic functions from the examples in its prompt" in card


def test_without_classical_predictors_the_model_stands_alone(evaluated, change):
    change("metrics.json", lambda metrics: metrics["error_by_example"].pop("zero"))
    assert "0.0554 to 0.165; predicting 0 has error 1).\n" in render_card(evaluated, REPO)


def test_the_settings_of_a_task_are_shown(evaluated, change):
    change("recipe.yaml", lambda recipe: recipe.update(task_settings={}))
    assert "task_settings" not in render_card(evaluated, REPO)
    change("metrics.json", lambda metrics: metrics["settings"].update(task="decision_tree"))
    change("recipe.yaml", lambda recipe: recipe.update(task="decision_tree", task_settings={"depth": 2}))
    assert "| `task_settings` | {'depth': 2} |" in render_card(evaluated, REPO)


@pytest.fixture
def mixture(evaluated, change, monkeypatch):
    """The evaluated model as one of two classes, the second twice as hard as the first."""

    class Mixture(TASKS["linear_regression"]):
        components = {name: make_task(name, n_dims=3) for name in ("linear_regression", "decision_tree")}  # noqa: RUF012

    monkeypatch.setitem(TASKS, "mixture", Mixture)

    def measure(metrics):
        metrics["components"] = {name: copy.deepcopy(metrics) for name in Mixture.components}
        for part in metrics["components"].values():
            del part["versions"]
        harder = metrics["components"]["decision_tree"]["error_by_example"]["zero"]
        harder["error"] = [2 * error for error in harder["error"]]
        del metrics["error_by_example"]["zero"]
        metrics["settings"]["task"] = "mixture"

    change("metrics.json", measure)
    change("recipe.yaml", lambda recipe: recipe.update(task="mixture"))
    return evaluated


def test_the_card_of_a_mixture_has_a_table_for_each_component(mixture):
    card = render_card(mixture, REPO)
    assert "A looped GPT-2 that learns linear functions and decision trees from the examples in its prompt" in card
    results = re.search(r"## Results\n(.*?)\n\n## ", card, flags=re.DOTALL)[1]
    whole, first, second = re.split(r"\n\n### .*\n\n", results)
    assert re.findall("### (.*)", results) == ["linear regression", "decision tree"]
    model = "| **this model** | 1.03 [0.93, 1.13] | 0.52 [0.42, 0.62] |"
    assert all(model in part for part in (whole, first, second))
    assert "| zero |" not in whole
    assert "| zero | 1.01 [" in first
    assert "| zero | 2.02 [" in second
