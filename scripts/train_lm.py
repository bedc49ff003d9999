"""Train a looped language model on text or JSON lines.

    accelerate launch scripts/train_lm.py --train_file corpus.txt --output_dir runs/lm --max_steps 1000
    accelerate launch scripts/train_lm.py --train_file corpus.jsonl.gz --gpt2 gpt2 --n_prelude 4 ...

Several devices need one of the files of scripts/accelerate_configs, as for scripts/train.py. The same command goes on
from the last checkpoint. In the end the folder holds the model with its code, its tokenizer and log.jsonl.
"""

import logging
import shutil
import sys
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from scripts.training.interruption import stop_at_once_on_signals


if __name__ == "__main__":
    stop_at_once_on_signals()  # the imports below take seconds

import torch
import transformers
from accelerate import Accelerator, PartialState
from accelerate.utils import set_seed
from tqdm import tqdm
from transformers import AutoTokenizer, GPT2LMHeadModel, PreTrainedTokenizerBase

from modeling_looped_gpt2 import LoopedGPT2LMHeadModel
from scripts.common.devices import keep_freed_memory, stop_with_launcher
from scripts.common.model_loading import LOADING_ERRORS, load_model
from scripts.common.records import read_yaml
from scripts.training import launch
from scripts.training.lm_arguments import LMArguments, ModelArguments, TextArguments
from scripts.training.run_folder import RECIPE_FILE, RunError, RunFolder
from scripts.training.text_file import TextFile
from scripts.training.text_stream import TextStream
from scripts.training.text_tokenizer import build_tokenizer, load_tokenizer
from scripts.training.trainer import Trainer


TOKENIZER_FOLDER = "tokenizer"
TEXT_FILES = ("train_file", "validation_file")


def build_model(arguments: LMArguments, tokenizer: PreTrainedTokenizerBase) -> LoopedGPT2LMHeadModel:
    """
    The model of a run: from nothing, from a looped language model or from a GPT-2.

    Raises:
        `ValueError`: there is no such model, or it has fewer tokens than the tokenizer.
    """
    settings = arguments.model
    n_tokens = max(tokenizer.get_vocab().values()) + 1
    tokens = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    if settings.source is None:
        config = arguments.config
        return LoopedGPT2LMHeadModel(type(config)(**(config.to_dict() | tokens | {"vocab_size": n_tokens})))
    model = (
        loop_gpt2(settings) if settings.initial_model is None else load_model(settings.source, LoopedGPT2LMHeadModel)
    )
    if n_tokens > model.config.vocab_size:
        raise ValueError(
            f"`tokenizer` must have at most the {model.config.vocab_size} tokens of {settings.source}, got {n_tokens}."
        )
    model.config.update(tokens | {"n_loops": settings.n_loops})
    model.generation_config.update(**tokens)
    if getattr(model.generation_config, "n_loops", None) is not None:  # it would win over the configuration
        model.generation_config.n_loops = settings.n_loops
    return model


def loop_gpt2(settings: ModelArguments) -> LoopedGPT2LMHeadModel:
    """The looped model of a GPT-2; raises `ValueError` where it cannot be loaded or looped."""
    n_prelude, n_layer = settings.n_prelude, settings.n_layer
    changes = {"n_loops": settings.n_loops, "input_injection": settings.input_injection}
    try:
        loading = {"output_loading_info": True, "ignore_mismatched_sizes": True}
        gpt2, report = GPT2LMHeadModel.from_pretrained(settings.gpt2, dtype=torch.float32, **loading)
        for kind in ("missing_keys", "mismatched_keys"):
            if report[kind]:
                raise ValueError(f"{kind.replace('_', ' ')} {', '.join(sorted(map(str, report[kind]))[:3])}")
        blocks = range(gpt2.config.n_layer)
        parts = {"prelude": blocks[:n_prelude], "loop": blocks[n_prelude:][:n_layer]}
        return LoopedGPT2LMHeadModel.from_gpt2(gpt2, **parts, coda=blocks[n_prelude + n_layer :], **changes)
    except LOADING_ERRORS as error:
        raise ValueError(f"`gpt2` {settings.gpt2} cannot be the start: {error}") from None


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


