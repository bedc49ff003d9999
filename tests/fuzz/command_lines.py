"""Fields of a training, as flags and as recipes: what was given is what holds, or the field is named."""

import contextlib
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from random import Random
from typing import Any

import yaml

from scripts import train_lm
from scripts.common.fields import read_mapping
from scripts.training import lm_arguments, prompt_arguments
from tests.fuzz.outcome import ODD, ODD_WORDS, Fault, check, describe, some


RIGHT = {"task": "linear_regression", "max_steps": "20", "output_dir": "unused"}
RIGHT_LM = {"train_file": "corpus.txt", "max_steps": "20", "output_dir": "unused"}
NAMES = [item.name for group in fields(prompt_arguments.Arguments) for item in fields(group.type)]
LM_NAMES = [item.name for group in fields(lm_arguments.LMArguments) for item in fields(group.type) if item.init]


def parse(parser: Callable[[Sequence[str]], Any], argv: list[str], names: list[str]) -> Any:
    """The arguments, or `None` where they were refused as they should be: status 2 and a last line that says why."""
    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed), contextlib.redirect_stdout(printed):
            return parser(argv)
    except SystemExit as end:
        check(end.code == 2, f"status {end.code}: {describe(argv)}")
        last = printed.getvalue().strip().splitlines()[-1]
        check(": error: " in last, f"ended with {last!r}: {describe(argv)}")
        shown = [name.replace("_start", "") for name in names] + ["recipe", "unrecognized", "argument"]
        check(any(name in last for name in shown), f"an error that names none of {names}: {last!r}")
        return None
    except Exception as error:
        raise Fault(f"{type(error).__name__}: {error}; {describe(argv)}") from error


def agree(value: Any, word: str) -> bool:
    """Whether a field holds what was written."""
    if isinstance(value, Mapping):
        return value == read_mapping("mapping", word)
    if isinstance(value, bool) or value is None:
        return str(value).lower() == word.strip().lower()
    if isinstance(value, int | float):
        return float(value) == float(word)
    return str(value) == word or str(yaml.safe_load(str(value))) == word


def fuzz_flags(rng: Random) -> str:
    """One command line of train.py or train_lm.py; `"answered"` or `"refused"`."""
    language = rng.random() < 0.3
    parser, right, names = (
        (train_lm.parse_arguments, RIGHT_LM, LM_NAMES)
        if language
        else (prompt_arguments.parse_arguments, RIGHT, NAMES)
    )
    changed = {name: rng.choice(ODD_WORDS) for name in some(rng, names, 3)}
    argv = [word for name, value in (right | changed).items() for word in (f"--{name}", value)]
    if rng.random() < 0.15:
        name = rng.choice(names)
        changed |= {name[:-1] + "x": "3"}
        argv += [f"--{name[:-1]}x", "3"]
    parsed = parse(parser, argv, list(changed))
    if parsed is None:
        return "refused"
    held = parsed.as_dict()
    for name, word in changed.items():
        check(name in held and agree(held[name], word), f"`{name}` became {held.get(name)!r}: {describe(argv)}")
    return "answered"


def fuzz_recipe(rng: Random, folder: Path) -> str:
    """One recipe file; `"answered"` or `"refused"`."""
    changed = {name: rng.choice((*ODD, *ODD_WORDS)) for name in some(rng, NAMES, 2)}
    recipe = RIGHT | {"max_steps": 20} | changed
    text = yaml.safe_dump({name: value for name, value in recipe.items() if not isinstance(value, tuple)})
    spoil = rng.random()
    if spoil < 0.1:
        text = text[: rng.randrange(len(text))]
    elif spoil < 0.2:
        text += f"{rng.choice(NAMES)}: 3\n"
    elif spoil < 0.25:
        text = rng.choice(("", "- a\n", "3", "a: b: c", "\x00", "&a [*a]", "!!python/object:os.system {}"))
    path = folder / "recipe.yaml"
    path.write_text(text)
    parsed = parse(prompt_arguments.parse_arguments, ["--recipe", str(path)], [*changed, *RIGHT, *NAMES])
    if parsed is None:
        return "refused"
    held = parsed.as_dict()
    for name, value in (yaml.safe_load(text) or {}).items():
        check(value is None or agree(held[name], str(value)), f"`{name}` became {held[name]!r}: {text!r}")
    return "answered"
