"""The code of docs/generation.md runs as it stands; its commands are ones that the programs take."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import GPT2Config, GPT2LMHeadModel

from modeling_looped_gpt2 import LoopedGPT2Config, LoopedGPT2LMHeadModel
from scripts import benchmark_lm, chain_experiment, train_lm
from scripts.training.text_tokenizer import build_tokenizer


ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "generation.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Be in a folder with the models that the page names."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    sizes = {"n_embd": 16, "n_head": 2, "n_positions": 64, "pad_token_id": 0, "initializer_range": 0.1}
    LoopedGPT2LMHeadModel(LoopedGPT2Config(vocab_size=259, n_loops=4, **sizes)).save_pretrained("runs/lm")
    build_tokenizer("bytes", None).save_pretrained("runs/lm")
    gpt2 = GPT2Config(n_layer=12, vocab_size=30, bos_token_id=0, eos_token_id=0, **sizes)
    GPT2LMHeadModel(gpt2).save_pretrained("gpt2")


@pytest.mark.filterwarnings("ignore")  # transformers passes itself arguments that it deprecates
def test_the_python_code_runs(place):
    variables = {}
    for code in blocks("python"):
        exec(compile(code, "generation.md", "exec"), variables)
    assert variables["looped"].config.num_hidden_layers == 4 + 4 * 3 + 4


def test_nothing_is_asked_and_nothing_warned_of_in_a_terminal(place):
    code = blocks("python")[0].split("for n_loops")[0] + "print(tokenizer.decode(prompt['input_ids'][0]))"
    terminal, side = os.openpty()
    with subprocess.Popen([sys.executable, "-c", code], stdin=side, stdout=side, stderr=side) as process:
        os.close(side)
        assert process.wait(timeout=120) == 0
    said = os.read(terminal, 10**6).decode()
    os.close(terminal)
    lines = [line for line in said.splitlines() if line.strip() and "Loading weights" not in line]  # a bar
    assert lines == ["The loop"]


def test_the_commands_are_taken(monkeypatch):
    programs = {program.__name__.split(".")[-1]: program for program in (train_lm, chain_experiment, benchmark_lm)}
    seen = set()
    for line in "".join(blocks("bash")).splitlines():
        words = shlex.split(line)
        place = next(index for index, word in enumerate(words) if word.startswith("scripts/"))
        assert (ROOT / words[place]).exists()
        monkeypatch.setattr(sys, "argv", words[place:])
        seen.add(Path(words[place]).stem)
        programs[Path(words[place]).stem].parse_arguments()
    assert seen == set(programs)


def test_the_pictures_exist():
    assert all((ROOT / "docs" / path).exists() for path in re.findall(r"\]\(([^):]+)\)", PAGE))
