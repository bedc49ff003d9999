"""The folder of a run: whose it is, its checkpoints, written whole or not at all, and checked before they are read."""

import fcntl
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import yaml
from accelerate import Accelerator

from scripts.records import write_atomically


RECIPE_FILE, LOG_FILE, LOCK_FILE, MANIFEST_FILE = "recipe.yaml", "log.jsonl", ".lock", "manifest.json"
ENVIRONMENT_FILE = "environment.json"
WEIGHTS_FILE = "model.safetensors"
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
        checkpoints/step_000100/  the states of `Accelerator.save_state` and a manifest of their checksums

    Args:
        path (`str` or `Path`):
            The folder; made where it does not exist.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.checkpoints = self.path / "checkpoints"

    def claim(self, recipe: dict[str, Any], machine: dict[str, Any]) -> dict[str, Any]:
        """
        Take the folder for the run of `recipe` and return the recipe that holds: the recorded one where it goes on.

        Args:
            recipe (`dict`):
                All fields of the run.
            machine (`dict`):
                What this machine puts for the fields that are `"auto"`; a run that goes on keeps its first choice.

        Raises:
            `RunError`: the folder holds another run or other files, or another process is training in it.
        """
        recipe_path = self.path / RECIPE_FILE
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._refuse_strangers()
            self._lock = (self.path / LOCK_FILE).open("w")
        except OSError as error:
            raise RunError(f"`output_dir` {self.path} cannot be used as a folder: {error}.") from None
        try:  # the kernel releases the lock when the process ends, however it ends
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise RunError(f"another process trains in {self.path}: wait for it or choose another folder.") from None
        if recipe_path.exists():
            return self._continue(recipe, yaml.safe_load(recipe_path.read_text()))
        recipe = recipe | {name: value for name, value in machine.items() if recipe[name] == "auto"}
        write_atomically(recipe_path, yaml.safe_dump(recipe, sort_keys=False))
        return recipe

    def _refuse_strangers(self):
        names = {entry.name for entry in self.path.iterdir()}
        strangers = {name for name in names if not (name.startswith(RECIPE_FILE) and name.endswith(".partial"))}
        if RECIPE_FILE not in names and strangers - {LOCK_FILE}:
            raise RunError(
                f"`output_dir` {self.path} holds files that are not of a run ({', '.join(sorted(names)[:3])}): choose "
                "an empty or new folder. Nothing was changed."
            )

    def _continue(self, recipe: dict[str, Any], recorded: dict[str, Any]) -> dict[str, Any]:
        changed = [
            f"{name} {recorded.get(name)} -> {recipe.get(name)}"
            for name in sorted(recipe.keys() | recorded.keys())
            if name not in FREE_FIELDS and recipe.get(name) not in (recorded.get(name), "auto")
        ]
        if changed:
            raise RunError(
                f"`output_dir` {self.path} holds another run ({'; '.join(changed)}): choose another folder, or start "
                "with the recorded settings to go on. Nothing was changed."
            )
        return recorded | {name: recipe[name] for name in FREE_FIELDS & recipe.keys()}

    def record_environment(self, environment: dict[str, Any], cost: dict[str, Any]):
        """
        Write environment.json: the versions and machine of a run and what it costs.

        Other environments that the steps so far ran in are kept under `earlier`, oldest first.
        """
        path = self.path / ENVIRONMENT_FILE
        earlier = []
        if self.latest() is not None and path.exists():
            record = json.loads(path.read_text())
            before = {name: record.get(name) for name in environment}
            earlier = record.get("earlier", []) + [before] * (before != environment)
        record = environment | cost | ({"earlier": earlier} if earlier else {})
        write_atomically(path, json.dumps(record, indent=2))

    @property
    def is_finished(self) -> bool:
        """Whether the run has left its model."""
        return (self.path / WEIGHTS_FILE).exists()

    def latest(self) -> Path | None:
        """Folder of the newest whole checkpoint, or `None`."""
        found = sorted(self.checkpoints.glob("step_*[0-9]"))
        return found[-1] if found else None

    def save(self, accelerator: Accelerator, step: int):
        """
        Write the states of all processes after `step` steps: into a partial folder first, then renamed as a whole.

        Raises:
            `RunError`: it could not be written, e.g. because the disk is full. The older checkpoints stay.
        """
        target = self.checkpoints / f"step_{step:09d}"
        partial = target.with_suffix(".partial")
        with self._writing(partial, f"the checkpoint of step {step}"):
            if accelerator.is_main_process:
                shutil.rmtree(partial, ignore_errors=True)  # of a run that was killed here
            accelerator.wait_for_everyone()
            accelerator.save_state(str(partial))
            accelerator.wait_for_everyone()
            if accelerator.is_main_process:
                write_atomically(partial / MANIFEST_FILE, json.dumps({"step": step, "sha256": _checksums(partial)}))
                partial.rename(target)
                self._prune()
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
            shutil.rmtree(partial, ignore_errors=True)
            write_model(partial)
            for file in sorted(partial.iterdir(), key=lambda file: file.name == WEIGHTS_FILE):
                file.replace(self.path / file.name)
        partial.rmdir()
        shutil.rmtree(self.checkpoints)

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
            `RunError`: it is damaged; nothing was loaded.
        """
        folder = self.latest()
        if folder is None:
            return 0
        step = self._check(folder)
        accelerator.load_state(str(folder))
        accelerator.wait_for_everyone()
        return step

    def _check(self, folder: Path) -> int:
        try:
            manifest = json.loads((folder / MANIFEST_FILE).read_text())
            damaged = [name for name, digest in manifest["sha256"].items() if _checksum(folder / name) != digest]
            step = manifest["step"]
        except (OSError, ValueError, KeyError) as error:
            damaged, step = [str(error)], 0
        if damaged:
            raise RunError(
                f"checkpoint {folder} is damaged ({', '.join(damaged)}): remove that folder to go on from the one "
                "before it, or from the start."
            )
        return step

    def _prune(self):
        for old in sorted(self.checkpoints.glob("step_*[0-9]"))[:-N_KEPT]:
            shutil.rmtree(old)

    def truncate_log(self, step: int):
        """Drop the log lines of steps after `step`, which the resumed run will write again."""
        log = self.path / LOG_FILE
        if log.exists():
            lines = [line for line in log.read_text().splitlines(keepends=True) if _step_of(line) <= step]
            write_atomically(log, "".join(lines))

    def log(self, metrics: dict[str, Any]):
        """Append one line to the log."""
        with (self.path / LOG_FILE).open("a") as file:
            file.write(json.dumps(metrics) + "\n")


def weights_digest(model: torch.nn.Module) -> str:
    """Sha256 of a model's weights in float32: the same for equal weights, whatever file or device they came from."""
    return state_digest(model.state_dict())


def state_digest(state: dict[str, torch.Tensor]) -> str:
    """As [`weights_digest`], for the weights by name."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(name.encode())
        digest.update(tensor.float().cpu().numpy().tobytes())
    return digest.hexdigest()


def _checksum(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _checksums(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): _checksum(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def _step_of(line: str) -> float:
    try:
        return json.loads(line)["step"]
    except ValueError:  # the process was killed while it wrote this line
        return float("inf")
