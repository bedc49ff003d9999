"""The trainings of a study: each is a run of train.py in a process of its own, and goes on after an interruption."""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from scripts.common.devices import fastest_attention
from scripts.common.model_loading import load_model
from scripts.common.records import read_recipe
from scripts.training.prompt_arguments import Arguments, parse_arguments
from scripts.training.run_folder import FREE_FIELDS, RunError, RunFolder
from tasks import Task
from tasks.common import Prompts


PROGRAM = Path(__file__).parents[1] / "train.py"
BATCH_SIZE = 64


@dataclass(frozen=True)
class StudyRun:
    """
    One training of a study, and its model.

    Args:
        flags (`Sequence[str]`):
            The flags for train.py.
        arguments ([`Arguments`]):
            The flags as train.py parses them.
    """

    flags: Sequence[str]
    arguments: Arguments

    @classmethod
    def from_recipe(
        cls, recipe: Path, output_dir: Path, overrides: Mapping[str, Any], more: Sequence[str] = ()
    ) -> "StudyRun":
        """
        The run of a recipe with some fields overridden; the flags in `more` override these in turn.

        An override of `None` is the field's default. Ends the program as `parse_arguments` does.
        """
        return cls.from_fields(read_recipe(recipe) | overrides, output_dir, more)

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any], output_dir: Path, more: Sequence[str] = ()) -> "StudyRun":
        """The run of these fields, as `from_recipe`; an `output_dir` among them is left aside."""
        fields = {"output_dir": None, **fields} | {"output_dir": str(output_dir)}
        texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in fields.items()}
        words = [word for name, text in texts.items() if fields[name] is not None for word in (f"--{name}", text)]
        flags = [*words, *more]
        return cls(flags, parse_arguments(flags))

    @property
    def folder(self) -> Path:
        """The folder of the run, and in the end of the model."""
        return Path(self.arguments.run.output_dir)

    @property
    def recipe(self) -> dict[str, Any]:
        """The fields of the training that its weights depend on."""
        return {name: value for name, value in self.arguments.as_dict().items() if name not in FREE_FIELDS}

    @property
    def task(self) -> Task:
        """The task that is learned."""
        return self.arguments.stream.task

    def load_model(self, device: torch.device) -> PreTrainedModel:
        """The trained model."""
        model_class = self.arguments.objective.model_class
        return load_model(self.folder, model_class, attn_implementation=fastest_attention(device)).to(device)

    def answers(
        self, model: PreTrainedModel, prompts: Prompts, n_loops: int | None = None, every_loop: bool = False
    ) -> np.ndarray:
        """Answers as the task's score takes them, `(n_prompts, ...)`, or `(n_prompts, n_loops, ...)` by loop."""
        parts = zip(*(values.split(BATCH_SIZE) for values in prompts.values()), strict=True)
        batches = (dict(zip(prompts, part, strict=True)) for part in parts)
        answers = [self.arguments.objective.answers(model, batch, n_loops, every_loop) for batch in batches]
        return torch.cat(answers).cpu().numpy()


def train(run: StudyRun):
    """Train to the end, from the last checkpoint if there is one; raises `RunError` where the training fails."""
    if RunFolder(run.folder).is_finished:
        return
    result = subprocess.run([sys.executable, str(PROGRAM), *run.flags])
    if result.returncode:
        raise RunError(f"the training in {run.folder} ended with status {result.returncode}")
