import re
import sys

import pytest
import torch
from huggingface_hub import HfApi

from modeling_looped_gpt2 import LoopedGPT2ForInContextClassification, LoopedGPT2LMHeadModel
from scripts import demo
from tasks import TASKS, Task, make_task


@pytest.fixture
def folder(make_model, tmp_path):
    """A model of 4 loops that reads 6 points."""
    make_model().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def start(monkeypatch, capsys):
    """Start the program in this process on a model that it refuses; what it says."""

    def start(*flags):
        monkeypatch.setattr(sys, "argv", ["demo.py", *map(str, flags)])
        with pytest.raises(SystemExit) as stop:
            demo.main()
        assert stop.value.code not in (0, None)
        return stop.value.code if isinstance(stop.value.code, str) else capsys.readouterr().err

    return start


def test_without_a_model_and_a_release_it_says_what_to_give(start, monkeypatch, tmp_path):
    monkeypatch.delenv("LOOPED_GPT2_MODEL", raising=False)
    monkeypatch.chdir(tmp_path)
    assert "give `--model`" in start()
    assert "give `--model`" in start("--model", "")


def test_a_task_is_of_one_model(start, folder):
    assert "`--task` is of a single `--model`, got 2" in start("--model", folder, folder, "--task", "decision_tree")


@pytest.fixture
def with_recipe(tmp_path):
    """Save a model with the recipe of a task; its folder."""

    def with_recipe(name, model, task, settings="{}"):
        model.save_pretrained(tmp_path / name)
        (tmp_path / name / "recipe.yaml").write_text(f"{{task: {task}, task_settings: {settings}}}")
        return tmp_path / name

    return with_recipe


def test_a_model_that_is_none_is_refused_in_one_line(start, with_recipe, tmp_path, make_config, make_model):
    with_recipe("language", LoopedGPT2LMHeadModel(make_config(vocab_size=5)), "linear_regression")
    with_recipe("classifier", LoopedGPT2ForInContextClassification(make_config()), "linear_regression")
    broken = with_recipe("broken", make_model(), "linear_regression")
    (broken / "model.safetensors").write_bytes((broken / "model.safetensors").read_bytes()[:500])
    (tmp_path / "empty").mkdir()
    for name, message in {
        "language": "must hold a LoopedGPT2ForInContextRegression, got LoopedGPT2LMHeadModel",
        "classifier": "got LoopedGPT2ForInContextClassification",
        "broken": "cannot be loaded",
        "empty": "holds no config.json",
        "missing": "there is no folder",
    }.items():
        answer = start("--model", tmp_path / name)
        assert answer.startswith("demo.py: error: ")
        assert message in answer
        assert "\n" not in answer


def test_two_models_of_functions_are_refused_by_name(start, with_recipe, make_model):
    folders = [with_recipe(name, make_model(), "linear_regression") for name in ("first", "second")]
    assert re.search("one model of functions at most, got .*first, .*second", start("--model", *folders))


SET = {"example_order": "set", "position_embedding": "none"}


def test_two_models_of_tables_of_one_kind_are_refused_and_so_is_one_without_quantiles(
    start, with_recipe, make_config, make_model
):
    classifier = LoopedGPT2ForInContextClassification(make_config(**SET))
    folders = [with_recipe(name, classifier, "table_prior") for name in ("first", "second")]
    assert re.search("one model of tables for classes at most, got .*first and .*second", start("--model", *folders))
    folder = with_recipe("numbers", make_model(**SET), "table_prior", "{kind: regression}")
    assert "must have quantiles, whose intervals the page shows" in start("--model", folder)


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ("task: [1", "recipe.yaml is not valid YAML"),
        ("- 1", "must hold a mapping"),
        ("task: cubes", "`task` must be one of linear_regression, .* got 'cubes'"),
        ("task: [1]", "`task` in .*recipe.yaml must be a name"),
        ("task: tokens", "`task` must be one of what the page shows, .*, got tokens"),
        ("seed: 1", "give `--task`"),
        (None, "holds no recipe.yaml, which names the task: give `--task`"),
    ],
)
def test_a_recipe_that_names_no_class_is_refused(recipe, message, start, folder, monkeypatch):
    monkeypatch.setitem(TASKS, "tokens", Task)
    if recipe:
        (folder / "recipe.yaml").write_text(recipe)
    assert re.search(message, start("--model", folder))


@pytest.fixture
def served(monkeypatch):
    """Start the program in this process, without a server; the tabs of the page and the port."""

    page = pytest.importorskip("scripts.demo_page.page", reason="the page needs the extra `demo`")

    def served(*flags):
        calls = []
        monkeypatch.setattr(sys, "argv", ["demo.py", *map(str, flags)])
        monkeypatch.setattr(torch, "set_num_threads", lambda n: None)
        monkeypatch.setattr(page, "build_page", lambda tabs: tabs)
        monkeypatch.setattr(page, "serve", lambda tabs, port: calls.append((tabs, port)))
        demo.main()
        return calls[0]

    return served


def test_the_class_is_that_of_the_recipe_with_its_settings(served, folder):
    (folder / "recipe.yaml").write_text("{task: decision_tree, task_settings: {depth: 2}}")
    (tab,), port = served("--model", folder, "--port", "7861")
    assert tab.task == make_task("decision_tree", n_dims=3, depth=2)
    assert tab.title == f"`{folder}`, trained with 4 loops on functions of the class `decision_tree`."
    assert port == 7861


def test_another_class_can_be_asked_for_and_the_page_says_so(served, folder):
    (folder / "recipe.yaml").write_text("{task: decision_tree, task_settings: {depth: 2}}")
    flags = ("--model", folder, "--task", "linear_regression")
    (tab,), _ = served(*flags)
    assert tab.task == make_task("linear_regression", n_dims=3)
    assert (
        "of the class `decision_tree`. The functions on this page are of the class `linear_regression`." in tab.title
    )
    (folder / "recipe.yaml").unlink()
    (tab,), _ = served(*flags)
    assert tab.title.startswith(f"`{folder}`, trained with 4 loops. The functions")


def test_a_repository_of_the_hub_names_its_class_too(hub, served, folder, monkeypatch):
    (folder / "recipe.yaml").write_text("task: linear_regression")
    api = HfApi(token="hf_ana")
    api.create_repo("ana/looped")
    api.upload_folder(repo_id="ana/looped", folder_path=folder)
    monkeypatch.setenv("LOOPED_GPT2_MODEL", "ana/looped")
    (tab,), _ = served()
    assert tab.task.name == "linear_regression"
    assert tab.title == "`ana/looped`, trained with 4 loops on functions of the class `linear_regression`."


def test_by_default_the_releases_that_there_are_have_their_tabs(
    served, with_recipe, make_config, make_model, tmp_path, monkeypatch
):
    monkeypatch.delenv("LOOPED_GPT2_MODEL", raising=False)
    monkeypatch.chdir(tmp_path)
    with_recipe("model_cards/all_classes", make_model(), "linear_regression")
    (tab,), _ = served()
    assert tab.title.startswith("`model_cards/all_classes`, trained")
    classifier = LoopedGPT2ForInContextClassification(make_config(**SET))
    with_recipe("model_cards/tables_classification", classifier, "table_prior")
    words = LoopedGPT2LMHeadModel(make_config(**make_task("parity").model_fields))
    with_recipe("model_cards/parity", words, "parity")
    (_, tables, problems), _ = served()
    assert tables.title == "`model_cards/tables_classification` for classes"
    assert list(problems.solvers) == ["model_cards/parity"]
