"""The looped GPT-2 that learns to classify from the labelled examples in its prompt."""

from dataclasses import dataclass

import torch
from torch import nn
from transformers import initialization as init
from transformers.processing_utils import Unpack
from transformers.utils import ModelOutput, TransformersKwargs, can_return_tuple

from .configuration_looped_gpt2 import LoopedGPT2Config
from .example_orders_looped_gpt2 import order_of
from .in_context_looped_gpt2 import LoopedGPT2InContextPreTrainedModel, interleave
from .modeling_looped_gpt2 import LoopedGPT2Model
from .stop_rules_looped_gpt2 import confidence_exit


@dataclass
class LoopedGPT2InContextClassificationOutput(ModelOutput):
    """
    Output of [`LoopedGPT2ForInContextClassification`]. B batch, P points, L loops of the window, C `num_labels`.

    Args:
        loss (`torch.Tensor` of shape `()`, float32, returned when `labels` is given):
            Cross-entropy, mean over the loops of the window, the points and the batch.
        logits (`torch.Tensor` of shape `(B, P, C)`):
            Scores of the classes at each x after the last loop; those of point i depend on the examples before i only.
            With `config.example_order` "set" those at the queries alone, and so on below.
        n_loops_used (`torch.LongTensor` of shape `(B,)`, returned with an `exit_...` or `n_loops` per prompt):
            Loops that each prompt ran.
        loop_logits (`torch.Tensor` of shape `(B, L, P, C)`, returned when `output_loop_logits=True`):
            The same after each loop of the window; the last are `logits`.
        loop_hidden_states (`tuple[torch.Tensor]`, returned when `output_loop_hidden_states=True`):
            State `(B, 2 P - 1, E)` at the tokens x_1 y_1 ... x_P after each loop of the window; E is `n_embd`.
            Of a set `(B, P, E)`.
        loop_exit_logits (`torch.Tensor` of shape `(B, L, P)`, returned where loops are looked at):
            By a model with `config.exit_gate`: what its gate says at each x after each loop of the window, float32.
        hidden_states, attentions:
            As in [`LoopedGPT2ModelOutput`].
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    n_loops_used: torch.LongTensor | None = None
    loop_logits: torch.Tensor | None = None
    loop_hidden_states: tuple[torch.Tensor, ...] | None = None
    loop_exit_logits: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


class LoopedGPT2ForInContextClassification(LoopedGPT2InContextPreTrainedModel):
    """
    Looped GPT-2 that classifies from the examples in its prompt.

    A prompt x_1 y_1 x_2 y_2 ... is read in as one token per value, x linearly and the class y by an embedding, and the
    scores of y_i are read out at the token of x_i. With `config.example_order` "cells" a prompt is a table, as in
    [`LoopedGPT2ForInContextRegression`].

    Args:
        config ([`LoopedGPT2Config`]):
            `config.num_labels` (default 2) is the number of classes, >= 2.

    Source: Yang et al. (ICLR 2024), appendix on OpenML.
    """

    output_class = LoopedGPT2InContextClassificationOutput
    answer_name = "logits"

    def __init__(self, config: LoopedGPT2Config):
        super().__init__(config)
        if config.num_labels < 2:
            raise ValueError(f"`num_labels` must be >= 2, got {config.num_labels}.")
        order = order_of(config)
        self.read_in = nn.Linear(order.n_features(config), config.n_embd)
        self.query_cell = order.query_cell(config)
        self.embed_class = nn.Embedding(config.num_labels, config.n_embd)
        self.transformer = LoopedGPT2Model(config, add_token_embedding=False)
        self.score = nn.Linear(config.n_embd, config.num_labels)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module):
        super()._init_weights(module)
        if module is self:  # neither kind of token must be negligible beside the layer-normalised state
            init.normal_(self.read_in.weight, mean=0.0, std=self.config.read_in_initializer_range)
            init.normal_(self.embed_class.weight, mean=0.0, std=self.config.read_in_initializer_range)
            if self.query_cell is not None:
                init.normal_(self.query_cell, mean=0.0, std=self.config.read_in_initializer_range)

    @can_return_tuple
    def forward(
        self,
        xs: torch.FloatTensor,
        ys: torch.LongTensor,
        labels: torch.LongTensor | None = None,
        n_loops: int | torch.LongTensor | None = None,
        loop_window: int | None = None,
        exit_tolerance: float | None = None,
        exit_confidence: float | None = None,
        exit_probability: float | None = None,
        output_loop_logits: bool = False,
        output_loop_hidden_states: bool = False,
        **kwargs: Unpack[TransformersKwargs],
    ) -> LoopedGPT2InContextClassificationOutput:
        r"""
        Score the classes at every x from the examples before it. B batch, P points, D `config.n_dims`.

        With `config.example_order` "set" the first points, as many as there are ys, are examples and the others
        queries, as in [`LoopedGPT2ForInContextRegression`]; logits and labels are those of the queries. With "cells" D
        is any number, and NaN in xs is a missing value.

        Args:
            xs (`torch.FloatTensor` of shape `(B, P, D)`):
                Inputs, finite, each coordinate best standardised; data of fewer dimensions is padded with zeros.
            ys (`torch.LongTensor` of shape `(B, P)` or `(B, P - 1)`):
                Classes in 0 ... `config.num_labels` - 1. The class of the last point is never looked at.
            labels (`torch.LongTensor` of shape `(B, P)`, *optional*):
                What the scores are judged against; gives the `loss`. -100 leaves a point out.
            n_loops (`int` or `torch.LongTensor` of shape `(B,)`, *optional*, defaults to `config.n_loops`):
                Loops of this call, or of each prompt, >= 1.
            loop_window (`int`, *optional*, defaults to `n_loops`):
                As in [`LoopedGPT2Model`]; the loss looks at the loops of the window.
            exit_tolerance (`float`, *optional*):
                End the loops of a prompt once its last answer has settled, as in
                [`LoopedGPT2ForInContextRegression`]. Not with `labels`, `output_loop_logits` or
                `output_loop_hidden_states`, which look at all loops.
            exit_confidence (`float`, *optional*):
                End them once the likeliest class at the last x has this probability, in (0, 1), in a set or a
                table in the mean over its queries. Not with a coda.
            exit_probability (`float`, *optional*):
                End them once the gate of `config.exit_gate` has stopped the prompt with this probability, in (0, 1),
                judged at its last x. Of several `exit_...` the first to come ends a prompt.
            output_loop_logits (`bool`, defaults to `False`):
                Also return the logits of each loop of the window.
            output_loop_hidden_states (`bool`, defaults to `False`):
                Also return the states after each loop of the window.

        Raises:
            `ValueError`: a shape, dtype, value, loop count or tolerance is not as above, the prompt is longer than
                `config.n_positions` tokens, or the answer overflows. Values are looked at only outside training.
            `TypeError`: an argument has another name.
        """
        return self._answer_prompt(
            xs,
            ys,
            labels,
            n_loops,
            loop_window,
            exit_tolerance,
            output_loop_logits,
            output_loop_hidden_states,
            exit_probability,
            confidence_exit(exit_confidence, self.score, self.config.n_coda),
            **kwargs,
        )

    def _check_ys(self, ys: torch.Tensor):
        self._check_classes("ys", ys)

    def _check_labels(self, labels: torch.Tensor):
        self._check_classes("labels", labels.masked_fill(labels == -100, 0))

    def _check_classes(self, name: str, classes: torch.Tensor):
        if classes.is_floating_point() or classes.dtype == torch.bool:
            raise ValueError(f"`{name}` must hold classes as integers, got {classes.dtype}: convert it by `.long()`.")
        n_labels = self.config.num_labels
        if self._looks_at_values() and ((classes < 0) | (classes >= n_labels)).any():
            raise ValueError(
                f"`{name}` must be in 0 ... `num_labels` - 1 = {n_labels - 1}, got {classes.unique().tolist()}."
            )

    def _embed_ys(self, ys: torch.Tensor) -> torch.Tensor:
        return self.embed_class(ys)

    def _embed_examples(self, xs: torch.Tensor, ys: torch.Tensor) -> torch.Tensor:
        return interleave(self._read_in(xs), self._embed_ys(ys))

    def _read_out(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.score(hidden_states)

    def _compute_loss(self, read: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        labels = labels.unsqueeze(1).expand(read.shape[:3])  # (B, L, P)
        return nn.functional.cross_entropy(read.float().flatten(0, 2), labels.flatten())


__all__ = ["LoopedGPT2ForInContextClassification"]
