"""The folder of a run: whose it is, its checkpoints, written whole or not at all, and checked before they are read."""

import fcntl
import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import accelerate
import yaml
from accelerate import Accelerator

from scripts.common.fields import FieldGroups
from scripts.common.records import (
    ENVIRONMENT_FILE,
    LOG_FILE,
    RECIPE_FILE,
    WEIGHTS_FILE,
    RecordError,
    flush_to_disk,
    read_json,
    read_json_lines,
    read_recipe,
    write_atomically,
)


LOCK_FILE, MANIFEST_FILE = ".lock", "manifest.json"
# what a process that was killed leaves half-written: a record, a checkpoint, the model or its tokenizer
PARTIAL = re.compile(
    r"((recipe\.yaml|environment\.json|log\.jsonl)(\.[0-9a-f]{8})?|step_[0-9]{9}|model|tokenizer)\.partial"
)
# settings that may change when a run goes on: none of them reaches the weights
FREE_FIELDS = {"output_dir", "log_every", "eval_every", "n_eval_prompts", "save_every", "log_with"}
# of a language model: its files may have moved; train_lm.py compares what they hold
FREE_FIELDS |= {"train_file", "validation_file", "train_sha256", "validation_sha256"}
N_KEPT = 2


class RunError(RuntimeError):
    """A run cannot start, go on or be saved; the message says why and what to do."""


