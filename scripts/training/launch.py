"""One training from its arguments to its model: processes connected, the folder claimed, trained, exported."""

import json
import logging
import os
import platform
import sys
from collections.abc import Callable

import accelerate
import datasets
import numpy
import torch
import transformers
from accelerate import Accelerator, PartialState
from accelerate.tracking import get_available_trackers
from accelerate.utils import broadcast_object_list

from modeling_looped_gpt2 import LoopedGPT2Model
from scripts.common.devices import choices_for, keep_freed_memory, stop_with_launcher, use_all_cores, uses_cpu
from scripts.common.fields import FieldGroups
from scripts.training.argument_groups import OptimizationArguments
from scripts.training.experiment import Experiment
from scripts.training.memory import check_sizes
from scripts.training.run_folder import RunError, RunFolder
from scripts.training.trainer import Trainer


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


def connect(arguments: FieldGroups) -> PartialState:
    """Join the processes of the run; raises `RunError` before anything is written."""
    check_sizes(arguments)
    if arguments.model.attn_implementation != "auto":
        try:
            with torch.device("meta"):
                model = LoopedGPT2Model(arguments.config, add_token_embedding=False)
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
    """Raise `RunError` for a kind of parallelism whose checkpoints can run code, or that a setting cannot have."""
    for kind in ("DEEPSPEED", "MEGATRON_LM"):
        if os.environ.get(f"ACCELERATE_USE_{kind}") == "true":
            raise RunError(f"{kind} reads checkpoints in a way that can run code: use multi_gpu.yaml or fsdp2.yaml.")
    if os.environ.get("ACCELERATE_USE_FSDP") != "true":
        return
    for name in ("average_decay", "hint_weight"):
        if getattr(optimization, name, None):
            raise RunError(f"`{name}` needs whole weights on every process, got FSDP: use multi_gpu.yaml.")
    if os.environ.get("FSDP_STATE_DICT_TYPE", "FULL_STATE_DICT") != "FULL_STATE_DICT":
        raise RunError("`fsdp_state_dict_type` must be FULL_STATE_DICT: shards are read in a way that can run code.")


def claim(folder: RunFolder, arguments: FieldGroups, state: PartialState, kind: type[Experiment]) -> FieldGroups:
    """
    Check what the run begins with, claim the folder and write the rest of it there, all by the main process.

    All processes return the arguments that hold for the run.
    """
    recipe = [None]
    if state.is_main_process:
        write = (lambda: None) if folder.is_finished else kind.prepare(arguments, folder)
        recipe = [folder.claim(arguments, choices_for(state.device))]
        write()
    return type(arguments).from_dict(broadcast_object_list(recipe)[0])


def build_accelerator(arguments: FieldGroups) -> Accelerator:
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
        # not every tracker takes mappings
        settings |= {name: json.dumps(value) for name, value in settings.items() if isinstance(value, dict)}
        accelerator.init_trackers("looped_gpt2", config=settings)
    return accelerator


def run(arguments: FieldGroups, kind: type[Experiment]):
    """
    Connect the processes, claim the folder, train and export, and take the connections down.

    A run that a signal stopped ends the program with the shell's status for it, so that no next command takes it for
    finished.
    """
    state = connect(arguments)
    folder = RunFolder(arguments.run.output_dir)
    arguments = claim(folder, arguments, state, kind)
    if folder.is_finished:
        state.print(f"The run in {folder.path} is finished.")
        return
    accelerator, experiment = build_accelerator(arguments), kind(arguments, folder)
    if accelerator.is_main_process:
        folder.record_environment(environment(accelerator), experiment.cost)
    try:
        stopped_by = train(Trainer(accelerator, experiment))
    except torch.OutOfMemoryError as error:
        cause = str(error).partition(". ")[0]
        raise RunError(f"{cause}: lower `batch_size`, or raise `gradient_accumulation_steps`.") from None
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
        loader = f"{trainer.objective.auto_class}.from_pretrained"
        trainer.accelerator.print(f"Finished: {trainer.folder.path} loads with {loader}.")
    return stopped_by


def run_program(name: str, parse: Callable[[], FieldGroups], kind: type[Experiment]):
    """
    Be a training program: parse the command line and run; what cannot be done ends it in one line.

    Args:
        name (`str`):
            Of the program, for that line.
        parse (`Callable`):
            Reads the command line, or ends the program.
        kind (`type`):
            The [`Experiment`] that its arguments describe.
    """
    logging.getLogger("accelerate.checkpointing").setLevel(logging.WARNING)
    # an output layer that is tied to the embedding is saved once, which is as it should be
    logging.getLogger("accelerate.utils.other").setLevel(logging.ERROR)
    arguments = parse()
    keep_freed_memory()
    stop_with_launcher()
    transformers.logging.disable_progress_bar()
    transformers.logging.set_verbosity_error()  # weights that do not fit are one line of ours, not a table
    try:
        run(arguments, kind)
    except (RunError, OSError, ValueError) as error:
        sys.exit(f"{name}: error: {' '.join(str(error).split())}")
