"""Train an in-context model on an endless stream of prompts.

On one device, from the repository's root:

    accelerate launch scripts/train.py --recipe scripts/recipes/linear_regression.yaml --output_dir runs/linear

On several, with one of the files of scripts/accelerate_configs:

    accelerate launch --config_file scripts/accelerate_configs/multi_gpu.yaml scripts/train.py --recipe ...

Flags win over the recipe. SIGINT and SIGTERM save and end the run, with status 130 and 143; the same command goes on
from the last checkpoint.
"""

import logging
import os
import platform
import sys
from collections.abc import Callable

from scripts.interruption import stop_at_once_on_signals


if __name__ == "__main__":
    stop_at_once_on_signals()  # the imports below take seconds

import accelerate
import datasets
import numpy
import torch
import transformers
from accelerate import Accelerator, PartialState
from accelerate.tracking import get_available_trackers
from accelerate.utils import broadcast_object_list

from modeling_looped_gpt2 import LoopedGPT2ForInContextRegression
from scripts.arguments import Arguments, OptimizationArguments, parse_arguments
from scripts.checkpoints import RunError, RunFolder
from scripts.devices import (
    choices_for,
    keep_freed_memory,
    stop_with_launcher,
    use_all_cores,
    uses_cpu,
)
from scripts.trainer import Trainer


def environment(accelerator: Accelerator) -> dict[str, str | int]:
    """Versions and machine of a run."""
    libraries = (torch, transformers, accelerate, datasets, numpy)
    device = platform.processor() or platform.machine()
    if accelerator.device.type == "cuda":
        device = torch.cuda.get_device_name(accelerator.device)
    return {
        "python": platform.python_version(),
        **{library.__name__: library.__version__ for library in libraries},
        "device": device,
        "threads": torch.get_num_threads(),
        "processes": accelerator.num_processes,
    }


def connect(arguments: Arguments) -> PartialState:
    """Join the processes of the run; raises `RunError` before anything is written."""
    if arguments.model.attn_implementation != "auto":
        try:
            with torch.device("meta"):
                model = LoopedGPT2ForInContextRegression(arguments.config)
            model.set_attn_implementation(arguments.model.attn_implementation)
        except (ValueError, ImportError) as error:
            raise RunError(f"`attn_implementation`: {error}") from None
    trackers = [tracker.value for tracker in get_available_trackers()]
    if arguments.run.log_with not in (None, *trackers):
        raise RunError(f"`log_with` must be an installed tracker, {trackers} here, got {arguments.run.log_with!r}.")
    state = PartialState(cpu=uses_cpu())
    n_launched = int(os.environ.get("WORLD_SIZE", 1))
    if state.num_processes != n_launched:
        raise RunError(f"{n_launched} processes were launched, but this one is connected to {state.num_processes}.")
    n_parts = state.num_processes * arguments.optimization.gradient_accumulation_steps
    if arguments.optimization.batch_size % n_parts:
        raise RunError(
            f"`batch_size` must be a multiple of the processes times `gradient_accumulation_steps`, {n_parts}, got "
            f"{arguments.optimization.batch_size}."
        )
    check_parallelism(arguments.optimization)
    if state.device.type == "cpu":
        use_all_cores(int(os.environ.get("LOCAL_WORLD_SIZE", 1)))
    return state


def check_parallelism(optimization: OptimizationArguments):
    """Raise `RunError` for a setting that the launched kind of parallelism cannot have."""
    if os.environ.get("ACCELERATE_USE_FSDP") != "true":
        return
    for name in ("average_decay", "hint_weight"):
        if getattr(optimization, name, None):
            raise RunError(f"`{name}` needs whole weights on every process, got FSDP: use multi_gpu.yaml.")


def claim(folder: RunFolder, arguments: Arguments, state: PartialState) -> Arguments:
    """Claim the folder by the main process; all processes return the arguments that hold for the run."""
    recipe = [None]
    if state.is_main_process:
        recipe = [folder.claim(arguments.as_dict(), choices_for(state.device))]
    return type(arguments).from_dict(broadcast_object_list(recipe)[0])


def build_accelerator(arguments: Arguments) -> Accelerator:
    """The accelerator of the run, its tracker started."""
    accelerator = Accelerator(
        cpu=uses_cpu(),
        mixed_precision=arguments.optimization.mixed_precision,
        gradient_accumulation_steps=arguments.optimization.gradient_accumulation_steps,
        log_with=arguments.run.log_with,
        project_dir=arguments.run.output_dir,
    )
    accelerator.print(
        f"Training on {accelerator.num_processes} process(es), device {accelerator.device.type}, "
        f"{torch.get_num_threads()} thread(s) each, mixed precision {accelerator.mixed_precision}."
    )
    if arguments.run.log_with:
        settings = {name: value for name, value in arguments.as_dict().items() if value is not None}
        accelerator.init_trackers("looped_gpt2", config=settings)
    return accelerator


def run(arguments: Arguments, claim: Callable = claim, trainer_class: type[Trainer] = Trainer):
    """
    Claim the folder, connect the processes, train and export, and take the connections down.

    A run that a signal stopped ends the program with the shell's status for it, so that no next command takes it for
    finished.
    """
    state = connect(arguments)
    folder = RunFolder(arguments.run.output_dir)
    arguments = claim(folder, arguments, state)
    if folder.is_finished:
        state.print(f"The run in {folder.path} is finished.")
        return
    accelerator = build_accelerator(arguments)
    if accelerator.is_main_process:
        folder.record_environment(environment(accelerator), trainer_class.cost(arguments))
    stopped_by = train(trainer_class(accelerator, arguments, folder))
    accelerator.free_memory()  # PyTorch can hang where a distributed model is freed after its connections
    accelerator.wait_for_everyone()  # no process takes the connections down while another still uses them
    accelerator.end_training()
    if stopped_by:
        sys.exit(128 + stopped_by)


def train(trainer: Trainer) -> int:
    """
    Train from the first step, or the last checkpoint where there is one, and export what has come to its end.

    Returns the signal that stopped it before, 0 for none.
    """
    if trainer.first_step:
        trainer.accelerator.print(f"Going on from step {trainer.first_step}.")
    stopped_by = trainer.train()
    if not stopped_by:
        trainer.export()
        trainer.accelerator.print(f"Finished: {trainer.folder.path} loads with {trainer.auto_class}.from_pretrained.")
    return stopped_by


def main():
    """Parse the command line and run."""
    logging.getLogger("accelerate.checkpointing").setLevel(logging.WARNING)
    arguments = parse_arguments(description=__doc__.splitlines()[0])
    keep_freed_memory()
    stop_with_launcher()
    transformers.logging.disable_progress_bar()
    try:
        run(arguments)
    except (RunError, OSError) as error:
        sys.exit(f"train.py: error: {error}")


if __name__ == "__main__":
    main()