class RunFolder:
    """
    A run's output folder.

        recipe.yaml               every field of the run as it was resolved
        environment.json          versions and machine it runs on and ran on before, and what it costs
        log.jsonl                 one line of metrics a report
        checkpoints/step_000100/  the states of `Accelerator.save_state`, the recipe, and a manifest of their checksums

    Args:
        path (`str` or `Path`):
            The folder; made where it does not exist.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.checkpoints = self.path / "checkpoints"

    def claim(self, arguments: FieldGroups, machine: dict[str, Any]) -> dict[str, Any]:
        """
        Take the folder for a run and return the recipe that holds: the recorded one where it goes on.

        A folder whose run has not taken a step is free for any other.

        Args:
            arguments ([`FieldGroups`]):
                The run.
            machine (`dict`):
                What this machine puts for the fields that are `"auto"`; a run that goes on keeps its first choice.

        Raises:
            `RunError`: the folder holds another run or other files, or another process is training in it.
        """
        lock_path = self.path / LOCK_FILE
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._refuse_strangers()
            is_new = not lock_path.exists()
            self._lock = lock_path.open("w")
        except OSError as error:
            raise RunError(f"`output_dir` {self.path} cannot be used as a folder: {error}.") from None
        try:  # the kernel releases the lock when the process ends, however it ends
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise RunError(f"another process trains in {self.path}: wait for it or choose another folder.") from None
        recipe = arguments.as_dict()
        goes_on = self.has_steps
        if goes_on:
            try:
                recipe = self._continue(recipe, self._recorded(type(arguments)))
            except RunError:
                if is_new:  # a refusal leaves nothing behind
                    lock_path.unlink()
                raise
        recipe |= {name: value for name, value in machine.items() if recipe[name] == "auto"}
        if not goes_on:
            write_atomically(self.path / RECIPE_FILE, yaml.safe_dump(recipe, sort_keys=False))
        self._clean_up()
        return recipe

    def _refuse_strangers(self):
        names = {entry.name for entry in self.path.iterdir()}
        strangers = {name for name in names if not (name.startswith(RECIPE_FILE) and name.endswith(".partial"))}
        # a recipe without a lock or a step may be what its user wrote
        is_run = RECIPE_FILE in names and (LOCK_FILE in names or self.has_steps)
        if not is_run and strangers - {LOCK_FILE}:
            raise RunError(
                f"`output_dir` {self.path} holds files that are not of a run ({', '.join(sorted(names)[:3])}): choose "
                "an empty or new folder. Nothing was changed."
            )

    def _recorded(self, kind: type[FieldGroups]) -> dict[str, Any]:
        """The recipe of the run so far; what fields it lacks came later and have their defaults."""
        path = self.path / RECIPE_FILE
        try:
            return kind.from_dict(read_recipe(path)).as_dict()
        except RecordError as error:
            raise RunError(str(error)) from None
        except ValueError as error:
            raise RunError(
                f"{path} cannot be used ({error}): go on with the version of this program that wrote it, or choose "
                "another folder. Nothing was changed."
            ) from None

    def _continue(self, recipe: dict[str, Any], recorded: dict[str, Any]) -> dict[str, Any]:
        recipe = {name: recorded.get(name) if value == "auto" else value for name, value in recipe.items()}
        changed = _changes(recorded, recipe)
        if changed:
            shown = "; ".join(changed[:3]) + (f" and {len(changed) - 3} more" if len(changed) > 3 else "")
            raise RunError(
                f"`output_dir` {self.path} holds another run ({shown}): choose another folder, or start with the "
                "recorded settings to go on. Nothing was changed."
            )
        return recorded | {name: recipe[name] for name in FREE_FIELDS & recipe.keys()}

    def _clean_up(self):
        """Remove what an earlier process was killed too early to finish or to remove."""
        for path in [*self.path.iterdir(), *self.checkpoints.glob("*")]:
            if PARTIAL.fullmatch(path.name):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        if self.is_finished:
            with suppress(FileNotFoundError):
                shutil.rmtree(self.checkpoints)

    def record_environment(self, environment: dict[str, Any], cost: Callable[[], dict[str, Any]]):
        """
        Write environment.json: the versions and machine of a run and what it costs.

        Where the run goes on, its recorded cost stays, and so do the other environments that its steps so far ran in:
        under `earlier`, oldest first.

        Args:
            environment (`dict`):
                Versions and machine.
            cost (`Callable`):
                Returns what the whole run costs.

        Raises:
            `RunError`: the record that is there is damaged.
        """
        path = self.path / ENVIRONMENT_FILE
        if self.latest() is None or not path.exists():
            record = environment | cost()
        else:
            try:
                record = read_json(path)
                before = {name: record.get(name) for name in environment}
                earlier = [*record.pop("earlier", []), *([before] if before != environment else [])]
            except (RecordError, TypeError) as error:
                raise RunError(f"{path} is damaged ({error}): restore or remove it to go on.") from None
            record |= environment | ({"earlier": earlier} if earlier else {})
        write_atomically(path, json.dumps(record, indent=2))

    @property
    def is_finished(self) -> bool:
        """Whether the run has left its model."""
        return (self.path / WEIGHTS_FILE).exists()

    @property
    def has_steps(self) -> bool:
        """Whether there is anything of a run that would be lost: a reported step, a checkpoint or its model."""
        log = self.path / LOG_FILE
        return self.is_finished or self.latest() is not None or (log.exists() and log.stat().st_size > 0)

    def latest(self) -> Path | None:
        """Folder of the newest whole checkpoint, or `None`."""
        found = self._whole()
        return found[-1] if found else None

    def _whole(self) -> list[Path]:
        return sorted(self.checkpoints.glob("step_" + "[0-9]" * 9))

    def save(self, accelerator: Accelerator, step: int):
        """
        Write the states of all processes after `step` steps: into a partial folder first, then renamed as a whole.

        Raises:
            `RunError`: it could not be written, e.g. because the disk is full. The older checkpoints stay.
        """
        target = self._checkpoint(step)
        partial = target.with_suffix(".partial")
        with self._writing(partial, f"the checkpoint of step {step}"):
            accelerator.save_state(str(partial))
            accelerator.wait_for_everyone()
            if accelerator.is_main_process:
                shutil.copy(self.path / RECIPE_FILE, partial)
                write_atomically(partial / MANIFEST_FILE, json.dumps({"step": step, "sha256": _checksums(partial)}))
                _flush(partial)
                partial.rename(target)
                flush_to_disk(self.checkpoints)
                for old in self._whole()[:-N_KEPT]:
                    shutil.rmtree(old)
        accelerator.wait_for_everyone()

    def finish(self, write_model: Callable[[Path], None]):
        """
        Put the model's files into the folder, the weights last, and drop the checkpoints. Main process only.

        Args:
            write_model (`Callable`):
                Writes the files into the folder it is given.

        Raises:
            `RunError`: they could not be written. The checkpoints stay.
        """
        partial = self.path / "model.partial"
        with self._writing(partial, "the model"):
            write_model(partial)
            _flush(partial)
            for file in sorted(partial.iterdir(), key=lambda file: file.name == WEIGHTS_FILE):
                file.replace(self.path / file.name)
            flush_to_disk(self.path)
        self._clean_up()

    @contextmanager
    def _writing(self, partial: Path, what: str) -> Iterator[None]:
        """Leave nothing half-written: `partial` is gone where writing into it fails."""
        try:
            yield
        except Exception as error:
            shutil.rmtree(partial, ignore_errors=True)
            raise RunError(
                f"could not save {what} ({error}); the newest whole checkpoint is {self.latest()}. Make room and "
                "start again with the same command to go on from there."
            ) from error

    def load(self, accelerator: Accelerator) -> int:
        """
        Load the newest checkpoint, if there is one, and return the steps already done.

        Raises:
            `RunError`: it is damaged or of another run, or holds more than tensors and numbers; nothing of it was run.
        """
        folder = self.latest()
        if folder is None:
            return 0
        try:
            step = self._check(folder)
            for file in (*folder.glob("*.bin"), *folder.glob("*.pkl")):  # `load_state` passes over bad random states
                accelerate.utils.load(file, map_location="cpu")
            accelerator.load_state(str(folder))
        except RunError:
            raise
        except Exception as error:  # there is no end of what a foreign file can make the libraries raise
            cause = str(error).partition("\n")[0].rstrip(".")
            raise RunError(
                f"checkpoint {folder} is damaged or of another version ({cause}): remove that folder to go on from "
                "the one before it, or from the start."
            ) from None
        accelerator.wait_for_everyone()
        return step

    def _check(self, folder: Path) -> int:
        """The step of a checkpoint; raises unless every file is what was written, for this step and recipe."""
        manifest, found = read_json(folder / MANIFEST_FILE), _checksums(folder)
        named, step = manifest.get("sha256"), manifest.get("step")
        if not isinstance(named, dict):
            raise ValueError(f"{MANIFEST_FILE} names no files")
        wrong = sorted(name for name in found.keys() | named.keys() if found.get(name) != named.get(name))
        if wrong:
            raise ValueError(", ".join(wrong))
        if type(step) is not int or folder != self._checkpoint(step):
            raise ValueError(f"{MANIFEST_FILE} is of step {step!r}")
        if (folder / RECIPE_FILE).exists():  # older versions kept none
            changed = _changes(read_recipe(folder / RECIPE_FILE), read_recipe(self.path / RECIPE_FILE))
            if changed:
                raise RunError(
                    f"{self.path / RECIPE_FILE} was changed after step {step} ({'; '.join(changed)}): restore it from "
                    f"{folder}, or choose another folder."
                )
        if any(folder.glob("custom_checkpoint_*")):
            raise RunError(
                f"checkpoint {folder} is of an older version, which kept the average in a form that can run code: go "
                "on with that version, or start again in another folder."
            )
        return step

    def _checkpoint(self, step: int) -> Path:
        return self.checkpoints / f"step_{step:09d}"

    def truncate_log(self, step: int):
        """
        Drop the log lines of steps after `step`, which the resumed run will write again.

        Raises:
            `RunError`: the log is damaged by more than a last line that the process was killed in.
        """
        log = self.path / LOG_FILE
        if not log.exists():
            return
        try:
            lines = [line for line in read_json_lines(log, may_end_early=True) if line["step"] <= step]
        except (RecordError, LookupError, TypeError) as error:
            raise RunError(f"{log} cannot be used ({error}): restore it, or remove it to go on without it.") from None
        write_atomically(log, "".join(json.dumps(line) + "\n" for line in lines))

    def log(self, metrics: dict[str, Any]):
        """Append one line to the log."""
        with (self.path / LOG_FILE).open("a") as file:
            file.write(json.dumps(metrics) + "\n")


def _checksums(folder: Path) -> dict[str, str]:
    """Sha256 of every file in a checkpoint but its manifest."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path != folder / MANIFEST_FILE]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _flush(folder: Path):
    for path in (*folder.rglob("*"), folder):
        flush_to_disk(path)


def _changes(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """What differs between two recipes and reaches the weights, for a message."""
    names = sorted(before.keys() | after.keys())
    return [
        f"{name} {before.get(name)} -> {after.get(name)}"
        for name in names
        if name not in FREE_FIELDS and before.get(name) != after.get(name)
    ]
