"""One training run: its steps, reports, evaluations and checkpoints, and the model it leaves."""

import signal
import sys
import time
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader
from tqdm import tqdm
from transformers import PreTrainedModel

from scripts.training.experiment import Experiment
from scripts.training.interruption import SIGNALS, stop_at_once
from scripts.training.optimizers import build_optimizers, set_learning_rates
from scripts.training.run_folder import RunError


Means = dict[str, torch.Tensor]


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


class Trainer:
    """
    One run of an [`Experiment`]: its prepared model and optimizers, and its folder.

    Args:
        accelerator ([`~accelerate.Accelerator`]):
            The machine.
        experiment ([`Experiment`]):
            What is trained.
    """

    def __init__(self, accelerator: Accelerator, experiment: Experiment):
        self.accelerator, self.experiment = accelerator, experiment
        self.arguments, self.folder = experiment.arguments, experiment.folder
        set_seed(self.arguments.optimization.seed)
        model = experiment.build_model()
        model.set_attn_implementation(self.arguments.model.attn_implementation)
        self.objective = experiment.build_objective()
        self.prepare(model)

    def prepare(self, model: PreTrainedModel):
        """Wrap the model and its optimizers for the machine, and take up the run where it stopped."""
        accelerator, optimization = self.accelerator, self.arguments.optimization
        self.average = None
        if optimization.average_decay is not None:
            average = get_ema_multi_avg_fn(optimization.average_decay)
            self.average = AveragedModel(model, accelerator.device, multi_avg_fn=average)
        optimizers = build_optimizers(model, optimization, self.objective.module)
        if optimization.compile != "no":
            model.transformer.compile_loops(optimization.compile)
        self.model, *self.optimizers = accelerator.prepare(model, *optimizers)
        if self.objective.module is not None:
            self.objective.module = accelerator.prepare(self.objective.module)
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
        stream = self.experiment.batches(self.first_step, accelerator.process_index, accelerator.num_processes)
        batches = iter(DataLoader(stream, batch_size=None, pin_memory=accelerator.device.type == "cuda"))
        bar = tqdm(
            total=max_steps,
            initial=self.first_step,
            disable=not accelerator.is_main_process,
            mininterval=0.5 if sys.stderr.isatty() else 10,
        )
        reported, reported_at = self.first_step, time.perf_counter()
        health: Means = {}
        for step in range(self.first_step + 1, max_steps + 1):
            health = added(health, self.training_step(step - 1, next(batches)))
            bar.update()
            saves = step % run.save_every == 0 or step == max_steps
            reports = saves or step % run.log_every == 0
            # agreeing costs a synchronisation, so several processes do it only where they meet anyway
            stops = self.stop_request.agreed(accelerator) if accelerator.num_processes == 1 or reports else 0
            if reports or stops:
                n_steps = step - reported
                means = self.finite_means(step, {name: total / n_steps for name, total in health.items()})
                self.report(step, means, (time.perf_counter() - reported_at) / n_steps, bar)
                reported, reported_at = step, time.perf_counter()
                health = {}
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

    def training_step(self, index: int, batch: dict[str, torch.Tensor]) -> Means:
        """One optimizer step on batch `index`; returns the means of the objective and the gradient's norm."""
        accelerator, optimization = self.accelerator, self.arguments.optimization
        loops = self.arguments.loops.at(index, self.arguments.model.n_loops, optimization.seed)
        loops = dict(zip(("n_loops", "loop_window"), loops, strict=True))
        set_learning_rates(self.optimizers, index, optimization)

        if optimization.compile == "reduce-overhead":
            torch.compiler.cudagraph_mark_step_begin()
        self.model.train()
        measured: Means = {}
        n_parts = optimization.gradient_accumulation_steps
        batch = {name: values.to(accelerator.device, non_blocking=True) for name, values in batch.items()}
        parts = {name: values.chunk(n_parts) for name, values in batch.items()}
        for part in range(n_parts):
            with accelerator.accumulate(*filter(None, (self.model, self.objective.module))):
                prompts = {name: values[part] for name, values in parts.items()}
                loss, means = self.objective(self.model, prompts, loops)
                accelerator.backward(loss)
                if accelerator.sync_gradients:
                    max_norm = optimization.max_grad_norm or float("inf")
                    grad_norm = accelerator.clip_grad_norm_(self.model.parameters(), max_norm)
                for optimizer in self.optimizers:
                    optimizer.step()
                    optimizer.zero_grad()
            measured = added(measured, {name: mean / n_parts for name, mean in means.items()})
        if self.average is not None:
            self.average.update_parameters(accelerator.unwrap_model(self.model))
        return {**measured, "grad_norm": grad_norm}

    @property
    def result(self) -> PreTrainedModel:
        """The model that is evaluated and exported: the average of the weights where one is kept."""
        return self.accelerator.unwrap_model(self.model) if self.average is None else self.average.module

    def finite_means(self, step: int, means: Means) -> dict[str, float]:
        """The means over all processes; refuses to go on when one is not finite."""
        values = self.accelerator.reduce(torch.stack(list(means.values())), reduction="mean").tolist()
        found = dict(zip(means, values, strict=True))
        if not all(map(np.isfinite, values)):
            raise RunError(
                f"the loss or its gradient was not finite in the steps up to {step} (loss {found['loss']}, gradient "
                f"norm {found['grad_norm']}); the newest checkpoint before that is {self.folder.latest()}. Lower the "
                "learning rate, lengthen the warm-up or set `mixed_precision` to no, in a new folder."
            )
        return found

    def report(self, step: int, means: dict[str, float], seconds: float, bar: tqdm):
        """Log the means since the last report, over steps of `seconds` each."""
        rates = {"learning_rate": self.optimizers[0].param_groups[0]["lr"]}
        rates["n_loops"] = self.arguments.n_loops_schedule.at(step - 1)
        metrics = {"step": step} | means | rates | self.experiment.report(step - 1, means, seconds)
        self.write(metrics)
        shown = {name: f"{metrics[name]:.3g}" for name in (*means, *self.experiment.shown) if name in metrics}
        bar.set_postfix(shown, refresh=False)

    @torch.no_grad()
    def evaluate(self, step: int):
        """Log what the result has on held-out data, with its final loop count."""
        metrics = self.experiment.evaluate(self.result.eval(), self.objective)
        if metrics:
            self.write({"step": step, **metrics})
            if self.accelerator.is_main_process:
                shown = (
                    f"{name.removeprefix('eval_').replace('_', ' ')} {value:.4g}" for name, value in metrics.items()
                )
                tqdm.write(f"step {step}: held-out {', '.join(shown)}")

    def write(self, metrics: dict[str, float]):
        """Log one line of metrics, to the folder and to the tracker."""
        if self.accelerator.is_main_process:
            self.folder.log(metrics)
        self.accelerator.log({k: v for k, v in metrics.items() if k != "step"}, step=metrics["step"])

    def export(self):
        """Leave a folder that the objective's auto class loads with `trust_remote_code=True`."""
        is_average = self.average is not None
        state_dict = self.result.state_dict() if is_average else self.accelerator.get_state_dict(self.model)
        if self.accelerator.is_main_process:
            self.folder.finish(lambda path: self.write_model(path, state_dict))

    def write_model(self, path: Path, state_dict: dict[str, torch.Tensor]):
        """Write the files of the result, whose weights are `state_dict`, into a folder."""
        self.result.save_pretrained(path, state_dict=state_dict)
        for beside in self.experiment.saved:
            beside.save_pretrained(path)


def added(totals: Means, values: Means) -> Means:
    """The sums of two sets of means, of which the first may still be empty."""
    return {name: totals[name] + value for name, value in values.items()} if totals else values
