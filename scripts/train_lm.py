"""Train a looped language model on text or JSON lines.

    accelerate launch scripts/train_lm.py --train_file corpus.txt --output_dir runs/lm --max_steps 1000
    accelerate launch scripts/train_lm.py --train_file corpus.jsonl --gpt2 gpt2 --tokenizer gpt2 --n_prelude 4 ...

Several devices need one of the files of scripts/accelerate_configs, as for scripts/train.py. The same command goes on
from the last checkpoint. In the end the folder holds the model with its code, its tokenizer and log.jsonl.
"""

import logging
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import transformers
from accelerate import Accelerator, PartialState
from accelerate.utils import set_seed
from huggingface_hub.errors import StrictDataclassError
from tqdm import tqdm
from transformers import AutoTokenizer, GPT2LMHeadModel, HfArgumentParser, PreTrainedTokenizerBase

from modeling_looped_gpt2 import LoopedGPT2Config, LoopedGPT2LMHeadModel
from scripts import train
from scripts.arguments import LoopArguments, OptimizationArguments, RunArguments, described
from scripts.checkpoints import RunError, RunFolder
from scripts.devices import keep_freed_memory, stop_with_launcher
from scripts.text_stream import TextStream, build_tokenizer
from scripts.trainer import Trainer
from tasks.curriculum import Schedule


TOKENIZER_FOLDER = "tokenizer"


@dataclass
class ModelArguments:
    """Architecture and initial weights, as in `LoopedGPT2Config`; with `gpt2` those of a GPT-2."""

    n_layer: int = described(2, "Blocks inside the loop.")
    n_prelude: int = described(0, "Blocks before the loop, with weights of their own.")
    n_coda: int = described(0, "Blocks after the loop, with weights of their own.")
    n_head: int = described(4, "Attention heads.")
    n_embd: int = described(128, "Width, a multiple of n_head.")
    n_loops: int = described(4, "Loops at the end of training and by default afterwards.")
    input_injection: str = described("add", "How the prompt enters every loop: add, multiply or none.")
    initializer_range: float = described(0.1, "Standard deviation of the initial weights, embeddings included.")
    gpt2: str | None = described(
        None,
        "GPT-2 to start from, folder or repository: its first n_prelude and last n_coda blocks run once, others loop.",
    )
    attn_implementation: str = described("auto", "eager, sdpa, ...; auto: eager on a CPU, sdpa on a GPU.")


@dataclass
class TextArguments:
    """The text and its tokens."""

    train_file: str = field(metadata={"help": "Plain text, or JSON lines with one document a line (.json, .jsonl)."})
    validation_file: str | None = described(None, "Held-out text. Default: no evaluation.")
    text_column: str = described("text", "Field of the JSON lines that holds the text.")
    tokenizer: str = described("bytes", "bytes; bpe:N, GPT-2's kind, trained on the file; or a folder or repository.")
    n_positions: int = described(256, "Tokens of a sequence.")


@dataclass
class LMOptimizationArguments(OptimizationArguments):
    """Steps, learning rates and precision."""

    batch_size: int = described(32, "Sequences of an optimizer step, over all processes and accumulation steps.")


GROUPS = (ModelArguments, TextArguments, LoopArguments, LMOptimizationArguments, RunArguments)


@dataclass
class LMArguments:
    """All fields of a run; building it refuses what cannot be trained before anything is read or written."""

    model: ModelArguments
    text: TextArguments
    loops: LoopArguments
    optimization: LMOptimizationArguments
    run: RunArguments

    def __post_init__(self):
        self.loops.check(self.config)
        if self.text.n_positions < 2:
            raise ValueError(f"`n_positions` must be >= 2, got {self.text.n_positions}: the next token is predicted.")

    @property
    def config(self) -> LoopedGPT2Config:
        """Configuration of a model from nothing, but for what depends on the tokenizer."""
        settings = asdict(self.model) | {"n_positions": self.text.n_positions}
        for name in ("gpt2", "attn_implementation"):
            settings.pop(name)
        return LoopedGPT2Config(**settings)

    @property
    def n_loops_schedule(self) -> Schedule:
        """Loops at every step, before any draw."""
        return self.loops.schedule(self.model.n_loops)

    @classmethod
    def from_dict(cls, recipe: dict[str, Any]) -> "LMArguments":
        """The inverse of `as_dict`."""
        return cls(*(group(**{item.name: recipe[item.name] for item in fields(group)}) for group in GROUPS))

    def as_dict(self) -> dict[str, Any]:
        """All fields in one flat mapping."""
        return {name: value for group in vars(self).values() for name, value in asdict(group).items()}


