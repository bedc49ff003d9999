"""The released checkpoints: each folder of model_cards/ is whole, loads as its card says and answers as it claims."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from modeling_looped_gpt2 import LoopedGPT2ForInContextRegression
from scripts import model_card, push_to_hub
from scripts.release.card import render_card
from scripts.release.folder import load_checked
from scripts.release.headline import headline
from scripts.release.record import read_record
from scripts.training.prompt_arguments import parse_arguments
from tasks import TASKS, make_task
from tasks.streams import make_generator


ROOT = Path(__file__).parents[1]
CARDS = sorted(path.parent for path in ROOT.glob("model_cards/*/config.json"))
by_name = pytest.mark.parametrize("folder", CARDS, ids=lambda folder: folder.name)


def test_there_are_releases_and_each_is_of_a_class():
    assert CARDS
    assert {folder.name for folder in CARDS} <= set(TASKS)


@by_name
def test_its_card_and_weights_are_those_of_its_records(folder):
    card = (folder / "README.md").read_text()
    repo_id = f"looped-gpt2/{folder.name.replace('_', '-')}"
    assert card == render_card(folder, repo_id)
    assert load_checked(folder).num_parameters() < 948_000


@by_name
def test_its_code_is_that_of_the_project(folder):
    code = [path for path in folder.iterdir() if path.suffix == ".py"]
    assert "modeling_looped_gpt2_regression.py" in {path.name for path in code}
    for path in code:
        assert path.is_symlink()
        assert path.resolve() == ROOT / "modeling_looped_gpt2" / path.name


@by_name
def test_it_answers_as_well_as_it_claims_where_the_project_is_unknown(folder, tmp_path, run_isolated):
    """By the lines of its card: the command makes a folder that works anywhere, the code runs on it."""
    card = (folder / "README.md").read_text()
    copy, _ = (shlex.split(block) for block in re.findall(r"```bash\n(.*?)```", card, flags=re.DOTALL))
    use = "".join(re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL))
    (tmp_path / "model_cards").symlink_to(ROOT / "model_cards")  # a clone, as seen from its root
    subprocess.run(copy, cwd=tmp_path, check=True)
    (tmp_path / "elsewhere").mkdir()
    shutil.move(tmp_path / copy[-1], tmp_path / "elsewhere")
    (tmp_path / "model_cards").unlink()
    record = read_record(folder)
    settings = record.metrics.settings
    task = make_task(settings.task, n_dims=settings.n_dims, n_points=settings.n_points)
    prompts = task.sample(64, make_generator("release", 1))
    torch.save((prompts["xs"], prompts["ys"]), tmp_path / "prompts.pt")
    run_isolated(f"""
import torch
torch.set_grad_enabled(False)
xs, ys = torch.load({str(tmp_path / "prompts.pt")!r})
{use}
torch.save(predictions, {str(tmp_path / "predictions.pt")!r})
assert len(answer["predictions"]) == 1
""")
    predictions = torch.load(tmp_path / "predictions.pt")
    errors = (predictions - prompts["labels"]).square().mean(dim=0) / task.normaliser
    claimed = torch.tensor(record.metrics.error_by_example["model"].error)
    last = len(errors) // 5  # of 64 prompts, the mean over the last fifth of the points
    assert errors[-last:].mean() < 2 * claimed[-last:].mean()
    model = LoopedGPT2ForInContextRegression.from_pretrained(folder).eval()
    with torch.no_grad():
        torch.testing.assert_close(model(prompts["xs"], prompts["ys"]).predictions, predictions, atol=1e-4, rtol=1e-4)


@by_name
def test_its_recipe_is_one_of_the_repository(folder):
    record = read_record(folder).recipe
    recipes = (ROOT / "scripts" / "recipes").glob(f"{folder.name}*.yaml")
    assert any(_agrees(path, record) for path in recipes)


def _agrees(path, record):
    resolved = parse_arguments(["--recipe", str(path), "--output_dir", "unused"]).as_dict()
    return all(record[name] == resolved[name] for name in yaml.safe_load(path.read_text()))


def test_the_table_of_the_readme_is_that_of_the_records():
    assert headline(ROOT / "model_cards") in (ROOT / "README.md").read_text()


def test_the_best_learned_model_of_a_row_is_bold():
    rows = re.findall(r"^\| [a-z].*\| (.*) \| (.*) \| (.*) \|$", (ROOT / "README.md").read_text(), flags=re.MULTILINE)
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
