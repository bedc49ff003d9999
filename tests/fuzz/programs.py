"""Programs on damaged folders and with odd flags: what they always give, or one line, and every file as it was."""

import contextlib
import importlib
import io
import json
import os
import shutil
import sys
from fnmatch import fnmatch
from pathlib import Path
from random import Random

from tests.fuzz.outcome import ODD, ODD_WORDS, Fault, check, check_message
from tests.fuzz.workspace import COMMANDS, WRITTEN, contents, errors_of, run_program


FOLDERS = {"stages": ("run", "earlier"), "push_to_hub": ("release",), "train": ("half",)}
IN_PROCESS = ("evaluate", "plot", "report", "model_card", "push_to_hub", "stages", "probe", "superposition")


def call(program: str, flags: list[str], folder: Path) -> tuple[int, str]:
    """Status and last line of a program; in this process, where it holds nothing back."""
    if program not in IN_PROCESS:
        result = run_program(program, flags, folder)
        check("Traceback" not in result.stderr, f"{program} {flags}: {result.stderr[-600:]}")
        lines = result.stderr.strip().splitlines() or [""]
        return result.returncode, lines[-1]
    module = importlib.import_module(f"scripts.{program}")
    printed, argv, here = io.StringIO(), sys.argv, Path.cwd()
    sys.argv = [f"{program}.py", *flags]
    os.chdir(folder)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(printed):
            module.main()
    except SystemExit as end:
        text = end.code if isinstance(end.code, str) else printed.getvalue()
        last = text.strip().splitlines()[-1] if text.strip() else ""
        check(not isinstance(end.code, str) or "\n" not in text.strip(), f"{program} {flags}: {text!r}")
        return (1 if isinstance(end.code, str) else end.code or 0), last
    except BaseException as error:
        raise Fault(f"{program} {flags}: {type(error).__name__}: {error}") from error
    finally:
        sys.argv = argv
        os.chdir(here)
    return 0, ""


def damage(rng: Random, path: Path) -> str:
    """Damage a file; returns how."""
    if path.is_symlink():
        kind = rng.choice(("gone", "outside"))
    else:
        kind = rng.choice(("gone", "empty", "cut", "flip", "binary", "folder", "outside", "other", "value", "value"))
    content = b"" if path.is_dir() else path.read_bytes()
    if kind in ("gone", "folder", "outside"):
        path.unlink()
        if kind == "folder":
            path.mkdir()
        if kind == "outside":
            path.symlink_to("/etc/hostname")
    elif kind == "value" and path.suffix == ".json":
        path.write_text(json.dumps(change_value(rng, json.loads(content))))
    elif kind in ("value", "flip") and content:
        place = rng.randrange(len(content))
        path.write_bytes(content[:place] + bytes([content[place] ^ 1 << rng.randrange(8)]) + content[place + 1 :])
    else:
        whole = {"cut": content[: len(content) // 2], "binary": b"\x80\x81\x00" * 9, "other": b'{"a": [1]}'}
        path.write_bytes(whole.get(kind, b""))
    return kind


def change_value(rng: Random, record: object) -> object:
    """Another value somewhere in a record."""
    value = rng.choice([value for value in ODD if isinstance(value, str | int | float | list | dict | None)])
    if isinstance(record, dict) and record and rng.random() < 0.9:
        name = rng.choice(list(record))
        if rng.random() < 0.15:
            return {key: item for key, item in record.items() if key != name}
        return record | {name: change_value(rng, record[name])}
    if isinstance(record, list) and record and rng.random() < 0.5:
        place = rng.randrange(len(record))
        return [*record[:place], change_value(rng, record[place]), *record[place + 1 :]]
    return value


def judge(program: str, flags: list[str], folder: Path, what: str, sound: Path) -> str:
    """Run a program and compare what it left with the run that nobody damaged; `"answered"` or `"refused"`."""
    before = contents(folder)
    status, last = call(program, flags, folder)
    after = contents(folder)

    def is_own(name: str) -> bool:
        in_output = name.startswith(f"{output_of(flags)}/")
        return in_output or any(fnmatch(name, pattern) for pattern in WRITTEN[program])

    for name, content in before.items():
        if status or not is_own(name):
            check(after.get(name) == content, f"{program} changed {name}, status {status}: {what}: {last}")
    if status:
        check_message(last)
        check("error: " in last or "Error" in last, f"ended with {last!r}: {what}")
        new = after.keys() - before.keys()
        check(not new or program == "train", f"{program} refused and wrote {sorted(new)}: {what}")
        return "refused"
    for name in after.keys() - before.keys():
        check(is_own(name), f"{program} wrote {name}: {what}")
    if program == "evaluate" and flags == COMMANDS[program].split():
        check(errors_of(folder / "run") == errors_of(sound), f"other figures: {what}")
    if program == "train" and flags == COMMANDS[program].split():
        check(after["half/model.safetensors"] == (sound / "model.safetensors").read_bytes(), f"other weights: {what}")
    return "answered"


def output_of(flags: list[str]) -> str:
    """The folder that a program is told to write."""
    return next((flags[flags.index(name) + 1] for name in ("--output_dir", "--dry_run") if name in flags), "nowhere")


def fuzz_damaged_folder(rng: Random, workspace: Path, scratch: Path) -> str:
    """One program on folders of which one file is damaged; `"answered"` or `"refused"`."""
    program = rng.choice([name for name in COMMANDS for _ in range(1 if name in ("train", "predict", "probe") else 3)])
    folder = copy_workspace(workspace, scratch)
    below = folder / rng.choice(FOLDERS.get(program, ("run",)))
    files = [path for path in sorted(below.rglob("*")) if path.is_file() or path.is_symlink()]
    files = [
        path for path in files if program == "train" or path.suffix in (".json", ".jsonl", ".yaml", ".safetensors")
    ]
    path = rng.choice([path for path in files if path.name != ".lock"])
    kind = damage(rng, path)
    what = f"{path.relative_to(folder)} {kind}"
    return judge(program, COMMANDS[program].split(), folder, what, workspace / "run")


def fuzz_program_flags(rng: Random, workspace: Path, scratch: Path) -> str:
    """One program with one odd flag; `"answered"` or `"refused"`."""
    program = rng.choice(IN_PROCESS)
    folder = copy_workspace(workspace, scratch)
    flags = COMMANDS[program].split()
    odd = (*ODD_WORDS, "run", "half", "release", "earlier", "recipe.yaml", "run/metrics.json", "nothing", "a/b/c")
    place = rng.choice([place for place, word in enumerate(flags) if not word.startswith("--")])
    name, word = flags[place - 1], rng.choice(odd)
    flags[place] = word
    if name in ("--n_prompts", "--max_loops", "--n_steps", "--batch_size", "--n_prefixes") and len(word) > 6:
        flags[place] = "-5"  # what is only too large is no matter of a check
    if name == "--cache_dir":
        flags[place] = "cache2"
    return judge(program, flags, folder, f"{program} {' '.join(flags)}", workspace / "run")


def copy_workspace(workspace: Path, scratch: Path) -> Path:
    """A copy that may be damaged, in place of the last one."""
    folder = scratch / "work"
    shutil.rmtree(folder, ignore_errors=True)
    return Path(shutil.copytree(workspace, folder, symlinks=True))