def build_model(arguments: LMArguments, tokenizer: PreTrainedTokenizerBase) -> LoopedGPT2LMHeadModel:
    """The model of a run, from nothing or from a GPT-2."""
    tokens = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    if arguments.model.gpt2 is None:
        config = arguments.config
        return LoopedGPT2LMHeadModel(type(config)(**(config.to_dict() | tokens | {"vocab_size": len(tokenizer)})))
    source = GPT2LMHeadModel.from_pretrained(arguments.model.gpt2)
    n_blocks, n_prelude, n_coda = source.config.n_layer, arguments.model.n_prelude, arguments.model.n_coda
    if n_prelude + n_coda >= n_blocks:
        raise RunError(f"`n_prelude` + `n_coda` must leave some of the {n_blocks} blocks of `gpt2` to the loop.")
    if len(tokenizer) > source.config.vocab_size or arguments.text.n_positions > source.config.n_positions:
        raise RunError(
            f"`gpt2` has {source.config.vocab_size} tokens and {source.config.n_positions} positions, got a tokenizer "
            f"of {len(tokenizer)} and `n_positions` = {arguments.text.n_positions}."
        )
    blocks = list(range(n_blocks))
    parts = {"prelude": blocks[:n_prelude], "loop": blocks[n_prelude : n_blocks - n_coda]}
    changes = {"n_loops": arguments.model.n_loops, "input_injection": arguments.model.input_injection}
    return LoopedGPT2LMHeadModel.from_gpt2(source, **parts, coda=blocks[n_blocks - n_coda :], **changes)


class LMTrainer(Trainer):
    """One run of a language model: the steps, checkpoints and signals of the in-context trainer on text."""

    auto_class = "AutoModelForCausalLM"

    def __init__(self, accelerator: Accelerator, arguments: LMArguments, folder: RunFolder):
        self.accelerator, self.arguments, self.folder = accelerator, arguments, folder
        text, optimization = arguments.text, arguments.optimization
        self.tokenizer = AutoTokenizer.from_pretrained(folder.path / TOKENIZER_FOLDER)
        shared = (text.text_column, self.tokenizer, text.n_positions, optimization.batch_size)
        self.stream = TextStream(Path(text.train_file), *shared, seed=optimization.seed)
        self.held_out = []
        if text.validation_file:
            blocks = TextStream(Path(text.validation_file), *shared, seed=None).blocks()
            self.held_out = list(islice(blocks, arguments.run.n_eval_prompts))
        set_seed(optimization.seed)
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
        self.write(metrics)
        bar.set_postfix(loss=f"{loss:.3g}", refresh=False)

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

    def export(self):
        """Leave a folder that `AutoModelForCausalLM` and `AutoTokenizer` load."""
        if self.accelerator.is_main_process:
            self.tokenizer.save_pretrained(self.folder.path)
        super().export()


def claim(folder: RunFolder, arguments: LMArguments, state: PartialState) -> LMArguments:
    """As for an in-context run; the main process also makes the tokenizer, before anything is written."""
    tokenizer = None
    if state.is_main_process and not (folder.path / TOKENIZER_FOLDER).exists():
        tokenizer = build_tokenizer(
            arguments.text.tokenizer, Path(arguments.text.train_file), arguments.text.text_column
        )
    arguments = train.claim(folder, arguments, state)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder.path / TOKENIZER_FOLDER)
    state.wait_for_everyone()
    return arguments


def parse_arguments(argv: Sequence[str] | None = None) -> LMArguments:
    """Read the flags; ends the program with status 2 and a message that names the field where one cannot be used."""
    parser = HfArgumentParser(GROUPS, description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.usage = "%(prog)s --train_file FILE --output_dir DIR --max_steps N [--any_field value ...]"
    try:
        return LMArguments(*parser.parse_args_into_dataclasses(args=argv))
    except (ValueError, StrictDataclassError) as error:
        parser.error(str(error.__cause__ or error))


def main():
    """Parse the command line and run."""
    logging.getLogger("accelerate.checkpointing").setLevel(logging.WARNING)
    arguments = parse_arguments()
    keep_freed_memory()
    stop_with_launcher()
    transformers.logging.disable_progress_bar()
    try:
        train.run(arguments, claim, LMTrainer)
    except (RunError, OSError, ValueError) as error:
        sys.exit(f"train_lm.py: error: {error}")


if __name__ == "__main__":
    main()
