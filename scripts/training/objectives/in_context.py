"""Answer at points of a prompt from the examples that it shows."""

from collections.abc import Iterator

import torch
from torch.nn.functional import pad
from transformers import PreTrainedModel

from modeling_looped_gpt2.example_orders_looped_gpt2 import order_of, whole_prompts
from scripts.training.objectives.common import Batch, Objective


def widen(xs: torch.Tensor, model: PreTrainedModel) -> torch.Tensor:
    """
    Add zeros to xs `(B, P, D)` up to the dimensions that the model reads: inactive ones, as those of a curriculum.

    A component of a mixture may have fewer than others. Wider xs are left for the model to refuse.
    """
    n_dims = order_of(model.config).n_columns(model.config) or 0
    return pad(xs, (0, max(0, n_dims - xs.shape[-1])))


class InContext(Objective):
    """
    What the objectives of in-context heads share: a prompt has points xs `(B, P, D)` and their ys.

    Answers are one at every point, from the points before it, whatever the order of the model: examples of a set see
    each other, so a model of sets is asked once for every number of examples. Where prompts are split into examples
    and queries, as their ys are of the first points alone, answers are those of the queries `(B, P - C, ...)`.
    """

    auto_class = "AutoModel"
    answer_columns = ("xs", "ys")

    def answers(
        self, model: PreTrainedModel, prompts: Batch, n_loops: int | None = None, every_loop: bool = False
    ) -> torch.Tensor:
        """As [`Objective.answers`], `(B, P, ...)` or `(B, L, P, ...)`; xs may have fewer dimensions than are read."""
        ask = super().answers
        answers = [ask(model, asked, n_loops, every_loop) for asked in _asked(model, prompts)]
        return torch.cat(answers, dim=2 if every_loop else 1)

    def told(self, model: PreTrainedModel, prompts: Batch, n_loops: int, field: str) -> torch.Tensor:
        """The `field` of what `forward` returns where it answers, `(B, P, ...)`, float32 on the model's device."""
        parts = []
        with torch.no_grad():
            for asked in _asked(model, prompts):
                columns = {name: values.to(model.device) for name, values in self.inputs(asked).items()}
                parts.append(model(**columns, n_loops=n_loops)[field].float())
        return torch.cat(parts, dim=1)


def _asked(model: PreTrainedModel, prompts: Batch) -> Iterator[Batch]:
    """Yield the prompts by which a model is asked at every point: these, or those of a set one after another."""
    prompts = prompts | {"xs": widen(prompts["xs"], model)}
    is_split = prompts["ys"].shape[1] < prompts["xs"].shape[1]
    if is_split or not order_of(model.config).is_split:
        yield prompts
        return
    for xs, ys in whole_prompts(prompts["xs"], prompts["ys"], prompts["xs"]):
        yield {"xs": xs, "ys": ys}
