"""What all objectives share."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.utils import ModelOutput

from modeling_looped_gpt2.loop_weights_looped_gpt2 import depends_on_n_loops


Batch = Mapping[str, torch.Tensor]
Means = dict[str, torch.Tensor]


@dataclass
class Objective:
    """
    How a model is trained on batches of prompts, and how its answers are read.

    A subclass is one file and an entry of [`scripts.training.objectives.OBJECTIVES`]; its fields are its settings.

    Class attributes:
        model_class (`type`):
            The [`~transformers.PreTrainedModel`] that is trained.
        auto_class (`str`):
            What loads it from its folder: `"AutoModel"` or `"AutoModelForCausalLM"`.
        answer_columns (`tuple[str]`):
            The columns of a batch that `forward` needs to answer.
        loop_answers (`str`):
            The field of `forward`'s output that holds the answers after every loop, on `output_<field>=True`.
        optional_columns (`tuple[str]`):
            Those that it reads where a batch has them.
        scores_all_loops (`bool`):
            Whether a call without a `loop_window` scores every loop; else it scores the last alone.
    """

    model_class: ClassVar[type[PreTrainedModel]]
    auto_class: ClassVar[str]
    answer_columns: ClassVar[tuple[str, ...]]
    loop_answers: ClassVar[str] = "loop_logits"
    optional_columns: ClassVar[tuple[str, ...]] = ()
    scores_all_loops: ClassVar[bool] = True
    # trained beside the model and left behind
    module: ClassVar[nn.Module | None] = None

    def __call__(self, model: nn.Module, batch: Batch, loops: Mapping[str, int | None]) -> tuple[torch.Tensor, Means]:
        """
        Run the model on a batch.

        Args:
            model (`nn.Module`):
                A `model_class`, or what a machine wraps it in.
            batch (`Mapping[str, torch.Tensor]`):
                The columns of a batch, on the device of the model.
            loops (`Mapping[str, int]`):
                `n_loops` and `loop_window` of `forward`.

        Returns:
            The loss of shape `()`, and by name what is logged, each a detached mean over the batch of shape `()`;
            `loss` is the first.
        """
        return self.losses(model(**self.arguments(batch), **loops), batch)

    def arguments(self, batch: Batch) -> dict[str, Any]:
        """The arguments of `forward` that a batch is trained with, but for its loops."""
        raise NotImplementedError(f"{type(self).__name__} must define `arguments`.")

    def inputs(self, batch: Batch) -> Batch:
        """The columns of a batch that `forward` reads to answer."""
        optional = (name for name in self.optional_columns if name in batch)
        return {name: batch[name] for name in (*self.answer_columns, *optional)}

    def losses(self, outputs: ModelOutput, batch: Batch) -> tuple[torch.Tensor, Means]:
        """The loss and the means of what `forward` returned, as the objective returns them."""
        return outputs.loss, {"loss": outputs.loss.detach()}

    def errors(self, outputs: ModelOutput, batch: Batch) -> tuple[torch.Tensor, torch.BoolTensor]:
        """
        The error `(B, L, P)` of every prompt, loop and place, and the places `(B, P)` that are scored.

        `outputs` are those of a call of `forward` with `arguments` and `output_loop_<answers>=True`.
        """
        raise NotImplementedError(f"{type(self).__name__} must define `errors`.")

    def mean_of(self, errors: torch.Tensor) -> torch.Tensor:
        """The loss `()` of errors `(L, ...)`, each a mean over the prompts of the batch, after L loops."""
        return errors.mean()

    def answers(
        self, model: PreTrainedModel, prompts: Batch, n_loops: int | None = None, every_loop: bool = False
    ) -> torch.Tensor:
        """
        Answer prompts, as `Task.score` takes it.

        Args:
            model ([`~transformers.PreTrainedModel`]):
                A `model_class`, in evaluation mode.
            prompts (`Mapping[str, torch.Tensor]`):
                One batch of B prompts, on any device; what `forward` is not to see is left out.
            n_loops (`int`, *optional*, defaults to that of the model):
                Loops L, >= 1.
            every_loop (`bool`, defaults to `False`):
                Answer after every loop instead of the last alone, as a call of so many loops does.

        Returns:
            `torch.Tensor` of shape `(B, ...)` on the model's device, or `(B, L, ...)` after every loop.
        """
        columns = {name: values.to(model.device) for name, values in self.inputs(prompts).items()}
        with torch.no_grad():
            if every_loop and depends_on_n_loops(model.config):
                numbers = range(1, 1 + (n_loops or model.config.n_loops))
                return torch.stack([self.read(model, columns, number, False) for number in numbers], dim=1)
            return self.read(model, columns, n_loops, every_loop)

    def read(self, model: PreTrainedModel, columns: Batch, n_loops: int | None, every_loop: bool) -> torch.Tensor:
        """As [`answers`], from the `answer_columns` on the model's device."""
        raise NotImplementedError(f"{type(self).__name__} must define `read`.")


def cross_entropies(loop_logits: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.BoolTensor]:
    """The nats `(B, L, P)` of logits `(B, L, P, C)` by labels `(B, P)`, and the labels that are not -100."""
    targets = labels.unsqueeze(1).expand(loop_logits.shape[:3])
    nats = nn.functional.cross_entropy(loop_logits.float().movedim(-1, 1), targets, reduction="none")
    return nats, labels != -100
