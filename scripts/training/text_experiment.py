"""Training on text: a language model, its tokenizer and its files."""

import shutil
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import torch
from torch.utils.data import IterableDataset
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from scripts.common.records import read_yaml
from scripts.training.experiment import Experiment
from scripts.training.language_model import build_model
from scripts.training.lm_arguments import LMArguments, TextArguments
from scripts.training.objectives import NextToken, Objective
from scripts.training.run_folder import RECIPE_FILE, RunError, RunFolder
from scripts.training.text_file import TextFile
from scripts.training.text_stream import TextStream
from scripts.training.text_tokenizer import build_tokenizer, load_tokenizer


TOKENIZER_FOLDER = "tokenizer"
TEXT_FILES = ("train_file", "validation_file")


class TextExperiment(Experiment):
    """Text read in random order and a language model judged by its loss on held-out text, in nats a token."""

    arguments: LMArguments
    shown = ("rows_without_text",)

    def __init__(self, arguments: LMArguments, folder: RunFolder):
        super().__init__(arguments, folder)
        self.tokenizer = AutoTokenizer.from_pretrained(folder.path / TOKENIZER_FOLDER)
        self.saved = (self.tokenizer,)
        self.stream, *others = text_streams(arguments, self.tokenizer)
        self.held_out = [block for stream in others for block in islice(stream.blocks(), arguments.run.n_eval_prompts)]

    @staticmethod
    def prepare(arguments: LMArguments, folder: RunFolder) -> Callable[[], None]:
        """
        Check all that the run reads, and note what its files hold; the tokenizer is what is left to write.

        Raises:
            `ValueError`: something cannot be read, or does not fit the rest.
            `RunError`: the files hold another text than those that the run in the folder was started with.
        """
        files = text_files(arguments.text)
        note_digests(arguments.text, files, folder)
        saved = folder.path / TOKENIZER_FOLDER
        goes_on = folder.has_steps and saved.exists()
        tokenizer = load_tokenizer(str(saved)) if goes_on else choose_tokenizer(arguments, files["train_file"])
        for stream in text_streams(arguments, tokenizer):
            stream.check()
        try:
            build_model(arguments, tokenizer)
        except (RuntimeError, MemoryError) as error:
            raise RunError(f"the model cannot be built here: {error}") from None

        def write():
            if not goes_on:
                shutil.rmtree(saved, ignore_errors=True)  # of a run that never took a step
                partial = saved.with_suffix(".partial")
                tokenizer.save_pretrained(partial)
                partial.rename(saved)

        return write

    def batches(self, start: int, rank: int, world_size: int) -> IterableDataset:
        """Blocks of the training text."""
        return self.stream.iterable(start, rank, world_size)

    def build_model(self) -> PreTrainedModel:
        """From nothing, from a looped language model or from a GPT-2."""
        return build_model(self.arguments, self.tokenizer)

    def build_objective(self) -> Objective:
        """To predict the next token, with the gate of the model where it has one."""
        return self.gated(NextToken())

    def report(self, index: int, means: dict[str, float], seconds: float) -> dict[str, float]:
        """The speed, and how many rows of the file were left out."""
        n_tokens = self.arguments.optimization.batch_size * self.arguments.text.n_positions
        left_out = self.stream.rows_without_text
        return {"tokens_per_second": n_tokens / seconds} | ({"rows_without_text": left_out} if left_out else {})

    def evaluate(self, model: PreTrainedModel, objective: Objective) -> dict[str, float]:
        """The mean loss with the final loop count."""
        if not self.held_out:
            return {}
        size, total = self.arguments.optimization.batch_size, 0.0
        for start in range(0, len(self.held_out), size):
            ids = torch.tensor(self.held_out[start : start + size], device=model.device)
            _, means = objective(model, {"input_ids": ids, "labels": ids}, {})
            total += means["loss"].item() * len(ids)
        return {"eval_loss": total / len(self.held_out)}


def choose_tokenizer(arguments: LMArguments, file: TextFile) -> PreTrainedTokenizerBase:
    """
    The tokenizer of a new run; raises `ValueError` where there is none or the model to start from has another.

    Args:
        arguments (`LMArguments`):
            Of the run.
        file (`TextFile`):
            The text that one may be trained on.
    """
    name, source = arguments.text.tokenizer, arguments.model.source
    if source is None:
        return build_tokenizer(name, file)
    try:
        tokenizer = load_tokenizer(source)
    except ValueError as error:
        if name is None:
            raise ValueError(f"{error} Give one as `tokenizer`.") from None
        return build_tokenizer(name, file)
    if name is not None and build_tokenizer(name, file).get_vocab() != tokenizer.get_vocab():
        raise ValueError(f"`tokenizer` must be left out or be that of {source}, got {name}, which has other tokens.")
    return tokenizer


def text_streams(arguments: LMArguments, tokenizer: PreTrainedTokenizerBase) -> list[TextStream]:
    """The training text in random order and the held-out one, if any, as it stands."""
    text, optimization = arguments.text, arguments.optimization
    return [
        TextStream(
            file,
            tokenizer,
            n_tokens=text.n_positions,
            batch_size=optimization.batch_size,
            seed=optimization.seed if name == "train_file" else None,
        )
        for name, file in text_files(text).items()
    ]


def text_files(text: TextArguments) -> dict[str, TextFile]:
    """The files of a run by their fields; raises `ValueError` where one cannot be read as text."""
    files = {}
    for name in TEXT_FILES:
        if getattr(text, name) is not None:
            try:
                files[name] = TextFile(Path(getattr(text, name)), text.text_column)
            except ValueError as error:
                raise ValueError(f"`{name}` {error}") from None
    return files


def note_digests(text: TextArguments, files: dict[str, TextFile], folder: RunFolder):
    """Record what the files hold; raises `RunError` where the run in the folder was started with another text."""
    recorded = read_yaml(folder.path / RECIPE_FILE) if folder.has_steps else {}
    for name, file in files.items():
        digest_name, digest = name.replace("_file", "_sha256"), file.digest()
        if recorded.get(digest_name) not in (None, digest):
            raise RunError(
                f"`{name}` {file.path} holds another text than the run in {folder.path} was started with: give that "
                "text, wherever it lies now, or choose another folder. Nothing was changed."
            )
        setattr(text, digest_name, digest)
