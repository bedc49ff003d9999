"""What all in-context heads share: contexts that are encoded once, asked many times and grown by examples."""

import torch
from transformers.cache_utils import Cache

from .cache_looped_gpt2 import freeze
from .masks_looped_gpt2 import make_mask, see_context
from .modeling_looped_gpt2 import LoopedGPT2ModelOutput, LoopedGPT2PreTrainedModel


# queries that are run together: attention among them costs their square, and none of it is looked at
QUERIES_AT_A_TIME = 256


class LoopedGPT2InContextPreTrainedModel(LoopedGPT2PreTrainedModel):
    """
    A head that reads examples x_1 y_1 x_2 y_2 ... as two tokens each and answers at the token of an x.

    A subclass says how: `_read_in` embeds xs `(B, P, D)` as `(B, P, E)`, `_embed_examples` embeds xs and ys as
    `(B, 2 P, E)`, `_read_out` turns states `(B, P, E)` into answers `(B, P, ...)`, `_check_ys` refuses bad ys. What
    is embedded has passed `_check_embeds`.
    """

    main_input_name = "xs"
    # the loss is a mean over the batch, not a sum to be divided by the Trainer's `num_items_in_batch`
    accepts_loss_kwargs = False

    def encode_context(
        self,
        xs: torch.FloatTensor,
        ys: torch.Tensor,
        n_loops: int | None = None,
        context: Cache | None = None,
    ) -> Cache:
        r"""
        Run examples once and keep their keys and values, for any number of queries and of examples to come.

        Examples do not see what comes after them, so a context is the same whatever is asked of it, and one more
        example costs two tokens. B batch, P examples, D `config.n_dims`.

        Args:
            xs (`torch.FloatTensor` of shape `(B, P, D)`), ys (`torch.Tensor` of shape `(B, P)`):
                Examples, P >= 1, as in `forward`.
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
        self._check_ys(ys)  # its last is seen here
        if context is not None:
            self._check_context(context, xs)
            n_loops = self.config.loops_of(len(context)) if n_loops is None else n_loops
        outputs = self.transformer(
            inputs_embeds=self._embed_examples(xs, ys),
            cache=context,
            use_cache=True,
            n_loops=n_loops,
        )
        try:
            self._check_finite(outputs.last_hidden_state)
        except ValueError:
            outputs.cache.crop(-2 * xs.shape[1])  # leaves a context that was to grow as it was
            raise
        return outputs.cache

    def predict(
        self, xs_query: torch.FloatTensor, context: Cache, output_loop_predictions: bool = False
    ) -> torch.FloatTensor:
        r"""
        Answer any number of queries from one context, each as if it were the next point after the examples.

        Every query is a single token that sees the context and itself. B batch, Q queries, D `config.n_dims`.

        Args:
            xs_query (`torch.FloatTensor` of shape `(B, Q, D)`):
                Queries, finite, Q >= 1.
            context ([`~transformers.Cache`]):
                What `encode_context` returned for the same B; it stays as it is.
            output_loop_predictions (`bool`, defaults to `False`):
                Answer after every loop instead of the last alone, for little more time. Not for a model with a coda.

        Returns:
            `torch.FloatTensor`: what `forward` gives for the last point after as many loops as the context was encoded
            with: predictions `(B, Q)` of a regression model, logits `(B, Q, num_labels)` of a classification model.
            After each of L loops: `(B, L, Q)` and `(B, L, Q, num_labels)`, of which the last are those.

        Raises:
            `ValueError`: a shape, dtype or value is not as above.
        """
        self._check_values("xs_query", xs_query)
        self._check_context(context, xs_query)
        if output_loop_predictions and self.config.n_coda:
            raise ValueError(
                f"`output_loop_predictions` needs a model without a coda, got `n_coda` = {self.config.n_coda}: a "
                "context holds what the coda saw after the last loop alone. Ask `forward`, or a context per depth."
            )
        parts = xs_query.split(QUERIES_AT_A_TIME, dim=1)
        predictions = [self._predict_part(part, context, output_loop_predictions) for part in parts]
        return self._check_finite(torch.cat(predictions, dim=2 if output_loop_predictions else 1))

    def _predict_part(self, xs_query: torch.Tensor, context: Cache, every_loop: bool) -> torch.Tensor:
        inputs_embeds = self._read_in(xs_query)
        n_seen = context.get_seq_length()
        context = freeze(context)
        outputs = self.transformer(
            inputs_embeds=inputs_embeds,
            cache=context,
            attention_mask=make_mask(self.config, inputs_embeds, cache=context, rule=see_context(n_seen)),
            position_ids=torch.full((1, xs_query.shape[1]), n_seen, device=xs_query.device),
            use_cache=True,
            n_loops=self.config.loops_of(len(context)),
            output_loop_hidden_states=every_loop,
        )
        if not every_loop:
            return self._read_out(outputs.last_hidden_state)
        return torch.stack([self._read_out(state) for state in outputs.loop_hidden_states], dim=1)

    def _answer_prompt(
        self, inputs_embeds: torch.Tensor, looks_at_loops: dict[str, bool], exit_tolerance: float | None, **kwargs
    ) -> tuple[LoopedGPT2ModelOutput, torch.Tensor]:
        """
        Run the tokens x_1 y_1 ... x_P and answer at every x.

        Returns the backbone's output and the answers (B, L, P, ...) after the loops of the window, or after the last
        alone where none of the arguments `looks_at_loops` is given.
        """
        all_loops = any(looks_at_loops.values())
        if exit_tolerance is not None and all_loops:
            *names, last = (f"`{name}`" for name in looks_at_loops)
            raise ValueError(f"{', '.join(names)} and {last} look at all loops: leave out `exit_tolerance`.")
        outputs = self.transformer(
            inputs_embeds=inputs_embeds,
            exit_tolerance=exit_tolerance,
            use_cache=False,
            output_loop_hidden_states=all_loops,
            **kwargs,
        )
        states = outputs.loop_hidden_states if all_loops else (outputs.last_hidden_state,)
        answers = torch.stack([self._read_out(state[:, ::2]) for state in states], dim=1)
        return outputs, self._check_finite(answers)

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
        self._check_ys(ys[:, : n_points - 1])

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
        if not self._looks_at_values() or values.to(self.dtype).isfinite().all():
            return
        if not values.isfinite().all():
            raise ValueError(f"`{name}` must be finite, got NaN or infinity: drop or impute those examples.")
        raise ValueError(
            f"`{name}` must be finite in the {self.dtype} of the model, got {values.abs().max():.3g}: scale it, e.g. "
            "to a standard deviation of 1."
        )

    def _check_embeds(self, embeds: torch.Tensor) -> torch.Tensor:
        """Return embedded values; refuse those whose square overflows: a layer norm would make nothing of them."""
        if self._looks_at_values():
            self._check_finite(embeds.float().square().sum(dim=-1))
        return embeds

    def _check_finite(self, numbers: torch.Tensor) -> torch.Tensor:
        """Return what the model has computed; refuse what has overflowed on its way."""
        if self._looks_at_values() and not numbers.isfinite().all():
            raise ValueError(
                f"The numbers overflow: `xs` or `ys` are too large for a model in {self.dtype}, or its weights are "
                "not finite. Scale the inputs, e.g. to a standard deviation of 1."
            )
        return numbers

    def _looks_at_values(self) -> bool:
        """Whether values are checked: not while training or compiling, where it costs a synchronisation."""
        return not self.training and not torch.compiler.is_compiling()

    def _check_context(self, context: Cache, xs: torch.Tensor):
        n_layer, n_once = self.config.n_layer, self.config.n_prelude + self.config.n_coda
        if not isinstance(context, Cache) or not context.get_seq_length() or (len(context) - n_once) % n_layer:
            raise ValueError(f"`context` must be what `encode_context` returned, got {context!r:.80}.")
        batch_size = len(context.layers[0].keys)
        if batch_size != len(xs):
            raise ValueError(f"The batch size of `context` is {batch_size}, got queries or examples for {len(xs)}.")


__all__ = ["LoopedGPT2InContextPreTrainedModel"]
