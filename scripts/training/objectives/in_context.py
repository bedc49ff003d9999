"""Answer at points of a prompt from the examples that it shows."""

import torch
from transformers import PreTrainedModel

from modeling_looped_gpt2.example_orders_looped_gpt2 import order_of, whole_prompts
from scripts.training.objectives.common import Batch, Objective


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
        """As [`Objective.answers`], `(B, P, ...)` or `(B, L, P, ...)`."""
        is_split = prompts["ys"].shape[1] < prompts["xs"].shape[1]
        if is_split or not order_of(model.config).is_split:
            return super().answers(model, prompts, n_loops, every_loop)
        parts = whole_prompts(prompts["xs"], prompts["ys"], prompts["xs"])
        ask = super().answers
        answers = [ask(model, {"xs": xs, "ys": ys}, n_loops, every_loop) for xs, ys in parts]
        return torch.cat(answers, dim=2 if every_loop else 1)
