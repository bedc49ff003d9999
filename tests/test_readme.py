"""The README's code and commands run as they stand, on small sizes appended to them."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from modeling_looped_gpt2 import LoopedGPT2Config, LoopedGPT2ForInContextRegression
from tasks import TASKS
from tests.programs import run_program


ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
SMALL = {
    "scripts/train.py": "--n_embd 16 --n_head 2 --batch_size 4 --max_steps 2 --decay_steps 0 --warmup_steps 0",
    "scripts/evaluate.py": "--n_prompts 20 --max_loops 13 --n_shift_prompts 4",
    "scripts/plot.py": "",
    "scripts/model_card.py": "",
    "scripts/push_to_hub.py": "",
}


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_the_python_code_runs(tmp_path, monkeypatch, capsys):
    config = LoopedGPT2Config(n_embd=16, n_head=2, n_dims=5, n_positions=22)
    LoopedGPT2ForInContextRegression(config).save_pretrained(tmp_path / "runs" / "quickstart")
    (tmp_path / "model_cards").symlink_to(ROOT / "model_cards")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    code = "\n".join(blocks("python"))
    exec(compile(code, "README.md", "exec"), {})
    assert "should be near" in capsys.readouterr().out


def test_the_commands_run_one_after_another(tmp_path, monkeypatch):
    """Those of `accelerate launch` as a shell runs them, the others begin with their imports done."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    commands = [shlex.split(line) for block in blocks("bash") for line in block.splitlines()]
    ran = []
    for command in commands:
        script = next(word for word in command if word.startswith("scripts/") and word.endswith(".py"))
        if script == "scripts/demo.py":  # it serves until it is stopped; tests/scripts/test_demo.py visits it
            continue
        if "multi_gpu.yaml" in " ".join(command):  # needs GPUs; its pieces are tested elsewhere
            assert all((ROOT / word).exists() for word in command if word.startswith("scripts/"))
            continue
        # runs/ of the README is a folder of the test; all else is the repository's own, and no command writes there
        assert not any(word.startswith("model_cards") for word in command)
        words = [re.sub("^runs/", f"{tmp_path}/", word) for word in command]
        launcher, *words = *words, *SMALL[script].split()
        if launcher == "python":
            result = run_program(words)
        else:
            launch = [sys.executable, "-m", "accelerate.commands.launch", *words[1:]]
            result = subprocess.run(launch, cwd=ROOT, capture_output=True, text=True, timeout=900)
        assert result.returncode == 0, f"{shlex.join(command)}\n{result.stderr}"
        ran.append(script)
    assert ran == list(SMALL)
    assert {"metrics.json", "error.png", "error.svg"} <= {path.name for path in (tmp_path / "linear").iterdir()}


def test_every_file_it_names_exists():
    tree = README.split("## Where things are")[1].split("## Licence")[0]
    names = re.findall(r"[\w/]+\.py|[\w]+/", tree)
    for name in names:
        assert any(ROOT.rglob(name.rstrip("/"))), name
    assert all((ROOT / path).exists() for path in re.findall(r"\]\((docs/[^)]+)\)", README))


@pytest.mark.parametrize("task", TASKS)
def test_every_task_is_listed(task):
    assert f"`{task}`" in README
