"""One training run: its steps, reports, evaluations and checkpoints, and the model it leaves."""

import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader
from tqdm import tqdm
from transformers import PreTrainedModel

from modeling_looped_gpt2 import LoopedGPT2Config, LoopedGPT2ForInContextRegression
from scripts.common.model_loading import ModelError, load_model
from scripts.training.arguments import Arguments
from scripts.training.cost import recorded_cost, training_flops
from scripts.training.hints import HintReader
from scripts.training.interruption import SIGNALS, stop_at_once
from scripts.training.optimizers import build_optimizers, set_learning_rates
from scripts.training.run_folder import RunError, RunFolder
from tasks.streams import make_generator


# of a configuration: what a model and the one it starts from have in common
SHARED_FIELDS = (
    *("n_layer", "n_head", "n_embd", "n_inner", "n_dims", "n_prelude", "n_coda", "input_injection"),
    *("activation_function", "layer_norm_epsilon", "scale_attn_weights", "scale_attn_by_inverse_layer_idx"),
)


class StopRequest:
    """Remembers SIGINT or SIGTERM until the processes agree to stop; a second SIGINT ends the program at once."""

    def __init__(self):
        self.received = 0
        for number in SIGNALS:
            signal.signal(number, self._receive)

    def _receive(self, number, frame):
        self.received = number
        signal.signal(signal.SIGINT, stop_at_once)

    def agreed(self, accelerator: Accelerator) -> int:
        """
        The signal that any process was asked to stop with, 0 for none.

        All processes call it at the same step and get the same answer.
        """
        if accelerator.num_processes == 1:
            return self.received
        return int(accelerator.gather(torch.tensor([self.received], device=accelerator.device)).max())


def build_model(arguments: Arguments, goes_on: bool) -> LoopedGPT2ForInContextRegression:
    """
    The model of a run: freshly initialised, or with the weights of `initial_model` unless a checkpoint follows.

    Raises:
        `RunError`: there is no such model, or one that computes something else.
    """
    model = LoopedGPT2ForInContextRegression(arguments.config)
    if arguments.model.initial_model is not None and not goes_on:
        model.load_state_dict(initial_weights(arguments.model.initial_model, arguments.config))
    model.set_attn_implementation(arguments.model.attn_implementation)
    return model


