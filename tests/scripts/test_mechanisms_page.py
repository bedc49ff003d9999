"""docs/mechanisms.md: its commands train, and its table of what excludes what is what configurations refuse."""

import itertools
import re
import shlex
from pathlib import Path

import pytest
import yaml
from huggingface_hub.errors import StrictDataclassError

from modeling_looped_gpt2 import LoopedGPT2Config
from modeling_looped_gpt2.implicit_solvers_looped_gpt2 import SOLVERS
from modeling_looped_gpt2.injections_looped_gpt2 import INJECTIONS
from modeling_looped_gpt2.loop_weights_looped_gpt2 import LOOP_ENCODINGS
from modeling_looped_gpt2.positions_looped_gpt2 import POSITION_EMBEDDINGS


ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "mechanisms.md").read_text()
COMMANDS = re.findall(r"^python (scripts/train\.py .*)$", PAGE, flags=re.MULTILINE)
FIELDS = {
    "input_injection": tuple(INJECTIONS),
    "solver": tuple(SOLVERS),
    "loop_encoding": tuple(LOOP_ENCODINGS),
    "position_embedding": tuple(POSITION_EMBEDDINGS),
    "example_order": ("causal", "set"),
    "adapter_rank": (4,),
    "residual_loops": (True,),
    "exit_gate": (True,),
    "block_loops": ([2],),
    "attention_window": (8,),
    "n_prelude": (1,),
    "n_coda": (1,),
}
# the one of several values of a field that are refused alike which the table names
NAMED = {"damped": "implicit", "share": "step"}


def is_refused(**fields):
    try:
        LoopedGPT2Config(**fields)
    except StrictDataclassError:
        return True
    return False


def test_the_table_has_every_pair_that_is_refused():
    rows = re.findall(r"^\| `(\w+: \w+)` \| `(\w+: \w+)` \|", PAGE, flags=re.MULTILINE)
    told = {frozenset(next(iter(pair.items())) for pair in map(yaml.safe_load, row)) for row in rows}
    default = LoopedGPT2Config()
    values = [(name, value) for name, choices in FIELDS.items() for value in choices]
    found = set()
    for one, other in itertools.combinations(values, 2):
        if one[0] != other[0] and is_refused(**dict((one, other))):
            # a default that excludes something is nothing that is given
            pair = [
                (name, value if isinstance(value, list) else NAMED.get(value, value)) for name, value in (one, other)
            ]
            found.add(frozenset(pair))
    explicit = {pair for pair in found if all(getattr(default, name) != value for name, value in pair)}
    assert explicit == told
    # `residual_loops` excludes solvers by the injection: all but one of them
    assert {
        name for name in INJECTIONS if not is_refused(solver="implicit", residual_loops=True, input_injection=name)
    } == {"gated"}


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: shlex.split(command)[4])
def test_the_commands_train(command, train_here, tmp_path):
    _, recipe, path, folder, name, *flags = shlex.split(command)
    assert (recipe, folder) == ("--recipe", "--output_dir")
    sizes = ["--n_embd", "16", "--n_head", "2", "--batch_size", "4", "--max_steps", "3"]
    sizes += ["--warmup_steps", "0", "--decay_steps", "0"]
    assert train_here(tmp_path / name, *flags, *sizes, recipe=ROOT / path) == 0
    saved = LoopedGPT2Config.from_pretrained(tmp_path / name)
    given = {flag.removeprefix("--"): value for flag, value in zip(flags[::2], flags[1::2], strict=True)}
    of_model = {name: value for name, value in given.items() if hasattr(saved, name)}
    assert of_model
    for name, value in of_model.items():
        assert str(getattr(saved, name)).lower() == value


def test_there_are_commands_and_every_mechanism_has_a_row():
    assert COMMANDS
    for name in FIELDS:
        assert f"`{name}: " in PAGE, name
