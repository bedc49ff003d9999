"""The looped GPT-2 as a learner of functions from the examples in its prompt.

Source: Garg et al., "What Can Transformers Learn In-Context?" (NeurIPS 2022); Yang et al. (ICLR 2024).
"""

from dataclasses import dataclass

import torch
from torch import nn
from transformers import initialization as init
from transformers.cache_utils import Cache
from transformers.masking_utils import create_causal_mask
from transformers.processing_utils import Unpack
from transformers.utils import ModelOutput, TransformersKwargs, can_return_tuple
from transformers.utils.generic import maybe_autocast

from .cache_looped_gpt2 import freeze
from .configuration_looped_gpt2 import LoopedGPT2Config
from .modeling_looped_gpt2 import LoopedGPT2Model, LoopedGPT2PreTrainedModel


# queries that are run together: attention among them costs their square, and none of it is looked at
QUERIES_AT_A_TIME = 256


@dataclass
class LoopedGPT2InContextRegressionOutput(ModelOutput):
    """
    Output of [`LoopedGPT2ForInContextRegression`]. B batch, P points, L loops of the window; y has no fixed unit.

    Args:
        loss (`torch.Tensor` of shape `()`, float32, returned when `labels` is given):
            Squared error, mean over the loops of the window, the points and the batch (Yang et al., eq. 1).
        predictions (`torch.Tensor` of shape `(B, P)`):
            Prediction of y at each x after the last loop; prediction i depends on the examples before i only.
        n_loops_used (`torch.LongTensor` of shape `(B,)`, returned when `exit_tolerance` is given):
            Loops that each prompt ran.
        loop_predictions (`torch.Tensor` of shape `(B, L, P)`, returned when `output_loop_predictions=True`):
            The same after each loop of the window; the last is `predictions`.
        hidden_states, attentions:
            As in [`LoopedGPT2ModelOutput`].
    """

    loss: torch.Tensor | None = None
    predictions: torch.Tensor | None = None
    n_loops_used: torch.LongTensor | None = None
    loop_predictions: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


