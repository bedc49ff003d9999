"""The released checkpoints: each folder of model_cards/ is whole, loads as its card says and answers as it claims."""

import inspect
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from scripts import model_card, push_to_hub
from scripts.evaluation.own_loops import own_loops_of
from scripts.release.card import own_curve, render_card
from scripts.release.folder import load_checked
from scripts.release.headline import headline, specialist_tables
from scripts.release.record import read_record
from scripts.training.prompt_arguments import parse_arguments
from tasks import TASKS
from tasks.streams import make_generator


ROOT = Path(__file__).parents[1]
CARDS = sorted(path.parent for path in ROOT.glob("model_cards/*/config.json"))
by_name = pytest.mark.parametrize("folder", CARDS, ids=lambda folder: folder.name)


def test_there_are_releases_and_each_is_of_a_task():
    assert CARDS
    assert all(read_record(folder).metrics.settings.task in TASKS for folder in CARDS)


@by_name
def test_its_card_and_weights_are_those_of_its_records(folder):
    card = (folder / "README.md").read_text()
    repo_id = f"looped-gpt2/{folder.name.replace('_', '-')}"
    assert card == render_card(folder, repo_id)
    assert load_checked(folder).num_parameters() < 1_000_000


@by_name
def test_its_code_is_that_of_the_project(folder):
    code = [path for path in folder.iterdir() if path.suffix == ".py"]
    of_model = Path(inspect.getfile(read_record(folder).objective.model_class))
    assert of_model.name in {path.name for path in code}
    for path in code:
        assert path.is_symlink()
        assert path.resolve() == ROOT / "modeling_looped_gpt2" / path.name


def code_of(folder):
    """The code of a card: the command that copies the model, and what runs without the project and with it."""
    card = (folder / "README.md").read_text()
    copy, _ = (shlex.split(block) for block in re.findall(r"```bash\n(.*?)```", card, flags=re.DOTALL))
    blocks = re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)
    needs_project = [
        bool(re.search(r"^from (modeling_looped_gpt2|tasks)", block, flags=re.MULTILINE)) for block in blocks
    ]
    alone, within = (
        [block for block, needs in zip(blocks, needs_project, strict=True) if needs == is_within]
        for is_within in (False, True)
    )
    return copy, "".join(alone), "".join(within)


@pytest.fixture
def elsewhere(tmp_path):
    """A folder with a copy of every release, each made by the command of its card in a clone."""
    (tmp_path / "model_cards").symlink_to(ROOT / "model_cards")  # a clone, as seen from its root
    (tmp_path / "elsewhere").mkdir()
    for folder in CARDS:
        copy, _, _ = code_of(folder)
        subprocess.run(copy, cwd=tmp_path, check=True)
        shutil.move(tmp_path / copy[-1], tmp_path / "elsewhere")
    (tmp_path / "model_cards").unlink()
    return tmp_path / "elsewhere"


def questions_of(folder):
    """Prompts of the task of a release in parts of one shape, each with the arguments that its model answers it by."""
    record = read_record(folder)
    parts = record.task.sample_parts(14 if record.task.has_queries else 32, make_generator("release", 1))
    loops = own_loops_of(record.task, parts, record.recipe)
    own = {} if loops is None else {"n_loops": torch.tensor(loops)}
    return [(prompts, dict(record.objective().inputs(prompts)) | own) for prompts in parts]


def test_they_answer_as_well_as_they_claim_where_the_project_is_unknown(elsewhere, tmp_path, run_isolated):
    """By the lines of their cards: the command makes a folder that works anywhere, the code runs on it."""
    questions = {folder.name: questions_of(folder) for folder in CARDS}
    asked = {name: [columns for _, columns in parts] for name, parts in questions.items()}
    torch.save((asked, {folder.name: code_of(folder)[1] for folder in CARDS}), tmp_path / "asked.pt")
    run_isolated(f"""
import torch
torch.set_grad_enabled(False)
asked, code = torch.load({str(tmp_path / "asked.pt")!r})
answers = {{}}
for name, parts in asked.items():
    some = {{column: values[:2] for column, values in parts[0].items()}}
    exec(code[name], some)
    assert len(some.get("answer", {{"predictions": [0]}})["predictions"]) == 1
    answers[name] = [some["model"](**columns)[0] for columns in parts]
torch.save(answers, {str(tmp_path / "answers.pt")!r})
""")
    answers = torch.load(tmp_path / "answers.pt")
    for folder in CARDS:
        record, model, scores = read_record(folder), load_checked(folder), []
        for (prompts, columns), told in zip(questions[folder.name], answers[folder.name], strict=True):
            with torch.no_grad():
                torch.testing.assert_close(model(**columns)[0], told, atol=1e-4, rtol=1e-4)
            is_value = told.shape == prompts["labels"].shape
            scores.append(record.task.score((told if is_value else told.argmax(dim=-1)).numpy(), prompts))
        scores = np.concatenate(scores)
        claimed = np.array(own_curve(record.metrics).error)[: scores.shape[1]]
        # the last fifth of the places, or, where a prompt has a single place, all of them
        has_one_place = np.isnan(scores).any()
        last = scores.shape[1] if has_one_place else scores.shape[1] // 5
        slack = 0.1 if has_one_place else 1e-3  # a wrong answer or two of so few are chance
        assert np.nanmean(scores[:, -last:]) < 2 * claimed[-last:].mean() + slack, folder.name


