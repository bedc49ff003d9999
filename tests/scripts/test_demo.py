import re
import shutil
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


def test_without_a_model_it_says_what_to_give(start, monkeypatch):
    monkeypatch.delenv("LOOPED_GPT2_MODEL", raising=False)
    assert "give `--model`" in start()
    assert "give `--model`" in start("--model", "")


def test_a_model_that_is_none_is_refused_in_one_line(start, folder, tmp_path, make_config):
    LoopedGPT2LMHeadModel(make_config(vocab_size=5)).save_pretrained(tmp_path / "language")
    LoopedGPT2ForInContextClassification(make_config()).save_pretrained(tmp_path / "classifier")
    broken = shutil.copytree(folder, tmp_path / "broken")
    (broken / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:500])
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


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ("task: [1", "recipe.yaml is not valid YAML"),
        ("- 1", "must hold a mapping"),
        ("task: cubes", "`task` must be one of linear_regression, .* got 'cubes'"),
        ("task: [1]", "`task` in .*recipe.yaml must be a name"),
        ("task: tokens", "`task` must be a class of functions, whose curves the page draws, got tokens"),
        ("seed: 1", "give `--task`"),
        (None, "holds no recipe.yaml, which names the function class: give `--task`"),
    ],
)
def test_a_recipe_that_names_no_class_is_refused(recipe, message, start, folder, monkeypatch):
    monkeypatch.setitem(TASKS, "tokens", Task)
    if recipe:
        (folder / "recipe.yaml").write_text(recipe)
    assert re.search(message, start("--model", folder))


@pytest.fixture
def served(monkeypatch):
    """Start the program in this process, without a server; the page's model, class and title, and what is served."""

    page = pytest.importorskip("scripts.demo_page.page", reason="the page needs the extra `demo`")

    def served(*flags):
        calls = []
        monkeypatch.setattr(sys, "argv", ["demo.py", *map(str, flags)])
        monkeypatch.setattr(torch, "set_num_threads", lambda n: None)
        monkeypatch.setattr(page, "build_page", lambda *arguments: calls.append(arguments) or "the page")
        monkeypatch.setattr(page, "serve", lambda *arguments: calls.append(arguments))
        demo.main()
        return calls

    return served


def test_the_class_is_that_of_the_recipe_with_its_settings(served, folder):
    (folder / "recipe.yaml").write_text("{task: decision_tree, task_settings: {depth: 2}}")
    (_, task, title), serving = served("--model", folder, "--port", "7861")
    assert task == make_task("decision_tree", n_dims=3, depth=2)
    assert title == f"`{folder}`, trained with 4 loops on functions of the class `decision_tree`."
    assert serving == ("the page", 6, 7861)


def test_another_class_can_be_asked_for_and_the_page_says_so(served, folder):
    (folder / "recipe.yaml").write_text("{task: decision_tree, task_settings: {depth: 2}}")
    flags = ("--model", folder, "--task", "linear_regression")
    (_, task, title), _ = served(*flags)
    assert task == make_task("linear_regression", n_dims=3)
    assert "of the class `decision_tree`. The functions on this page are of the class `linear_regression`." in title
    (folder / "recipe.yaml").unlink()
    (_, _, title), _ = served(*flags)
    assert title.startswith(f"`{folder}`, trained with 4 loops. The functions")


def test_a_repository_of_the_hub_names_its_class_too(hub, served, folder):
    (folder / "recipe.yaml").write_text("task: linear_regression")
    api = HfApi(token="hf_ana")
    api.create_repo("ana/looped")
    api.upload_folder(repo_id="ana/looped", folder_path=folder)
    (_, task, title), _ = served("--model", "ana/looped")
    assert task.name == "linear_regression"
    assert title == "`ana/looped`, trained with 4 loops on functions of the class `linear_regression`."