def initial_weights(name: str, config: LoopedGPT2Config) -> dict[str, torch.Tensor]:
    """
    The weights of the model `name`, a folder or Hub repository, for a model of `config`.

    Positions that it lacks repeat its last x and y: a model of 41 points then still solves prompts of 101, if worse.

    Raises:
        `RunError`: there is no such model, or one that computes something else.
    """
    try:
        model = load_model(name)
    except ModelError as error:
        raise RunError(f"`initial_model` cannot be the start of this run: {error}") from None
    own = model.config
    differing = [field for field in SHARED_FIELDS if getattr(own, field) != getattr(config, field)]
    if own.n_positions > config.n_positions:
        differing.append("n_positions")
    if differing:
        pairs = "; ".join(f"`{field}` {getattr(own, field)} -> {getattr(config, field)}" for field in differing)
        raise RunError(f"`initial_model` {name} cannot be the start of this run: it differs ({pairs}).")
    weights = model.state_dict()
    positions = weights["transformer.wpe.weight"]
    missing = config.n_positions - own.n_positions
    if missing > 0:
        # an even number of positions ends with that of a y that no prediction needs, so it was never trained
        tail = positions[-3:-1].repeat(missing // 2 + 1, 1)[: missing + 1]
        weights["transformer.wpe.weight"] = torch.cat((positions[:-1], tail))
    return weights


class Trainer:
    """One run: the prepared model and optimizers, its stream and its folder."""

    auto_class = "AutoModel"  # that loads what the run leaves
    hint_reader = None

    def __init__(self, accelerator: Accelerator, arguments: Arguments, folder: RunFolder):
        self.accelerator, self.arguments, self.folder = accelerator, arguments, folder
        self.stream = arguments.stream
        set_seed(arguments.optimization.seed)
        model = build_model(arguments, goes_on=folder.latest() is not None)
        if self.stream.with_hints:
            self.hint_reader = HintReader(arguments.model.n_embd, self.stream.task.n_hints)
        self.prepare(model)

    @staticmethod
    def cost(arguments: Arguments) -> dict[str, Any]:
        """What a run takes, and what the model took that it starts from, for the record of it."""
        initial_model = arguments.model.initial_model
        initial = recorded_cost(initial_model) if initial_model is not None else None
        return {"flops": training_flops(arguments)} | ({"initial_model": initial} if initial else {})

    def prepare(self, model: PreTrainedModel):
        """Wrap the model and its optimizers for the machine, and take up the run where it stopped."""
        accelerator, optimization = self.accelerator, self.arguments.optimization
        self.average = None
        if optimization.average_decay is not None:
            average = get_ema_multi_avg_fn(optimization.average_decay)
            self.average = AveragedModel(model, accelerator.device, multi_avg_fn=average)
        optimizers = build_optimizers(model, optimization, self.hint_reader)
        if optimization.compile != "no":
            for block in model.transformer.h:  # the blocks alone, so that a new loop count compiles nothing
                block.compile(mode=optimization.compile)
        self.model, *self.optimizers = accelerator.prepare(model, *optimizers)
        if self.hint_reader is not None:
            self.hint_reader = accelerator.prepare(self.hint_reader)
        if self.average is not None:
            # saved as a model, in safetensors: what is registered for checkpointing becomes a pickle that can run code
            accelerator.prepare_model(self.average, evaluation_mode=True)
        self.stop_request = StopRequest()
        self.first_step = self.folder.load(accelerator)
        if accelerator.is_main_process:
            self.folder.truncate_log(self.first_step)

    def train(self) -> int:
        """Run the steps that are left; returns the signal that stopped it before the last one, 0 for none."""
        accelerator, run = self.accelerator, self.arguments.run
        max_steps = self.arguments.optimization.max_steps
        stream = self.stream.iterable(self.first_step, accelerator.process_index, accelerator.num_processes)
        batches = iter(DataLoader(stream, batch_size=None, pin_memory=accelerator.device.type == "cuda"))
        bar = tqdm(
            total=max_steps,
            initial=self.first_step,
            disable=not accelerator.is_main_process,
            mininterval=0.5 if sys.stderr.isatty() else 10,
        )
        reported, reported_at = self.first_step, time.perf_counter()
        health = torch.zeros(4, device=accelerator.device)
        for step in range(self.first_step + 1, max_steps + 1):
            health += self.training_step(step - 1, next(batches))
            bar.update()
            saves = step % run.save_every == 0 or step == max_steps
            reports = saves or step % run.log_every == 0
            # agreeing costs a synchronisation, so several processes do it only where they meet anyway
            stops = self.stop_request.agreed(accelerator) if accelerator.num_processes == 1 or reports else 0
            if reports or stops:
                seconds = (time.perf_counter() - reported_at) / (step - reported)
                self.report(step, health / (step - reported), seconds, bar)
                reported, reported_at = step, time.perf_counter()
                health.zero_()
            if run.eval_every and (step % run.eval_every == 0 or step == max_steps):
                self.evaluate(step)
            if saves or stops:
                self.folder.save(accelerator, step)
            if stops and step < max_steps:
                bar.close()
                accelerator.print(f"Stopped after step {step}, which is saved. The same command goes on from here.")
                return stops
        bar.close()
        return 0

    def training_step(self, index: int, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """One optimizer step on batch `index`; returns the means of `losses` and the gradient norm."""
        accelerator, optimization = self.accelerator, self.arguments.optimization
        n_loops, loop_window = self.arguments.loops.at(index, self.arguments.model.n_loops, optimization.seed)
        set_learning_rates(self.optimizers, index, optimization)

        if optimization.compile == "reduce-overhead":
            torch.compiler.cudagraph_mark_step_begin()
        self.model.train()
        measured = torch.zeros(4, device=accelerator.device)
        n_parts = optimization.gradient_accumulation_steps
        batch = {name: values.to(accelerator.device, non_blocking=True) for name, values in batch.items()}
        parts = {name: values.chunk(n_parts) for name, values in batch.items()}
        for part in range(n_parts):
            prompts = {name: values[part] for name, values in parts.items()}
            with accelerator.accumulate(*filter(None, (self.model, self.hint_reader))):
                loss, means = self.losses(prompts, n_loops=n_loops, loop_window=loop_window)
                accelerator.backward(loss)
                if accelerator.sync_gradients:
                    max_norm = optimization.max_grad_norm or float("inf")
                    measured[-1] = accelerator.clip_grad_norm_(self.model.parameters(), max_norm)
                for optimizer in self.optimizers:
                    optimizer.step()
                    optimizer.zero_grad()
            measured[: len(means)] += means / n_parts
        if self.average is not None:
            self.average.update_parameters(accelerator.unwrap_model(self.model))
        return measured

    def losses(self, prompts: dict[str, torch.Tensor], **loops: int | None) -> tuple[torch.Tensor, torch.Tensor]:
        """The loss of a part of a batch, and the means to log: plain loss, error at the last point, error of hints."""
        hints = prompts.pop("hints", None)
        has_hints = hints is not None
        outputs = self.model(**prompts, **loops, output_loop_predictions=True, output_loop_hidden_states=has_hints)
        # (loops, points): the mean over the prompts alone
        errors = (outputs.loop_predictions.float() - prompts["labels"].unsqueeze(1)).square().mean(dim=0)
        loss, last_error = self.balanced(errors), errors[-1, -1].detach()
        hint_error = torch.zeros_like(last_error)
        if has_hints:
            hint_errors = self.hint_reader(outputs.loop_hidden_states, hints)
            loss = loss + self.arguments.optimization.hint_weight * self.balanced(hint_errors)
            hint_error = hint_errors[-1].mean().detach()
        return loss, torch.stack((outputs.loss.detach(), last_error, hint_error))

    def balanced(self, errors: torch.Tensor) -> torch.Tensor:
        """The mean of errors `(loops, tokens)`, each divided by (its mean over all processes)^`loss_balance`."""
        balance = self.arguments.optimization.loss_balance
        if not balance:
            return errors.mean()
        scale = self.accelerator.reduce(errors.detach(), reduction="mean")
        return (errors / scale.clamp_min(torch.finfo(scale.dtype).tiny) ** balance).mean()

    @property
    def result(self) -> PreTrainedModel:
        """The model that is evaluated and exported: the average of the weights where one is kept."""
        return self.accelerator.unwrap_model(self.model) if self.average is None else self.average.module

    def finite_means(self, step: int, measured: torch.Tensor) -> list[float]:
        """The means over all processes; refuses to go on when one is not finite."""
        means = self.accelerator.reduce(measured, reduction="mean").tolist()
        if not all(map(np.isfinite, means)):
            raise RunError(
                f"the loss or its gradient was not finite in the steps up to {step} (loss {means[0]}, gradient norm "
                f"{means[-1]}); the newest checkpoint before that is {self.folder.latest()}. Lower the learning rate, "
                "lengthen the warm-up or set `mixed_precision` to no, in a new folder."
            )
        return means

    def report(self, step: int, measured: torch.Tensor, seconds: float, bar: tqdm):
        """Log the means since the last report."""
        loss, last_error, hint_error, grad_norm = self.finite_means(step, measured)
        normaliser = self.stream.task.normaliser
        metrics = {
            "step": step,
            "loss": loss,
            "error_at_last_point": last_error / normaliser,
            "grad_norm": grad_norm,
            "learning_rate": self.optimizers[0].param_groups[0]["lr"],
            **self.stream.sizes_at(step - 1),
            "n_loops": self.arguments.n_loops_schedule.at(step - 1),
            "seconds_per_step": seconds,
        }
        if self.hint_reader is not None:
            metrics["hint_error"] = hint_error
        self.write(metrics)
        bar.set_postfix(loss=f"{loss:.3g}", last_error=f"{metrics['error_at_last_point']:.3g}", refresh=False)

    @torch.no_grad()
    def evaluate(self, step: int):
        """Normalised squared error on held-out prompts of full size with the final loop count."""
        task, run = self.stream.task, self.arguments.run
        generator = make_generator("validation", self.arguments.optimization.seed)
        prompts = task.sample(run.n_eval_prompts, generator)
        model = self.result.eval()
        batch_size = self.arguments.optimization.batch_size
        errors = []
        for start in range(0, run.n_eval_prompts, batch_size):
            batch = {k: v[start : start + batch_size].to(self.accelerator.device) for k, v in prompts.items()}
            predictions = model(batch["xs"], batch["ys"]).predictions
            errors.append((predictions.float() - batch["labels"]).square() / task.normaliser)
        error = torch.cat(errors).mean(dim=0).tolist()
        metrics = {"step": step, "eval_error": sum(error) / len(error), "eval_error_at_last_point": error[-1]}
        self.write(metrics)
        if self.accelerator.is_main_process:
            tqdm.write(f"step {step}: held-out error {metrics['eval_error']:.4g}, at the last point {error[-1]:.4g}")

    def write(self, metrics: dict[str, float]):
        """Log one line of metrics, to the folder and to the tracker."""
        if self.accelerator.is_main_process:
            self.folder.log(metrics)
        self.accelerator.log({k: v for k, v in metrics.items() if k != "step"}, step=metrics["step"])

    def export(self):
        """Leave a folder that `AutoModel.from_pretrained(folder, trust_remote_code=True)` loads."""
        is_average = self.average is not None
        state_dict = self.result.state_dict() if is_average else self.accelerator.get_state_dict(self.model)
        if self.accelerator.is_main_process:
            self.folder.finish(lambda path: self.write_model(path, state_dict))

    def write_model(self, path: Path, state_dict: dict[str, torch.Tensor]):
        """Write the files of the result, whose weights are `state_dict`, into a folder."""
        self.result.save_pretrained(path, state_dict=state_dict)
