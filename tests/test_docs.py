"""Every snippet of docs/ runs, page by page and from top to bottom, on the folder that `make demo` leaves."""

import functools
import importlib
import io
import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path
from unittest import mock

import pytest
import torch
import yaml

from modeling_looped_gpt2 import (
    LoopedGPT2Config,
    LoopedGPT2ForInContextRegression,
)
from scripts.common.model_loading import weights_digest
from scripts.training.prompt_arguments import Arguments
from tasks import TASKS, make_task, task_fields


ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").glob("*.md"))
# pages of commands that take minutes to hours; tests of the programs themselves run them small
LONG = (
    "diversity.md",
    "evaluation.md",
    "generation.md",
    "linear_attention.md",
    "mechanisms.md",
    "speed.md",
    "stopping.md",
    "training.md",
    "training_trials.md",
)


@pytest.fixture
def demo(evaluated, tmp_path, monkeypatch):
    """The current folder of a reader after `make demo`, with models of its sizes and of tables, all untrained."""
    torch.manual_seed(0)
    config = LoopedGPT2Config(n_embd=16, n_head=2, n_dims=5, n_positions=22, n_loops=6)
    model = LoopedGPT2ForInContextRegression(config)
    model.save_pretrained(evaluated)
    metrics = json.loads((evaluated / "metrics.json").read_text())
    metrics["settings"] |= {"n_dims": 5, "weights_sha256": weights_digest(model)}
    (evaluated / "metrics.json").write_text(json.dumps(metrics))
    recipe = yaml.safe_load((evaluated / "recipe.yaml").read_text())
    (evaluated / "recipe.yaml").write_text(yaml.safe_dump(recipe | {"n_dims": 5, "n_loops": 6}))
    (tmp_path / "runs").mkdir()
    evaluated.rename(tmp_path / "runs" / "quickstart")
    for name in ("docs", "modeling_looped_gpt2", "scripts"):
        (tmp_path / name).symlink_to(ROOT / name)
    shutil.copytree(ROOT / "model_cards", tmp_path / "model_cards", symlinks=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    known = dict(TASKS)
    yield
    TASKS.clear()
    TASKS.update(known)


def run_command(line, monkeypatch):
    """Run a line of a shell, in this process but for training, which takes over signals and memory."""
    python, program, *flags = shlex.split(line)
    if python == "cp":
        subprocess.run(shlex.split(line), check=True)
        return
    assert python == "python"
    if "train" in flags or program.endswith("train.py"):
        small = "--n_embd 16 --n_head 2 --max_steps 2 --warmup_steps 0 --decay_steps 0 --eval_every 0"
        environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
        command = [sys.executable, str(ROOT / program), *flags, *small.split()]
        result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
        assert result.returncode == 0, result.stderr
        return
    small = ["--n_prompts", "20"] if "evaluate" in flags or program.endswith("evaluate.py") else []
    monkeypatch.setattr(sys, "argv", [program, *flags, *small])
    runpy.run_path(str(ROOT / program), run_name="__main__")


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("page", [page for page in PAGES if page.name not in LONG], ids=lambda page: page.name)
def test_every_snippet_runs(page, demo, hub, monkeypatch, capsys):
    monkeypatch.setenv("HF_TOKEN", "hf_ana")
    names = {}
    snippets = re.findall(r"```(\w+)\n(.*?)```", page.read_text(), flags=re.DOTALL)
    assert snippets
    for language, code in snippets:
        if language == "bash":
            for line in code.splitlines():
                run_command(line, monkeypatch)
        elif language == "yaml":
            Arguments.from_dict({"output_dir": "runs/new", "max_steps": 9} | yaml.safe_load(code))
        else:
            assert language == "python"
            exec(compile(code, page.name, "exec"), names)
    assert contents(Path("model_cards")) == contents(ROOT / "model_cards")  # no command touches a release
    if page.name == "errors.md":  # an error is printed as it is quoted above its snippet
        quoted = re.findall(r"^\*\*(.*?)\.?(?: …|\*\*)", page.read_text(), flags=re.MULTILINE)
        printed = capsys.readouterr().out.splitlines()
        assert printed
        assert all(line.startswith(tuple(quoted)) for line in printed), printed


@functools.cache
def flags_of(program):
    """The flags that `--help` of a program lists; any field of a recipe can follow those of study.py."""
    main, output = importlib.import_module(f"scripts.{program}").main, io.StringIO()
    command = mock.patch.object(sys, "argv", [f"{program}.py", "--help"])
    with command, redirect_stdout(output), pytest.raises(SystemExit, match=r"^0$"):
        main()
    flags = set(re.findall(r"^ +(?:-\w, )?(--\w+)", output.getvalue(), flags=re.MULTILINE))
    return flags | (flags_of("train") if program == "study" else set())


@pytest.mark.parametrize("page", LONG)
def test_long_commands_are_ones_that_the_programs_take(page):
    text = (ROOT / "docs" / page).read_text()
    commands = [
        line for block in re.findall(r"```bash\n(.*?)```", text, flags=re.DOTALL) for line in block.splitlines()
    ]
    assert commands
    for command in commands:
        program, words = re.search(r"scripts/(\w+)\.py(.*)", command).groups()
        assert set(re.findall(r"--\w+", words)) <= flags_of(program), command


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md"], ids=lambda page: page.name)
def test_every_flag_in_the_text_is_one_of_a_program(page):
    text = re.sub(r"^(```|    ).*", "", page.read_text(), flags=re.MULTILINE)
    known = set().union(*(flags_of(path.stem) for path in (ROOT / "scripts").glob("[a-z]*.py")))
    assert set(re.findall(r"(?<=[` ])--\w+", text)) <= known


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_and_file_exists(page):
    text = page.read_text()
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert target.startswith("https://") or (page.parent / target).exists(), target
    for target in re.findall(r"`((?:scripts|docs|tasks|modeling_looped_gpt2)/[\w/.]*)`", text):
        assert (ROOT / target).exists(), target


@pytest.mark.parametrize("name", TASKS)
def test_every_task_its_settings_and_its_sizes_are_on_their_page(name):
    row = re.search(rf"^\| `{name}` .*$", (ROOT / "docs" / "tasks.md").read_text(), flags=re.MULTILINE)[0]
    settings = task_fields(name, {}) if name != "mixture" else {"components": None}
    sizes = make_task(name).sizes if name != "mixture" else ()
    for item in (*settings, *sizes):
        assert f"`{item}`" in row, item


def test_the_example_of_a_class_is_short():
    assert len((ROOT / "docs" / "sine_regression.py").read_text().splitlines()) < 60
