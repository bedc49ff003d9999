"""The looped GPT-2 as a learner of functions from the examples in its prompt.

Source: Garg et al., "What Can Transformers Learn In-Context?" (NeurIPS 2022); Yang et al. (ICLR 2024).
"""

from dataclasses import dataclass

import torch
from torch import nn
from transformers import initialization as init
from transformers.cache_utils import Cache
from transformers.processing_utils import Unpack
from transformers.utils import ModelOutput, TransformersKwargs, can_return_tuple
from transformers.utils.generic import maybe_autocast

from .configuration_looped_gpt2 import LoopedGPT2Config
from .example_orders_looped_gpt2 import order_of
from .in_context_looped_gpt2 import LoopedGPT2InContextPreTrainedModel, interleave
from .modeling_looped_gpt2 import LoopedGPT2Model


@dataclass
class LoopedGPT2InContextRegressionOutput(ModelOutput):
    """
    Output of [`LoopedGPT2ForInContextRegression`]. B batch, P points, L loops of the window; y has no fixed unit.

    Where `config.n_outputs` = K > 1, predictions have one more dimension: `(B, P, K)` and `(B, L, P, K)`.

    Args:
        loss (`torch.Tensor` of shape `()`, float32, returned when `labels` is given):
            Squared error, mean over the loops of the window, the points, their K numbers and the batch (Yang et al.,
            eq. 1). With `config.n_quantiles` the pinball loss in the place of the squared error.
        predictions (`torch.Tensor` of shape `(B, P)`):
            Prediction of y at each x after the last loop; prediction i depends on the examples before i only. With
            `config.example_order` "set" those at the P - C queries, `(B, P - C)`, and so on below.
        n_loops_used (`torch.LongTensor` of shape `(B,)`, returned with an `exit_...` or `n_loops` per prompt):
            Loops that each prompt ran.
        loop_predictions (`torch.Tensor` of shape `(B, L, P)`, returned when `output_loop_predictions=True`):
            The same after each loop of the window; the last is `predictions`.
        quantiles (`torch.Tensor` of shape `(B, P, K)`, returned by a model of `config.n_quantiles` = K > 0):
            Quantiles of y at each x after the last loop, in ascending order, at levels (k + 0.5) / K; the mean of
            them is the prediction.
        loop_quantiles (`torch.Tensor` of shape `(B, L, P, K)`, returned by it when `output_loop_predictions=True`):
            The same after each loop of the window.
        loop_hidden_states (`tuple[torch.Tensor]`, returned when `output_loop_hidden_states=True`):
            State `(B, 2 P - 1, E)` at the tokens x_1 y_1 ... x_P after each loop of the window; E is `n_embd`.
            Of a set `(B, P, E)`.
        loop_exit_logits (`torch.Tensor` of shape `(B, L, P)`, returned where loops are looked at):
            By a model with `config.exit_gate`: what its gate says at each x after each loop of the window, float32.
        hidden_states, attentions:
            As in [`LoopedGPT2ModelOutput`].
    """

    loss: torch.Tensor | None = None
    predictions: torch.Tensor | None = None
    n_loops_used: torch.LongTensor | None = None
    loop_predictions: torch.Tensor | None = None
    quantiles: torch.Tensor | None = None
    loop_quantiles: torch.Tensor | None = None
    loop_hidden_states: tuple[torch.Tensor, ...] | None = None
    loop_exit_logits: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


