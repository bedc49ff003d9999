"""The optimizers of a run and their learning rate, a pure function of the step."""

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from modeling_looped_gpt2.plan_looped_gpt2 import PARTS
from scripts.common.devices import has_bfloat16
from scripts.training.argument_groups import OptimizationArguments


class _Float32ForBfloat16(TorchFunctionMode):
    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is torch.Tensor.bfloat16:
            return args[0].clone()
        return function(*args, **(kwargs or {}))


class Muon(torch.optim.Muon):
    """
    `torch.optim.Muon` that orthogonalises in float32 on a CPU, and on a GPU without bfloat16.

    The Newton-Schulz iteration of torch casts to bfloat16. The weights of a run of one process and of one of two are
    then 2e-2 apart after 60 small steps, and 5e-6 in float32. Where a device has no bfloat16, the iteration would take
    several times as long as the training step itself.

    GPT-2 stores its matrices transposed, (in, out), and query, key and value side by side. Muon takes them as they are
    stored: its factor, the root of rows / columns where that is above 1, is 2 for `mlp.c_proj` and 1 for `c_fc`, where
    layers stored as (out, in) have 1 and 2, and the three are orthogonalised as one matrix. The learning rates of the
    recipes belong to these steps. docs/training.md has the errors of both: the other steps are worse at these rates
    and gain nothing at half of them.
    """

    def step(self, closure=None):
        """Take one step, as `torch.optim.Muon.step` does."""
        device = self.param_groups[0]["params"][0].device
        if device.type != "cpu" and has_bfloat16(device):
            return super().step(closure)
        with _Float32ForBfloat16():
            return super().step(closure)


def blocks_of(model: nn.Module) -> list[nn.Module]:
    """The blocks of a model: those of the prelude, of the loop and of the coda."""
    return [block for part in PARTS for block in getattr(model.transformer, part)]


def build_optimizers(
    model: nn.Module, arguments: OptimizationArguments, beside: nn.Module | None = None
) -> list[torch.optim.Optimizer]:
    """
    Return AdamW for all parameters, or Muon for the matrices of the blocks and AdamW for the others.

    The parameters of `beside`, which is no part of the model, are trained by AdamW.

    Weight decay acts on matrices and embeddings, not on biases and norms. Every parameter group carries its peak rate
    as `peak_lr`.
    """
    matrices = set()
    if arguments.optimizer == "muon":
        matrices = {id(p) for block in blocks_of(model) for p in block.parameters() if p.ndim == 2}
    trained = nn.ModuleList(filter(None, (model, beside)))
    others = [p for p in trained.parameters() if id(p) not in matrices]
    groups = [
        {"params": [p for p in others if p.ndim >= 2], "weight_decay": arguments.weight_decay},
        {"params": [p for p in others if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizers: list[torch.optim.Optimizer] = [torch.optim.AdamW(groups, lr=arguments.learning_rate, fused=True)]
    if matrices:
        blocks = [p for p in model.parameters() if id(p) in matrices]
        optimizers.append(Muon(blocks, lr=arguments.muon_learning_rate, weight_decay=arguments.weight_decay))
    for group in (group for optimizer in optimizers for group in optimizer.param_groups):
        group["peak_lr"] = group["lr"]
    return optimizers


def learning_rate_factor(step: int, arguments: OptimizationArguments) -> float:
    """Share of the peak learning rate at `step` (from 0): linear warm-up, constant, linear decay to zero."""
    warmup = min(1.0, (step + 1) / (arguments.warmup_steps + 1))
    decay = min(1.0, (arguments.max_steps - step) / (arguments.decay_steps + 1))
    return warmup * decay


def set_learning_rates(optimizers: list[torch.optim.Optimizer], step: int, arguments: OptimizationArguments):
    """Set every group's learning rate for `step`."""
    factor = learning_rate_factor(step, arguments)
    for group in (group for optimizer in optimizers for group in optimizer.param_groups):
        group["lr"] = group["peak_lr"] * factor
