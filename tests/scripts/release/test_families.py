"""Cards of tables and of sequences say how these models are asked, and what they are worth, from their records."""

import json
import re
import shutil
import sys

import pytest

from modeling_looped_gpt2 import (
    LoopedGPT2Config,
    LoopedGPT2ForInContextClassification,
    LoopedGPT2ForInContextRegression,
    LoopedGPT2LMHeadModel,
)
from scripts import push_to_hub, seeds
from scripts.common.model_loading import weights_digest
from scripts.release.card import TEMPLATES, render_card
from scripts.release.files import release_files
from scripts.release.sequence_values import longest_of
from tasks import make_task


REPO = "ana/looped"
CURVE = {"error": [0.0, 0.005, 0.02, 0.0, 0.25]}
CURVE |= {"low": CURVE["error"], "high": [error + 0.1 for error in CURVE["error"]]}


@pytest.fixture
def folder_of(evaluated, change):
    """Make the evaluated folder one of another model, with a recipe and parts of the record of its task."""

    def folder_of(model, recipe, settings, **fields):
        model.save_pretrained(evaluated)

        def measure(metrics):
            for name in ("n_dims", "normaliser"):
                del metrics["settings"][name]
            about = {"n_parameters": model.num_parameters(), "weights_sha256": weights_digest(model)}
            metrics["settings"] |= {"task": recipe["task"], **about, **settings}
            del metrics["error_by_example"]["zero"]
            metrics |= fields

        change("metrics.json", measure)
        change("recipe.yaml", lambda old: old.update(recipe))
        return evaluated

    return folder_of


def table_folder(folder_of, kind):
    head, sizes = {
        "classification": (LoopedGPT2ForInContextClassification, {"num_labels": 10}),
        "regression": (LoopedGPT2ForInContextRegression, {"n_quantiles": 4}),
    }[kind]
    shape = {"n_embd": 16, "n_head": 2, "n_dims": 6, "n_positions": 24, "n_loops": 2}
    model = head(LoopedGPT2Config(**shape, **sizes, example_order="set", position_embedding="none"))
    recipe = {"task": "table_prior", "task_settings": {"kind": kind, "n_columns": 5}, "n_dims": 6, "n_points": 24}
    places = {"place": "in-context examples", "first_place": 3, "place_step": 3, "score": "share of wrong classes"}
    return folder_of(model, recipe, places, certainty={"log loss": 0.4567})


@pytest.fixture
def parity_folder(folder_of):
    shape = {"n_embd": 16, "n_head": 2, "n_positions": 3, "n_loops": 2, "vocab_size": 3, "attention_window": 2}
    recipe = {"task": "parity", "task_settings": {"positions": "alternate", "max_length": 4}, "loop_surplus": 7}
    rules = {"needed loops": CURVE, "exit_confidence 0.9": CURVE | {"error": [0.0] * 5}}
    return folder_of(
        LoopedGPT2LMHeadModel(LoopedGPT2Config(**shape)),
        recipe | {"n_dims": None, "n_points": None, "seed": 3},
        {"place": "bits", "first_place": 2, "score": "share of wrong answers"},
        stops={rule: {"errors": curve, "mean_loops": [2, 3, 4, 5, 6]} for rule, curve in rules.items()},
        error_by_loop_and_place=[[0.5] * 5] * 4,
    )


@pytest.mark.parametrize(
    ("kind", "texts"),
    [
        (
            "classification",
            ("the class of others", "up to 10 classes", "InContextClassifier(", "predict_proba(queries)"),
        ),
        ("regression", ("the value of others", "quantiles come with", "InContextRegressor(", "predict_quantiles(")),
    ],
)
def test_the_card_of_tables_says_what_it_takes_and_how_it_is_asked(kind, texts, folder_of):
    card = render_card(table_folder(folder_of, kind), REPO)
    for text in (
        *texts,
        f"# Looped GPT-2 for tables, {kind}\n",
        "in up to 5 columns",
        "trained with up to 24 rows",
        "With 15 examples its error on fresh tables of that kind is **0.0654**",
        "| error, mean over 3 to 15 examples |",
        "`xs` is a float tensor `(batch, n_rows, 6)`",
        "| examples | 3 | 6 | 9 | 12 | 15 |",
        "| log loss | 0.457 |",
    ):
        assert text in card
    for of_other_cards in ("real tables", "in-context-regression", "use a method made for tables", "predicting 0"):
        assert of_other_cards not in card
    assert "\n\n\n" not in card