class LoopedGPT2ForInContextRegression(LoopedGPT2InContextPreTrainedModel):
    """
    Looped GPT-2 that learns functions from the examples in its prompt.

    A prompt x_1 y_1 x_2 y_2 ... is read in as one token per value (y padded with zeros to `n_dims`), and the
    prediction of y_i is read out at the token of x_i, so one pass predicts after every number of examples. A y is a
    number, or a vector of `config.n_outputs` numbers where that is > 1.

    With `config.n_quantiles` it answers with quantiles of y, sorted so that none cross, and predicts their mean.
    With `config.example_order` "cells" a token is a cell of the table of points, read in from its value, or 0, and
    whether it is missing; the target cell of an example is read in from its y, that of a query is a learned vector.

    Source: Garg et al., "What Can Transformers Learn In-Context?" (NeurIPS 2022); Yang et al. (ICLR 2024).
    """

    output_class = LoopedGPT2InContextRegressionOutput
    answer_name = "predictions"

    def __init__(self, config: LoopedGPT2Config):
        super().__init__(config)
        order = order_of(config)
        self.read_in = nn.Linear(order.n_features(config), config.n_embd)
        # in a sum with x, what x_1 is read in by would not tell a y from it
        self.read_in_y = nn.Linear(config.n_outputs, config.n_embd) if order.is_split else None
        self.query_cell = order.query_cell(config)
        self.transformer = LoopedGPT2Model(config, add_token_embedding=False)
        self.read_out = nn.Linear(config.n_embd, config.n_quantiles or config.n_outputs)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module):
        super()._init_weights(module)
        if module is self:
            read_ins = (each.weight for each in (self.read_in, self.read_in_y) if each is not None)
            for weight in filter(lambda each: each is not None, (*read_ins, self.query_cell)):
                init.normal_(weight, mean=0.0, std=self.config.read_in_initializer_range)

    @can_return_tuple
    def forward(
        self,
        xs: torch.FloatTensor,
        ys: torch.FloatTensor,
        labels: torch.FloatTensor | None = None,
        n_loops: int | torch.LongTensor | None = None,
        loop_window: int | None = None,
        exit_tolerance: float | None = None,
        exit_probability: float | None = None,
        output_loop_predictions: bool = False,
        output_loop_hidden_states: bool = False,
        **kwargs: Unpack[TransformersKwargs],
    ) -> LoopedGPT2InContextRegressionOutput:
        r"""
        Predict y at every x from the examples before it. B batch, P points, D `config.n_dims`.

        Where `config.n_outputs` = K > 1, ys are `(B, P, K)` or `(B, P - 1, K)`, and labels `(B, P, K)`.

        With `config.example_order` "set" the first C points are the examples and have ys `(B, C)`, C in 0 ... P - 1.
        The others are queries, each of which sees all examples and itself; predictions and labels are theirs, `(B,
        P - C)`. Prompts with other numbers of examples are other calls. With "cells" D is any number, of one call, and
        NaN in xs is a missing value.

        Args:
            xs (`torch.FloatTensor` of shape `(B, P, D)`):
                Inputs, finite, on the scale of the training data (standard normal in this project's tasks).
            ys (`torch.FloatTensor` of shape `(B, P)` or `(B, P - 1)`):
                Values, finite. The value of the last point is never looked at and may be left out: the last x is then
                the query.
            labels (`torch.FloatTensor` of shape `(B, P)`, *optional*):
                What the predictions are scored against; gives the `loss`.
            n_loops (`int` or `torch.LongTensor` of shape `(B,)`, *optional*, defaults to `config.n_loops`):
                Loops of this call, or of each prompt, >= 1.
            loop_window (`int`, *optional*, defaults to `n_loops`):
                Last loops that are scored and carry a gradient, in 1 ... `n_loops` (the paper's T).
            exit_tolerance (`float`, *optional*):
                End the loops of a prompt once its last prediction has settled, that is once a loop changes the state
                at its last x by less than this share of its norm (> 0); at most `n_loops`. Prompts that have ended
                are no longer computed; no prompt depends on another. The queries of a set or a table are judged
                together, by their states as one. Not with `labels`, `output_loop_predictions` or
                `output_loop_hidden_states`, which look at all loops.
            exit_probability (`float`, *optional*):
                End them once the gate of `config.exit_gate` has stopped the prompt with this probability, in (0, 1),
                judged at its last x. Of several `exit_...` the first to come ends a prompt.
            output_loop_predictions (`bool`, defaults to `False`):
                Also return the predictions of each loop of the window.
            output_loop_hidden_states (`bool`, defaults to `False`):
                Also return the states after each loop of the window.

        Raises:
            `ValueError`: a shape, dtype, value, loop count or tolerance is not as above, or the prompt is longer than
                `config.n_positions` tokens, or the answer overflows. Values are looked at only outside training, where
                it costs no time.
            `TypeError`: an argument has another name.
        """
        return self._answer_prompt(
            xs,
            ys,
            labels,
            n_loops,
            loop_window,
            exit_tolerance,
            output_loop_predictions,
            output_loop_hidden_states,
            exit_probability,
            **kwargs,
        )

    def predict_quantiles(self, xs_query: torch.FloatTensor, context: Cache) -> torch.FloatTensor:
        r"""
        Answer queries with the quantiles of y whose mean `predict` answers with. B batch, Q queries, D as there.

        Args:
            xs_query (`torch.FloatTensor` of shape `(B, Q, D)`), context ([`~transformers.Cache`]):
                As in `predict`.

        Returns:
            `torch.FloatTensor` of shape `(B, Q, K)`: the `quantiles` of [`LoopedGPT2InContextRegressionOutput`].

        Raises:
            `ValueError`: as in `predict`, or `config.n_quantiles` is 0.
        """
        if not self.config.n_quantiles:
            raise ValueError("`predict_quantiles` needs a model of quantiles, got `n_quantiles` = 0: use `predict`.")
        self._check_query(xs_query, context)
        return self._ask(xs_query, context, every_loop=False)

    @property
    def _y_shape(self) -> tuple[int, ...]:
        return () if self.config.n_outputs == 1 else (self.config.n_outputs,)

    def _check_ys(self, ys: torch.Tensor):
        self._check_numbers("ys", ys)

    def _check_labels(self, labels: torch.Tensor):
        self._check_numbers("labels", labels)

    def _embed_ys(self, ys: torch.Tensor) -> torch.Tensor:
        ys = ys.to(self.read_in_y.weight.dtype).reshape(*ys.shape[:2], self.config.n_outputs)
        with maybe_autocast(ys.device.type, enabled=False):  # as an x is read in
            return self._check_embeds(self.read_in_y(ys))

    def _embed_examples(self, xs: torch.Tensor, ys: torch.Tensor) -> torch.Tensor:
        dtype, n_dims, n_outputs = self.read_in.weight.dtype, self.config.n_dims, self.config.n_outputs
        ys = ys.to(dtype).reshape(*ys.shape[:2], n_outputs)
        ys = nn.functional.pad(ys, (0, n_dims - n_outputs))  # (B, P, D)
        return self._read_in(interleave(xs.to(dtype), ys))  # a y is read in as an x is

    def _read_out(self, hidden_states: torch.Tensor) -> torch.Tensor:
        # outside autocast for the same reason
        with maybe_autocast(hidden_states.device.type, enabled=False):
            answers = self.read_out(hidden_states.to(self.read_out.weight.dtype))  # (B, P, K)
        if self.config.n_quantiles:
            return answers.sort(dim=-1).values
        return answers.reshape(*answers.shape[:2], *self._y_shape)

    def _answer(self, read: torch.Tensor) -> torch.Tensor:
        return read.mean(dim=-1) if self.config.n_quantiles else read

    def _answer_fields(self, read: torch.Tensor, every_loop: bool) -> dict[str, torch.Tensor | None]:
        fields = super()._answer_fields(read, every_loop)
        if self.config.n_quantiles:
            fields |= {"quantiles": read[:, -1], "loop_quantiles": read if every_loop else None}
        return fields

    def _compute_loss(self, read: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        labels = labels.float().unsqueeze(1)
        if self.config.n_quantiles:
            return pinball_loss(read.float(), labels).mean()
        return (read.float() - labels).square().mean()


def pinball_loss(quantiles: torch.Tensor, ys: torch.Tensor) -> torch.Tensor:
    """
    Return how far quantiles `(..., K)` at the levels (k + 0.5) / K are from ys `(...)`, a mean over the levels q.

    It is q times what a quantile is below y, or 1 - q times what it is above, in units of y.
    Source: Koenker and Bassett, "Regression Quantiles" (Econometrica 1978).
    """
    n_levels = quantiles.shape[-1]
    levels = (torch.arange(n_levels, device=quantiles.device) + 0.5) / n_levels
    below = ys.unsqueeze(-1) - quantiles
    return torch.maximum(levels * below, (levels - 1) * below).mean(dim=-1)


__all__ = ["LoopedGPT2ForInContextRegression"]