class LoopedGPT2ForInContextRegression(LoopedGPT2PreTrainedModel):
    """
    Looped GPT-2 that learns functions from the examples in its prompt.

    A prompt x_1 y_1 x_2 y_2 ... is read in as one token a value (y padded with zeros to `n_dims`), and the prediction
    of y_i is read out at the token of x_i, so one pass predicts after every number of examples.

    Source: Garg et al., "What Can Transformers Learn In-Context?" (NeurIPS 2022); Yang et al. (ICLR 2024).
    """

    main_input_name = "xs"
    # the loss is a mean over the batch, not a sum to be divided by the Trainer's `num_items_in_batch`
    accepts_loss_kwargs = False

    def __init__(self, config: LoopedGPT2Config):
        super().__init__(config)
        self.read_in = nn.Linear(config.n_dims, config.n_embd)
        self.transformer = LoopedGPT2Model(config, add_token_embedding=False)
        self.read_out = nn.Linear(config.n_embd, 1)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module):
        super()._init_weights(module)
        if module is self:
            init.normal_(self.read_in.weight, mean=0.0, std=self.config.read_in_initializer_range)

    @can_return_tuple
    def forward(
        self,
        xs: torch.FloatTensor,
        ys: torch.FloatTensor,
        labels: torch.FloatTensor | None = None,
        n_loops: int | None = None,
        loop_window: int | None = None,
        exit_tolerance: float | None = None,
        output_loop_predictions: bool = False,
        **kwargs: Unpack[TransformersKwargs],
    ) -> LoopedGPT2InContextRegressionOutput:
        r"""
        Predict y at every x from the examples before it. B batch, P points, D `config.n_dims`.

        Args:
            xs (`torch.FloatTensor` of shape `(B, P, D)`):
                Inputs, finite, on the scale of the training data (standard normal in this project's tasks).
            ys (`torch.FloatTensor` of shape `(B, P)` or `(B, P - 1)`):
                Values, finite. The value of the last point is never looked at and may be left out: the last x is then
                the query.
            labels (`torch.FloatTensor` of shape `(B, P)`, *optional*):
                What the predictions are scored against; gives the `loss`.
            n_loops (`int`, *optional*, defaults to `config.n_loops`):
                Loops of this call, >= 1.
            loop_window (`int`, *optional*, defaults to `n_loops`):
                Last loops that are scored and carry a gradient, in 1 ... `n_loops` (the paper's T).
            exit_tolerance (`float`, *optional*):
                End the loops of a prompt once its last prediction has settled, that is once a loop changes the state
                at its last x by less than this share of its norm (> 0); at most `n_loops`. Prompts that have ended
                are no longer computed; no prompt depends on another. Not with `labels` or
                `output_loop_predictions`, which look at all loops.
            output_loop_predictions (`bool`, defaults to `False`):
                Also return the predictions of each loop of the window.

        Raises:
            `ValueError`: a shape, dtype, value, loop count or tolerance is not as above, or the prompt is longer than
                `config.n_positions` tokens. Values are looked at only outside training, where it costs no time.
        """
        self._check_prompt(xs, ys, labels)
        # the last y has no one to see it
        tokens = _interleave(xs, nn.functional.pad(ys[:, : xs.shape[1] - 1], (0, 1)))[:, :-1]
        all_loops = output_loop_predictions or labels is not None
        if exit_tolerance is not None and all_loops:
            raise ValueError("`labels` and `output_loop_predictions` look at all loops: leave out `exit_tolerance`.")
        outputs = self.transformer(
            inputs_embeds=self._read_in(tokens),
            n_loops=n_loops,
            loop_window=loop_window,
            exit_tolerance=exit_tolerance,
            use_cache=False,
            output_loop_hidden_states=all_loops,
            **kwargs,
        )
        states = outputs.loop_hidden_states if all_loops else (outputs.last_hidden_state,)
        loop_predictions = torch.stack([self._read_out(state[:, ::2]) for state in states], dim=1)

        loss = None
        if labels is not None:
            loss = (loop_predictions.float() - labels.float().unsqueeze(1)).square().mean()
        return LoopedGPT2InContextRegressionOutput(
            loss=loss,
            predictions=loop_predictions[:, -1],
            n_loops_used=outputs.n_loops_used,
            loop_predictions=loop_predictions if output_loop_predictions else None,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )

    def encode_context(
        self,
        xs: torch.FloatTensor,
        ys: torch.FloatTensor,
        n_loops: int | None = None,
        context: Cache | None = None,
    ) -> Cache:
        r"""
        Run examples once and keep their keys and values, for any number of queries and of examples to come.

        Examples do not see what comes after them, so a context is the same whatever is asked of it, and one more
        example costs two tokens. B batch, P examples, D `config.n_dims`.

        Args:
            xs (`torch.FloatTensor` of shape `(B, P, D)`), ys (`torch.FloatTensor` of shape `(B, P)`):
                Examples, finite, P >= 1.
            n_loops (`int`, *optional*, defaults to that of `context` or else to `config.n_loops`):
                Loops of the context and of every query to it, >= 1.
            context ([`~transformers.Cache`], *optional*):
                A context of as many loops that the examples are added to, in place.

        Returns:
            [`~transformers.DynamicCache`]: the context, a stock cache: loop l and block i own slot `l * n_layer + i`.

        Raises:
            `ValueError`: a shape, dtype, value or loop count is not as above, or all examples and one query together
                are longer than `config.n_positions` tokens.
        """
        n_seen = 0 if context is None else context.get_seq_length()
        self._check_points(xs, ys, (self.config.n_positions - n_seen - 1) // 2)
        if ys.shape != xs.shape[:2]:
            raise ValueError(f"`ys` must have shape {tuple(xs.shape[:2])}, got {tuple(ys.shape)}.")
        if context is not None:
            self._check_context(context, xs)
            n_loops = n_loops or self.config.loops_of(len(context))
        outputs = self.transformer(
            inputs_embeds=self._read_in(_interleave(xs, ys)),
            past_key_values=context,
            use_cache=True,
            n_loops=n_loops,
        )
        return outputs.past_key_values

    def predict(self, xs_query: torch.FloatTensor, context: Cache) -> torch.FloatTensor:
        r"""
        Predict y at any number of queries from one context, each as if it were the next point after the examples.

        Every query is a single token that sees the context and itself. B batch, Q queries, D `config.n_dims`.

        Args:
            xs_query (`torch.FloatTensor` of shape `(B, Q, D)`):
                Queries, finite, Q >= 1.
            context ([`~transformers.Cache`]):
                What [`~LoopedGPT2ForInContextRegression.encode_context`] returned for the same B; it stays as it is.

        Returns:
            `torch.FloatTensor` of shape `(B, Q)`: predictions after as many loops as the context was encoded with.

        Raises:
            `ValueError`: a shape, dtype or value is not as above.
        """
        self._check_values("xs_query", xs_query)
        self._check_context(context, xs_query)
        return torch.cat([self._predict_part(part, context) for part in xs_query.split(QUERIES_AT_A_TIME, 1)], dim=1)

    def _predict_part(self, xs_query: torch.Tensor, context: Cache) -> torch.Tensor:
        inputs_embeds = self._read_in(xs_query)
        n_seen = context.get_seq_length()
        context = freeze(context)
        mask = create_causal_mask(
            config=self.config,
            inputs_embeds=inputs_embeds,
            attention_mask=None,
            past_key_values=context,
            and_mask_function=lambda batch, head, query, key: (key < n_seen) | (key == query),
        )
        outputs = self.transformer(
            inputs_embeds=inputs_embeds,
            past_key_values=context,
            attention_mask=mask,
            position_ids=torch.full((1, xs_query.shape[1]), n_seen, device=xs_query.device),
            use_cache=True,
            n_loops=self.config.loops_of(len(context)),
        )
        return self._read_out(outputs.last_hidden_state)

    def _read_in(self, tokens: torch.Tensor) -> torch.Tensor:
        """Tokens (B, T, D) to embeddings (B, T, E)."""
        # bfloat16 would round the numbers of the prompt to three digits, so only the loop runs under autocast
        with maybe_autocast(tokens.device.type, enabled=False):
            return self.read_in(tokens.to(self.read_in.weight.dtype))

    def _read_out(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """States at the x tokens (B, P, E) to predictions (B, P), outside autocast for the same reason."""
        with maybe_autocast(hidden_states.device.type, enabled=False):
            return self.read_out(hidden_states.to(self.read_out.weight.dtype)).squeeze(-1)

    def _check_prompt(self, xs: torch.Tensor, ys: torch.Tensor, labels: torch.Tensor | None):
        self._check_points(xs, ys, (self.config.n_positions + 1) // 2)
        shape = tuple(xs.shape[:2])
        if labels is not None and labels.shape != shape:
            raise ValueError(f"`labels` must have shape {shape}, got {tuple(labels.shape)}.")

    def _check_points(self, xs: torch.Tensor, ys: torch.Tensor, max_points: int):
        self._check_values("xs", xs)
        batch_size, n_points = xs.shape[:2]
        if n_points > max_points:
            raise ValueError(
                f"`xs` must hold 1 to {max_points} points (`n_positions` = {self.config.n_positions} tokens, two an "
                f"example and one for the query), got {n_points}."
            )
        if not isinstance(ys, torch.Tensor):
            raise ValueError(f"`ys` must be a torch.Tensor, got {type(ys).__name__}: use `torch.as_tensor`.")
        if ys.shape not in ((batch_size, n_points), (batch_size, n_points - 1)):
            raise ValueError(
                f"`ys` must have shape {(batch_size, n_points)}, or {(batch_size, n_points - 1)} when the last x is "
                f"the query, got {tuple(ys.shape)}."
            )
        self._check_numbers("ys", ys[:, : n_points - 1])

    def _check_values(self, name: str, xs: torch.Tensor):
        if not isinstance(xs, torch.Tensor):
            raise ValueError(f"`{name}` must be a torch.Tensor, got {type(xs).__name__}: use `torch.as_tensor`.")
        n_dims = self.config.n_dims
        if xs.ndim != 3 or xs.shape[-1] != n_dims or 0 in xs.shape:
            raise ValueError(
                f"`{name}` must have shape (batch, n_points, n_dims = {n_dims}), none of them 0, got "
                f"{tuple(xs.shape)}."
            )
        self._check_numbers(name, xs)

    def _check_numbers(self, name: str, values: torch.Tensor):
        if not values.is_floating_point():
            raise ValueError(f"`{name}` must be floating point, got {values.dtype}: convert it, e.g. `.float()`.")
        if not self.training and not torch.compiler.is_compiling() and not values.isfinite().all():
            raise ValueError(f"`{name}` must be finite, got NaN or infinity: drop or impute those examples.")

    def _check_context(self, context: Cache, xs: torch.Tensor):
        n_layer, n_once = self.config.n_layer, self.config.n_prelude + self.config.n_coda
        if not isinstance(context, Cache) or not context.get_seq_length() or (len(context) - n_once) % n_layer:
            raise ValueError(f"`context` must be what `encode_context` returned, got {context!r:.80}.")
        batch_size = len(context.layers[0].keys)
        if batch_size != len(xs):
            raise ValueError(f"The batch size of `context` is {batch_size}, got queries or examples for {len(xs)}.")


def _interleave(xs: torch.Tensor, ys: torch.Tensor) -> torch.Tensor:
    """Tokens x_1 y_1 ... x_P y_P (B, 2 P, D) of xs (B, P, D) and ys (B, P), each y padded with zeros."""
    ys = nn.functional.pad(ys.to(xs.dtype).unsqueeze(-1), (0, xs.shape[2] - 1))
    return torch.stack((xs, ys), dim=2).flatten(1, 2)


__all__ = ["LoopedGPT2ForInContextRegression"]