def test_the_lines_for_those_who_have_the_project_work_too(elsewhere, monkeypatch, capsys):
    monkeypatch.chdir(elsewhere)
    numbers = np.linspace(-1, 1, 20)
    examples = pd.DataFrame({"a": numbers, "b": ["x", "y"] * 10, "c": [None, *numbers[1:] ** 2]})
    for folder in CARDS:
        known = {"classification": ["no"] * 8 + ["yes"] * 12}.get(read_record(folder).task.objective, numbers**3)
        given = {"examples": examples, "known": known, "queries": examples[:3], "model": load_checked(folder)}
        capsys.readouterr()
        exec(code_of(folder)[2], given)
        if "probabilities" in given:
            np.testing.assert_allclose(given["probabilities"].sum(axis=1), np.ones(3), rtol=1e-5)
        elif "intervals" in given:
            assert (np.diff(given["intervals"], axis=1) >= 0).all()
            assert given["values"].shape == (3,)
        elif "task" in given:
            assert capsys.readouterr().out == f"{given['task'].say(given['prompt']['labels'], given['prompt'])}\n"


@by_name
def test_its_recipe_is_one_of_the_repository(folder):
    record = read_record(folder).recipe
    recipes = (ROOT / "scripts" / "recipes").glob(f"{folder.name}*.yaml")
    assert any(_agrees(path, record) for path in recipes)


def _agrees(path, record):
    resolved = parse_arguments(["--recipe", str(path), "--output_dir", "unused"]).as_dict()
    return all(record[name] == resolved[name] for name in yaml.safe_load(path.read_text()))


def test_the_table_of_the_readme_is_that_of_the_records():
    tables = (headline(ROOT / "model_cards"), *specialist_tables(ROOT / "model_cards"))
    assert all(table in (ROOT / "README.md").read_text() for table in tables)


def test_the_best_learned_model_of_a_row_is_bold():
    text = headline(ROOT / "model_cards")
    rows = re.findall(r"^\| [a-z].*\| (.*) \| (.*) \| (.*) \|$", text, flags=re.MULTILINE)
    rows = [cells for cells in rows if not any("M" in cell for cell in cells)]  # the table of errors
    assert len(rows) == 6
    for cells in rows:
        errors = [float(cell.strip("*")) for cell in cells]
        assert [cell.startswith("**") for cell in cells] == [error == min(errors) for error in errors]


# publishing in a clone


def contents(folder):
    return {
        str(path.relative_to(folder)): path.readlink() if path.is_symlink() else path.is_dir() or path.read_bytes()
        for path in folder.rglob("*")
    }


@pytest.fixture
def clone(evaluated, tmp_path, monkeypatch):
    """A clone with a model of the reader's own, which is drawn with shifts and has no stages."""
    root = tmp_path / "clone"
    shutil.copytree(ROOT / "model_cards", root / "model_cards", symlinks=True)
    (root / "modeling_looped_gpt2").symlink_to(ROOT / "modeling_looped_gpt2")
    for name in ("quickstart", "linear"):
        shutil.copytree(evaluated, root / "runs" / name)
    monkeypatch.chdir(root)
    return root


def run(line, monkeypatch):
    programs = {"scripts/model_card.py": model_card, "scripts/push_to_hub.py": push_to_hub}
    _, program, *flags = shlex.split(line.replace("ORG/NAME", "ana/looped"))
    monkeypatch.setattr(sys, "argv", [program, *flags])
    programs[program].main()


@pytest.mark.parametrize("page", ["README.md", "docs/hub.md"])
def test_publishing_as_documented_leaves_the_releases_as_they_were(page, clone, hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_ana")
    before = contents(clone / "model_cards")
    commands = re.findall(
        r"^python scripts/(?:model_card|push_to_hub).*$", (ROOT / page).read_text(), flags=re.MULTILINE
    )
    assert len(commands) >= 2
    for command in commands:
        run(command, monkeypatch)
    assert contents(clone / "model_cards") == before
    assert {path.name for path in (clone / "runs").iterdir()} > {"quickstart", "linear"}


@by_name
def test_no_release_is_overwritten_by_another_model(folder, clone, monkeypatch):
    before = contents(clone)
    target = f"model_cards/{folder.name}"
    for model, repo_id, output_dir in (
        ("runs/linear", "ana/looped", target),
        ("runs/linear", f"looped-gpt2/{folder.name.replace('_', '-')}", target),
        (target, "ana/looped", target),
        ("runs/linear", "ana/looped", "model_cards"),
        ("runs/linear", "ana/looped", "."),
    ):
        with pytest.raises(SystemExit, match="Nothing was changed"):
            run(
                f"python scripts/model_card.py --model {model} --repo_id {repo_id} --output_dir {output_dir}",
                monkeypatch,
            )
    with pytest.raises(SystemExit, match="new or empty folder"):
        run(f"python scripts/push_to_hub.py --model runs/linear --repo_id a/b --dry_run {target}", monkeypatch)
    assert contents(clone) == before