def test_the_card_of_tables_shows_the_suite_that_lies_beside_it(folder_of):
    folder = table_folder(folder_of, "classification")
    digest = json.loads((folder / "metrics.json").read_text())["settings"]["weights_sha256"]
    metrics = dict.fromkeys(("accuracy", "log_loss", "calibration_error", "fit_seconds", "predict_seconds"), 0.5)
    of_tables = {
        f"MASS/t{n}": {"logistic": metrics | {"auc": 0.8}, "mine": metrics | {"auc": auc}}
        for n, auc in enumerate((0.7, 0.8, 0.9, 1.0))
    }
    suite = {
        "split": "judged",
        "models": {"mine": {"weights_sha256": digest, "n_loops": {"mine": None}}},
        "comparisons": [
            {"kind": "classification", "rows": 50, "methods": {"logistic": {}, "mine": {}}, "tables": of_tables}
        ],
    }
    (folder / "suite.json").write_text(json.dumps(suite))
    assert "suite.json" in release_files(folder)
    card = render_card(folder, REPO)
    assert (
        "- **On 4 real tables**, judged ones of the project's suite, with 50 training rows each, its mean rank" in card
    )
    assert "by AUC among 2 methods is 1.38; that of logistic, the best of the others, is 1.62." in card
    assert "### 50 training rows, 4 tables\n" in card
    assert "| MASS/t0 | 0.700 | logistic | 0.800 | -0.100 |" in card
    assert "### By number of loops" not in card  # of one number alone
    suite["models"]["mine"]["weights_sha256"] = "0" * 64
    (folder / "suite.json").write_text(json.dumps(suite))
    with pytest.raises(ValueError, match="the suite was run on other weights"):
        render_card(folder, REPO)
    (folder / "suite.json").write_text("{}")
    with pytest.raises(ValueError, match="no card can be made of the records"):
        render_card(folder, REPO)


def test_the_card_of_sequences_shows_a_question_and_what_is_right_by_length_and_rule(parity_folder):
    card = render_card(parity_folder, REPO)
    text, answer = re.search(r"This asks `(\w+)`, whose answer is `(\w)`", card).groups()
    task = make_task("parity", max_length=6, positions="alternate")
    prompt = task.ask(text)
    for name in ("input_ids", "position_ids"):
        assert f"{name} = torch.tensor({prompt[name].tolist()})\n" in card
    assert task.say(prompt["labels"], prompt) == [answer]
    assert len(text) == 4
    for shown in (
        "trained on questions of up to 4 bits",
        'task = make_task("parity", max_length=6, positions="alternate")\n',
        "Of fresh questions of 6 bits it answers **75%** right",
        "(90% interval 65% to 75%; whole answers count), and at least 99% at every length up to **3**.",
        "n_loops=4).logits",
        "give more loops than are needed and `exit_confidence=0.9`",
        "| bits | 2 | 3 | 4 | 5 | 6 | 99% right up to |",
        "| needed loops | 100% (2) | 99.5% (3) | 98% (4) | 100% (5) | 75% (6) | 3 |",
        "| exit_confidence 0.9 | 100% (2) | 100% (3) | 100% (4) | 100% (5) | 100% (6) | 6 |",
        "| **this model** | 4 | 3 |",
        "| Fan et al. (2025) | 20 | 40 to 50 |",
        "keep its answer for up to 7 loops after the needed one",
    ):
        assert shown in card
    assert "All seeds" not in card
    assert "\n\n\n" not in card


def test_a_model_reads_questions_for_which_it_has_positions():
    of = {"position_embedding": "learned", "n_positions": 12}
    assert longest_of(make_task("parity", positions="alternate"), of) is None
    assert longest_of(make_task("parity"), of) == 11
    assert longest_of(make_task("parity"), of | {"position_embedding": "none"}) is None
    aligned = make_task("copy", positions="aligned", max_offset=5)
    longest = longest_of(aligned, of)
    fits, too_long = (make_task("copy", positions="aligned", max_length=longest + more) for more in (0, 1))
    assert fits.model_fields["n_positions"] <= 12 < too_long.model_fields["n_positions"]


