"""The looped GPT-2: a few GPT-2 blocks applied again and again, the embedded prompt re-injected before every loop.

    e   = embedded prompt
    z_0 = 0 ("add") | 1 ("multiply") | e ("none")
    z_t = ln_f( h( inject(z_{t-1}, e) + wpe ) )      t = 1 ... n_loops

Source: Yang, Lee, Nowak, Papailiopoulos, "Looped Transformers are Better at Learning Learning Algorithms" (ICLR 2024).
"""

from dataclasses import dataclass
from numbers import Integral

import torch
from torch import nn
from transformers import initialization as init
from transformers.masking_utils import create_causal_mask
from transformers.models.gpt2.modeling_gpt2 import GPT2Block, GPT2PreTrainedModel
from transformers.processing_utils import Unpack
from transformers.utils import ModelOutput, TransformersKwargs, can_return_tuple
from transformers.utils.generic import maybe_autocast
from transformers.utils.output_capturing import capture_outputs

from .configuration_looped_gpt2 import LoopedGPT2Config


@dataclass
class LoopedGPT2ModelOutput(ModelOutput):
    """
    Output of [`LoopedGPT2Model`]. B batch, T tokens, E `n_embd`.

    Args:
        last_hidden_state (`torch.Tensor` of shape `(B, T, E)`):
            State after the last loop, layer-normalised.
        loop_hidden_states (`tuple[torch.Tensor]`, returned when `output_loop_hidden_states=True`):
            State `(B, T, E)` after each loop of the window, layer-normalised; the last is `last_hidden_state`.
        hidden_states (`tuple[torch.Tensor]`, returned when `output_hidden_states=True`):
            Input of the first block and output of each executed block, `n_layer * n_loops + 1` of shape `(B, T, E)`;
            the last is replaced by `last_hidden_state`, as everywhere in transformers.
        attentions (`tuple[torch.Tensor]`, returned when `output_attentions=True`):
            Attention weights of each executed block, `(B, n_head, T, T)`; needs `attn_implementation="eager"`.
    """

    last_hidden_state: torch.Tensor | None = None
    loop_hidden_states: tuple[torch.Tensor, ...] | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


@dataclass
class LoopedGPT2InContextRegressionOutput(ModelOutput):
    """
    Output of [`LoopedGPT2ForInContextRegression`]. B batch, P points, L loops of the window; y has no fixed unit.

    Args:
        loss (`torch.Tensor` of shape `()`, float32, returned when `labels` is given):
            Squared error, mean over the loops of the window, the points and the batch (Yang et al., eq. 1).
        predictions (`torch.Tensor` of shape `(B, P)`):
            Prediction of y at each x after the last loop; prediction i depends on the examples before i only.
        loop_predictions (`torch.Tensor` of shape `(B, L, P)`, returned when `output_loop_predictions=True`):
            The same after each loop of the window; the last is `predictions`.
        hidden_states, attentions:
            As in [`LoopedGPT2ModelOutput`].
    """

    loss: torch.Tensor | None = None
    predictions: torch.Tensor | None = None
    loop_predictions: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


class LoopedGPT2PreTrainedModel(GPT2PreTrainedModel):
    """Weight initialisation and loading shared by all looped GPT-2 models."""

    config: LoopedGPT2Config
    base_model_prefix = "transformer"

    @classmethod
    def is_custom_code(cls) -> bool:
        # for fear of in-place writes over loaded weights, transformers skips `_init_weights` for all modules of custom
        # code that hold other modules only, such as GPT2MLP; ours writes through `transformers.initialization` alone
        return False

    @torch.no_grad()
    def _init_weights(self, module: nn.Module):
        super()._init_weights(module)
        if isinstance(module, LoopedGPT2Model):
            init.normal_(module.wpe.weight, mean=0.0, std=self.config.position_initializer_range)
        elif isinstance(module, LoopedGPT2ForInContextRegression):
            init.normal_(module.read_in.weight, mean=0.0, std=self.config.read_in_initializer_range)