class LMTrainer(Trainer):
    """One run of a language model: the steps, checkpoints and signals of the in-context trainer on text."""

    auto_class = "AutoModelForCausalLM"

    def __init__(self, accelerator: Accelerator, arguments: LMArguments, folder: RunFolder):
        self.accelerator, self.arguments, self.folder = accelerator, arguments, folder
        self.tokenizer = AutoTokenizer.from_pretrained(folder.path / TOKENIZER_FOLDER)
        self.stream, *others = text_streams(arguments, self.tokenizer)
        self.held_out = [block for stream in others for block in islice(stream.blocks(), arguments.run.n_eval_prompts)]
        set_seed(arguments.optimization.seed)
        model = build_model(arguments, self.tokenizer)
        model.set_attn_implementation(arguments.model.attn_implementation)
        self.prepare(model)

    @staticmethod
    def cost(arguments: LMArguments) -> dict[str, int]:
        """Nothing: what the vocabulary costs is not counted."""
        return {}

    def losses(self, prompts: dict[str, torch.Tensor], **loops: int | None) -> tuple[torch.Tensor, torch.Tensor]:
        """The loss of a part of a batch, and what is logged: the loss and nothing else."""
        loss = self.model(**prompts, **loops, use_cache=False).loss
        return loss, loss.detach().unsqueeze(0)

    def report(self, step: int, measured: torch.Tensor, seconds: float, bar: tqdm):
        """Log the means since the last report."""
        loss, *_, grad_norm = self.finite_means(step, measured)
        n_tokens = self.arguments.optimization.batch_size * self.arguments.text.n_positions
        metrics = {
            "step": step,
            "loss": loss,
            "grad_norm": grad_norm,
            "learning_rate": self.optimizers[0].param_groups[0]["lr"],
            "n_loops": self.arguments.n_loops_schedule.at(step - 1),
            "tokens_per_second": n_tokens / seconds,
        }
        left_out = self.stream.rows_without_text
        counts = {"rows_without_text": left_out} if left_out else {}
        self.write(metrics | counts)
        bar.set_postfix(loss=f"{loss:.3g}", **counts, refresh=False)

    @torch.no_grad()
    def evaluate(self, step: int):
        """Mean loss in nats a token on the held-out text with the final loop count."""
        if not self.held_out:
            return
        model = self.result.eval()
        size, total = self.arguments.optimization.batch_size, 0.0
        for start in range(0, len(self.held_out), size):
            ids = torch.tensor(self.held_out[start : start + size], device=self.accelerator.device)
            total += model(ids, labels=ids, use_cache=False).loss.item() * len(ids)
        loss = total / len(self.held_out)
        self.write({"step": step, "eval_loss": loss})
        if self.accelerator.is_main_process:
            tqdm.write(f"step {step}: held-out loss {loss:.4g} nats a token")

    def write_model(self, path: Path, state_dict: dict[str, torch.Tensor]):
        """Write a model that `AutoModelForCausalLM` and `AutoTokenizer` load into a folder."""
        super().write_model(path, state_dict)
        self.tokenizer.save_pretrained(path)


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


def prepare(folder: RunFolder, arguments: LMArguments) -> PreTrainedTokenizerBase:
    """
    Check all that a run reads, note what its files hold, and return its tokenizer. Writes nothing.

    Raises:
        `ValueError`: something cannot be read, or does not fit the rest.
        `RunError`: the files hold another text than those that the run in the folder was started with.
    """
    files = text_files(arguments.text)
    recorded = read_yaml(folder.path / RECIPE_FILE) if folder.has_steps else {}
    for name, file in files.items():
        digest_name, digest = name.replace("_file", "_sha256"), file.digest()
        if recorded.get(digest_name) not in (None, digest):
            raise RunError(
                f"`{name}` {file.path} holds another text than the run in {folder.path} was started with: give that "
                "text, wherever it lies now, or choose another folder. Nothing was changed."
            )
        setattr(arguments.text, digest_name, digest)
    saved = folder.path / TOKENIZER_FOLDER
    goes_on = folder.has_steps and saved.exists()
    tokenizer = load_tokenizer(str(saved)) if goes_on else choose_tokenizer(arguments, files["train_file"])
    for stream in text_streams(arguments, tokenizer):
        stream.check()
    try:
        build_model(arguments, tokenizer)
    except (RuntimeError, MemoryError) as error:
        raise RunError(f"the model cannot be built here: {error}") from None
    return tokenizer


def claim(folder: RunFolder, arguments: LMArguments, state: PartialState) -> LMArguments:
    """As for an in-context run; the main process checks and reads all that can be before anything is written."""
    tokenizer = None
    if state.is_main_process and not folder.is_finished:
        tokenizer = prepare(folder, arguments)
    arguments = launch.claim(folder, arguments, state)
    saved = folder.path / TOKENIZER_FOLDER
    if tokenizer is not None and not (folder.has_steps and saved.exists()):
        shutil.rmtree(saved, ignore_errors=True)  # of a run that never took a step
        partial = saved.with_suffix(".partial")
        tokenizer.save_pretrained(partial)
        partial.rename(saved)
    state.wait_for_everyone()
    return arguments


def parse_arguments(argv: Sequence[str] | None = None) -> LMArguments:
    """Read the flags; ends the program with status 2 and a message that names the field where one cannot be used."""
    usage = "--train_file FILE --output_dir DIR --max_steps N [--any_field value ...]"
    return LMArguments.parse(argv, usage, __doc__.splitlines()[0])


def main():
    """Parse the command line and run."""
    logging.getLogger("accelerate.checkpointing").setLevel(logging.WARNING)
    # the output layer is tied to the embedding and saved once, which is as it should be
    logging.getLogger("accelerate.utils.other").setLevel(logging.ERROR)
    arguments = parse_arguments()
    keep_freed_memory()
    stop_with_launcher()
    transformers.logging.disable_progress_bar()
    transformers.logging.set_verbosity_error()  # weights that do not fit are one line of ours, not a table
    try:
        launch.run(arguments, claim, LMTrainer)
    except (RunError, OSError, ValueError) as error:
        sys.exit(f"train_lm.py: error: {' '.join(str(error).split())}")


if __name__ == "__main__":
    main()