# the other seeds


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["seeds.py", *map(str, arguments)])
    seeds.main()


@pytest.fixture
def other_seed(parity_folder, tmp_path, change):
    """The same model trained with seed 1, worse in every way."""
    other = shutil.copytree(parity_folder, tmp_path / "other")
    change("recipe.yaml", lambda recipe: recipe.update(seed=1, output_dir="runs/other"), other)

    def spoil(metrics):
        for stopped in metrics["stops"].values():
            stopped["errors"]["error"] = [0.0, 0.0, 0.5, 0.5, 0.5]

    change("metrics.json", spoil, other)
    return other


def test_all_seeds_reach_the_card(parity_folder, other_seed, monkeypatch):
    run(monkeypatch, "--model", parity_folder, "--others", other_seed)
    assert "seeds.json" in release_files(parity_folder)
    card = render_card(parity_folder, REPO)
    assert "The same recipe with 2 seeds, this model's in bold: answers of 6 bits" in card
    assert "| seed | needed loops | exit_confidence 0.9 |\n| --- | --- | --- |\n| 1 | 50% (3) | 50% (3) |" in card
    assert "| **3** | 75% (3) | 100% (6) |" in card


def test_what_lies_beside_a_model_is_pushed_with_it(parity_folder, other_seed, hub, monkeypatch):
    run(monkeypatch, "--model", parity_folder, "--others", other_seed)
    shutil.copyfile(parity_folder / "error.png", parity_folder / "lengths.png")
    monkeypatch.setenv("HF_TOKEN", "hf_ana")
    monkeypatch.setattr(sys, "argv", ["push_to_hub.py", "--model", str(parity_folder), "--repo_id", REPO])
    push_to_hub.main()
    pushed = hub.repositories[REPO].files
    assert {"seeds.json", "lengths.png", "modeling_looped_gpt2_causal_lm.py"} <= pushed.keys()
    assert pushed["README.md"].decode() == render_card(parity_folder, REPO)
    assert "auto_map" in json.loads(pushed["config.json"])


@pytest.mark.parametrize(
    ("name", "edit", "message"),
    [
        (
            "recipe.yaml",
            lambda recipe: recipe.update(max_steps=31),
            "`max_steps` of .*other must be that of .*, got 31",
        ),
        ("recipe.yaml", lambda recipe: recipe.update(seed=3), "must be of different seeds, got 3 again"),
        ("metrics.json", lambda metrics: metrics["settings"].update(n_prompts=41), "evaluated on other prompts"),
        ("metrics.json", lambda metrics: metrics.pop("error_by_loop"), "not what scripts/evaluate.py writes"),
    ],
)
def test_what_is_no_other_seed_is_refused_and_nothing_written(
    name, edit, message, parity_folder, other_seed, change, monkeypatch
):
    change(name, edit, other_seed)
    with pytest.raises(SystemExit, match=message):
        run(monkeypatch, "--model", parity_folder, "--others", other_seed)
    assert not (parity_folder / "seeds.json").exists()


def test_seeds_of_another_recipe_or_other_prompts_than_the_model_are_refused(
    parity_folder, other_seed, change, monkeypatch
):
    run(monkeypatch, "--model", parity_folder, "--others", other_seed)
    change("recipe.yaml", lambda recipe: recipe.update(max_steps=31))
    with pytest.raises(ValueError, match=r"seeds\.json is of another recipe"):
        render_card(parity_folder, REPO)
    change("metrics.json", lambda metrics: metrics["settings"].update(n_prompts=41))
    with pytest.raises(ValueError, match=r"seeds\.json is of other prompts"):
        render_card(parity_folder, REPO)


@pytest.mark.parametrize("path", sorted(TEMPLATES.glob("tasks/*.md")), ids=lambda path: path.stem)
def test_no_number_of_the_results_is_in_a_page_of_a_family(path):
    typed = re.findall(r"\d+(?:\.\d+)?", re.sub(r"\{[{%].*?[%}]\}|```.*?```", "", path.read_text(), flags=re.DOTALL))
    assert set(typed) <= {"0", "1", "90", "99"}  # missing values and attention masks; dim=-1; intervals; the reach