class LoopedGPT2Model(LoopedGPT2PreTrainedModel):
    """
    The looped backbone: token ids or embeddings in, the state after the last loop out.

    Args:
        config ([`LoopedGPT2Config`]):
            The token embedding exists only where `config.vocab_size` is not `None`.
        add_token_embedding (`bool`, defaults to `True`):
            `False` leaves the token embedding out whatever the vocabulary, for heads that embed their own input.
    """

    def __init__(self, config: LoopedGPT2Config, add_token_embedding: bool = True):
        super().__init__(config)
        has_tokens = add_token_embedding and config.vocab_size is not None
        self.wte = nn.Embedding(config.vocab_size, config.n_embd) if has_tokens else None
        self.wpe = nn.Embedding(config.n_positions, config.n_embd)
        self.drop = nn.Dropout(config.embd_pdrop)
        self.h = nn.ModuleList([GPT2Block(config, layer_idx=i) for i in range(config.n_layer)])
        self.ln_f = nn.LayerNorm(config.n_embd, eps=config.layer_norm_epsilon)
        self.gradient_checkpointing = False
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding | None:
        return self.wte

    def set_input_embeddings(self, new_embeddings: nn.Embedding):
        self.wte = new_embeddings

    @capture_outputs
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        n_loops: int | None = None,
        loop_window: int | None = None,
        output_loop_hidden_states: bool = False,
        **kwargs: Unpack[TransformersKwargs],
    ) -> LoopedGPT2ModelOutput:
        r"""
        Apply the blocks `n_loops` times. B batch, T tokens, E `n_embd`.

        Args:
            input_ids (`torch.LongTensor` of shape `(B, T)`, *optional*):
                Token ids; needs a vocabulary. Give either these or `inputs_embeds`.
            attention_mask (`torch.Tensor` of shape `(B, T)`, *optional*):
                1 for tokens to attend to, 0 for padding.
            position_ids (`torch.LongTensor` of shape `(B, T)` or `(1, T)`, *optional*, defaults to 0 ... T-1):
                Positions, below `config.n_positions`.
            inputs_embeds (`torch.FloatTensor` of shape `(B, T, E)`, *optional*):
                The embedded prompt e.
            n_loops (`int`, *optional*, defaults to `config.n_loops`):
                Loops of this call, >= 1; may be far more than the model was trained with.
            loop_window (`int`, *optional*, defaults to `n_loops`):
                Last loops that carry a gradient, in 1 ... `n_loops` (the paper's T). The loops before them run without
                gradient (truncated backpropagation). The forward values do not depend on it.
            output_loop_hidden_states (`bool`, defaults to `False`):
                Also return the state after each loop of the window.

        Raises:
            `ValueError`: inputs, sequence length, `n_loops` or `loop_window` are not as above.
        """
        for name in ("output_attentions", "output_hidden_states"):  # captured by the decorator, not by the blocks
            kwargs.pop(name, None)
        n_loops, loop_window = self._check_loops(n_loops, loop_window)
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("Give either `input_ids` or `inputs_embeds`, and not both.")
        if inputs_embeds is None:
            if self.wte is None:
                raise ValueError("`input_ids` need a token embedding and this model has none: give `inputs_embeds`.")
            inputs_embeds = self.wte(input_ids)
        if position_ids is None:
            n_tokens = inputs_embeds.shape[1]
            if n_tokens > self.config.n_positions:
                raise ValueError(f"`n_positions` is {self.config.n_positions} tokens, got a sequence of {n_tokens}.")
            position_ids = torch.arange(n_tokens, device=inputs_embeds.device).unsqueeze(0)
        position_embeds = self.wpe(position_ids)
        causal_mask = create_causal_mask(
            config=self.config,
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            past_key_values=None,
            position_ids=position_ids,
        )

        loop_hidden_states = []
        hidden_states = self._initial_state(inputs_embeds)
        for loop in range(1, n_loops + 1):
            in_window = loop > n_loops - loop_window
            with torch.set_grad_enabled(in_window and torch.is_grad_enabled()):
                hidden_states = self.drop(self._inject(hidden_states, inputs_embeds) + position_embeds)
                for block in self.h:
                    hidden_states = block(hidden_states, None, causal_mask, position_ids=position_ids, **kwargs)
                hidden_states = self.ln_f(hidden_states)
            if output_loop_hidden_states and in_window:
                loop_hidden_states.append(hidden_states)

        return LoopedGPT2ModelOutput(
            last_hidden_state=hidden_states,
            loop_hidden_states=tuple(loop_hidden_states) if output_loop_hidden_states else None,
        )

    def _check_loops(self, n_loops: int | None, loop_window: int | None) -> tuple[int, int]:
        n_loops = self.config.n_loops if n_loops is None else n_loops
        if not _is_integer(n_loops) or n_loops < 1:
            raise ValueError(f"`n_loops` must be an integer >= 1, got {n_loops!r}.")
        loop_window = n_loops if loop_window is None else loop_window
        if not _is_integer(loop_window) or not 1 <= loop_window <= n_loops:
            raise ValueError(f"`loop_window` must be an integer in 1 ... `n_loops` = {n_loops}, got {loop_window!r}.")
        if self.config.input_injection == "none" and loop_window < n_loops and torch.is_grad_enabled():
            raise ValueError(
                f"`loop_window` must equal `n_loops` = {n_loops} with `input_injection='none'`, got {loop_window}: "
                "the prompt enters before the first loop only, and a shorter window would never train its embedding."
            )
        return n_loops, loop_window

    def _initial_state(self, inputs_embeds: torch.Tensor) -> torch.Tensor:
        if self.config.input_injection == "none":
            return inputs_embeds
        return torch.full_like(inputs_embeds, 0.0 if self.config.input_injection == "add" else 1.0)

    def _inject(self, hidden_states: torch.Tensor, inputs_embeds: torch.Tensor) -> torch.Tensor:
        if self.config.input_injection == "none":
            return hidden_states
        if self.config.input_injection == "add":
            return hidden_states + inputs_embeds
        return hidden_states * inputs_embeds


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

    @can_return_tuple
    def forward(
        self,
        xs: torch.FloatTensor,
        ys: torch.FloatTensor,
        labels: torch.FloatTensor | None = None,
        n_loops: int | None = None,
        loop_window: int | None = None,
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
            output_loop_predictions (`bool`, defaults to `False`):
                Also return the predictions of each loop of the window.

        Raises:
            `ValueError`: a shape, dtype, value or loop count is not as above, or the prompt is longer than
                `config.n_positions` tokens. Values are looked at only outside training, where it costs no time.
        """
        self._check_prompt(xs, ys, labels)
        inputs_embeds = self._embed_prompt(xs, ys)
        all_loops = output_loop_predictions or labels is not None
        outputs = self.transformer(
            inputs_embeds=inputs_embeds,
            n_loops=n_loops,
            loop_window=loop_window,
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
            loop_predictions=loop_predictions if output_loop_predictions else None,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )

    def _check_prompt(self, xs: torch.Tensor, ys: torch.Tensor, labels: torch.Tensor | None):
        for name, values in (("xs", xs), ("ys", ys)):
            if not isinstance(values, torch.Tensor):
                raise ValueError(
                    f"`{name}` must be a torch.Tensor, got {type(values).__name__}: use `torch.as_tensor`."
                )
        n_dims, max_points = self.config.n_dims, (self.config.n_positions + 1) // 2
        if xs.ndim != 3 or xs.shape[-1] != n_dims or xs.shape[0] == 0:
            raise ValueError(f"`xs` must have shape (batch, n_points, n_dims = {n_dims}), got {tuple(xs.shape)}.")
        batch_size, n_points = xs.shape[:2]
        if not 1 <= n_points <= max_points:
            raise ValueError(
                f"`xs` must hold 1 to {max_points} points (`n_positions` = {self.config.n_positions} tokens, two a "
                f"point less the last y), got {n_points}."
            )
        if ys.shape not in ((batch_size, n_points), (batch_size, n_points - 1)):
            raise ValueError(
                f"`ys` must have shape {(batch_size, n_points)}, or {(batch_size, n_points - 1)} when the last x is "
                f"the query, got {tuple(ys.shape)}."
            )
        if labels is not None and labels.shape != (batch_size, n_points):
            raise ValueError(f"`labels` must have shape {(batch_size, n_points)}, got {tuple(labels.shape)}.")
        for name, values in (("xs", xs), ("ys", ys[:, : n_points - 1])):
            if not values.is_floating_point():
                raise ValueError(f"`{name}` must be floating point, got {values.dtype}: convert it, e.g. `.float()`.")
            if not self.training and not torch.compiler.is_compiling() and not values.isfinite().all():
                raise ValueError(f"`{name}` must be finite, got NaN or infinity: drop or impute those examples.")

    def _embed_prompt(self, xs: torch.Tensor, ys: torch.Tensor) -> torch.Tensor:
        """Interleave x_1 y_1 ... x_P and read it in; (B, P, D) and (B, >= P - 1) to (B, 2 P - 1, E)."""
        ys = nn.functional.pad(ys[:, : xs.shape[1] - 1].unsqueeze(-1), (0, xs.shape[2] - 1, 0, 1))
        prompt = torch.stack((xs, ys.to(xs.dtype)), dim=2).flatten(1, 2)[:, :-1]
        # bfloat16 would round the numbers of the prompt to three digits, so only the loop runs under autocast
        with maybe_autocast(xs.device.type, enabled=False):
            return self.read_in(prompt.to(self.read_in.weight.dtype))

    def _read_out(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """States at the x tokens (B, P, E) to predictions (B, P), outside autocast for the same reason."""
        with maybe_autocast(hidden_states.device.type, enabled=False):
            return self.read_out(hidden_states.to(self.read_out.weight.dtype)).squeeze(-1)


def _is_integer(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


__all__ = ["LoopedGPT2ForInContextRegression", "LoopedGPT2Model", "LoopedGPT2PreTrainedModel"]
