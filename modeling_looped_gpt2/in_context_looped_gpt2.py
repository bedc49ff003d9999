"""The base of all in-context heads: prompts that are answered, and contexts that are encoded once."""

from collections.abc import Mapping

import torch
from torch import nn
from transformers.cache_utils import Cache
from transformers.utils import ModelOutput
from transformers.utils.generic import maybe_autocast

from .arguments_looped_gpt2 import check_loops, check_no_exits
from .cache_looped_gpt2 import freeze
from .example_orders_looped_gpt2 import EXAMPLE_ORDERS, order_of, whole_prompts
from .implicit_solvers_looped_gpt2 import solver_of
from .in_context_checks_looped_gpt2 import InContextChecks
from .masks_looped_gpt2 import make_mask, place_in_prompt, see_context, see_examples_before
from .modeling_looped_gpt2 import LoopedGPT2PreTrainedModel
from .stop_rules_looped_gpt2 import MakeRule


class LoopedGPT2InContextPreTrainedModel(InContextChecks, LoopedGPT2PreTrainedModel):
    """
    A head that reads examples x_1 y_1 x_2 y_2 ... and answers at the token of an x; `config.example_order` says how
    they are laid out.

    A subclass owns the backbone as `transformer`, defines the methods that raise `NotImplementedError` here and in
    [`InContextChecks`], and has a `forward` that hands its arguments to `_answer_prompt`. B batch, P points, L loops
    of the window, D `config.n_dims`, E `config.n_embd`.

    Class attributes:
        output_class (`type[ModelOutput]`):
            What `forward` returns: `loss`, the answers, and the fields that tell of the backbone's loops, with
            `loop_exit_logits` where there may be a gate.
        answer_name (`str`):
            Name of the field of answers. `loop_<name>` holds those after each loop, on `output_loop_<name>=True`.
    """

    main_input_name = "xs"
    # the loss is a mean over the batch, not a sum to be divided by the Trainer's `num_items_in_batch`
    accepts_loss_kwargs = False
    output_class: type[ModelOutput]
    answer_name: str

    @property
    def max_examples(self) -> int:
        """Most examples of a prompt that ends with a query, or of a context."""
        return order_of(self.config).max_examples(self.config.n_positions)

    def _read_in(self, xs: torch.Tensor) -> torch.Tensor:
        """Embed xs `(B, P, D)` as their tokens `(B, P, E)`, of a table `(B, P, D, E)`."""
        features = order_of(self.config).features(xs.to(self.read_in.weight.dtype))
        # bfloat16 would round the numbers of the prompt to three digits, so only the loop runs under autocast
        with maybe_autocast(xs.device.type, enabled=False):
            return self._check_embeds(self.read_in(features))

    def _embed_ys(self, ys: torch.Tensor) -> torch.Tensor:
        """Embed ys `(B, C, ...)` as what is added to the tokens of their xs in a set, or is a cell of a table."""
        raise NotImplementedError(f"{type(self).__name__} must define `_embed_ys`.")

    def _embed_examples(self, xs: torch.Tensor, ys: torch.Tensor) -> torch.Tensor:
        """
        Embed xs `(B, P, D)` and ys `(B, P, ...)` as the tokens x_1 y_1 ... x_P y_P `(B, 2 P, E)`.

        With ys `(B, P - 1, ...)` the tokens end with x_P `(B, 2 P - 1, E)`. See [`interleave`].
        """
        raise NotImplementedError(f"{type(self).__name__} must define `_embed_examples`.")

    def _read_out(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """What is read `(B, P, ...)` from the states at P tokens `(B, P, E)`, of Q queries likewise."""
        raise NotImplementedError(f"{type(self).__name__} must define `_read_out`.")

    def _answer(self, read: torch.Tensor) -> torch.Tensor:
        """The answers, by what was read for them `(B, ..., P, ...)`."""
        return read

    def _answer_fields(self, read: torch.Tensor, every_loop: bool) -> dict[str, torch.Tensor | None]:
        """The fields of `output_class` with answers, by what was read for those of L loops `(B, L, P, ...)`."""
        answers = self._answer(read)
        return {self.answer_name: answers[:, -1], f"loop_{self.answer_name}": answers if every_loop else None}

    def _compute_loss(self, read: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The loss `()` of what was read `(B, L, P, ...)` against labels `(B, P, ...)`, in float32."""
        raise NotImplementedError(f"{type(self).__name__} must define `_compute_loss`.")

    def _answer_prompt(
        self,
        xs: torch.Tensor,
        ys: torch.Tensor,
        labels: torch.Tensor | None,
        n_loops: int | torch.LongTensor | None,
        loop_window: int | None,
        exit_tolerance: float | None,
        output_loop_answers: bool,
        output_loop_hidden_states: bool,
        exit_probability: float | None = None,
        exit_rules: Mapping[str, MakeRule] | None = None,
        **kwargs,
    ) -> ModelOutput:
        """Do what `forward` does in every head, with its arguments; `kwargs` go to the backbone."""
        self._check_names(kwargs)
        self._check_prompt(xs, ys, labels)
        # the loop that a solver has a gradient for
        scores_last = labels is not None and loop_window is None and solver_of(self.config) is not None
        looks_at_loops = {
            "labels": labels is not None and not scores_last,
            f"output_loop_{self.answer_name}": output_loop_answers,
            "output_loop_hidden_states": output_loop_hidden_states,
        }
        all_loops = any(looks_at_loops.values())
        exits = {"exit_tolerance": exit_tolerance, "exit_probability": exit_probability}
        if all_loops:
            check_no_exits(exits | dict(exit_rules or {}), looks_at_loops)
        prompt, order, shape = self._embed_prompt(xs, ys), order_of(self.config), (xs.shape[1], ys.shape[1])
        outputs = self.transformer(
            inputs_embeds=prompt,
            n_loops=n_loops,
            loop_window=1 if scores_last and all_loops else loop_window,
            **exits,
            exit_rules=exit_rules,
            use_cache=False,
            output_loop_hidden_states=all_loops,
            **order.sight(self.config, prompt, *shape),
            **kwargs,
        )
        states = outputs.loop_hidden_states if all_loops else (outputs.last_hidden_state,)
        # (B, L, P, ...)
        by_loop = [self._read_out(order.answering(state, *shape)) for state in states]
        read = self._check_finite(torch.stack(by_loop, dim=1))
        answers = self._answer_fields(read, output_loop_answers)
        if outputs.loop_exit_logits is not None:
            logits = outputs.loop_exit_logits.transpose(1, 2)  # (B, T, L)
            answers["loop_exit_logits"] = order.answering(logits, *shape).transpose(1, 2)
        return self.output_class(
            loss=None if labels is None else self._compute_loss(read, labels),
            n_loops_used=outputs.n_loops_used,
            loop_hidden_states=outputs.loop_hidden_states if output_loop_hidden_states else None,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            **answers,
        )

    def _embed_prompt(self, xs: torch.Tensor, ys: torch.Tensor) -> torch.Tensor:
        """The tokens of a prompt, without the y of its last point: no token comes after it and sees it."""
        return order_of(self.config).embed(self, xs, ys[:, : xs.shape[1] - 1])

    def encode_context(
        self,
        xs: torch.FloatTensor,
        ys: torch.Tensor,
        n_loops: int | None = None,
        context: Cache | None = None,
    ) -> Cache:
        r"""
        Run examples once and keep their keys and values, for later queries and examples.

        Examples do not see what comes after them, so a context does not depend on the queries, and one more example
        costs two tokens. Those of a set see each other, so they are encoded together and none is added later.

        B batch, P examples, D `config.n_dims`.

        Args:
            xs (`torch.FloatTensor` of shape `(B, P, D)`), ys (`torch.Tensor` of shape `(B, P, ...)`):
                Examples, P >= 1, as in `forward`.
            n_loops (`int`, *optional*, defaults to that of `context` or else to `config.n_loops`):
                Loops of the context and of every query to it, >= 1.
            context ([`~transformers.Cache`], *optional*):
                A context of the same number of loops; the examples are added to it in place. Not for sets.

        Returns:
            [`~transformers.DynamicCache`]: the context, a stock cache with the slots of [`LoopedGPT2ModelOutput`].

        Raises:
            `ValueError`: a shape, dtype, value or loop count is not as above, or all examples and one query together
                are longer than `config.n_positions` tokens.
        """
        n_seen = 0 if context is None else context.get_seq_length()
        self._check_examples(xs, ys, n_seen)
        if isinstance(n_loops, torch.Tensor):
            raise ValueError(
                f"`n_loops` must be one integer for the whole context, got a tensor of shape {tuple(n_loops.shape)}: "
                "encode a context for each number of loops."
            )
        if context is not None:
            self._check_context(context, xs)
            n_loops = self.config.loops_of(len(context)) if n_loops is None else n_loops
        order = order_of(self.config)
        if context is None:
            n_loops, _ = check_loops(self.config.n_loops if n_loops is None else n_loops)
            context = order.new_context(self.config.with_loops(n_loops), xs)
        examples = order.embed(self, xs, ys)
        outputs = self.transformer(
            inputs_embeds=examples,
            cache=context,
            use_cache=True,
            n_loops=n_loops,
            **order.sight(self.config, examples, xs.shape[1], xs.shape[1]),
        )
        try:
            self._check_finite(outputs.last_hidden_state)
        except ValueError:
            outputs.cache.crop(-order.tokens_per_example * xs.shape[1])  # a context that was given stays as it was
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
                Answer after every loop, not only after the last, for little more time. Not for a model with a coda.

        Returns:
            `torch.FloatTensor` of shape `(B, Q, ...)`: what `forward` gives for the last point after as many loops as
            the context was encoded with, predictions of a regression model and logits of a classification model.
            With `output_loop_predictions` `(B, L, Q, ...)`, the answers after each of L loops.

        Raises:
            `ValueError`: a shape, dtype or value is not as above.
        """
        self._check_query(xs_query, context)
        if output_loop_predictions and self.config.n_coda:
            raise ValueError(
                f"`output_loop_predictions` needs a model without a coda, got `n_coda` = {self.config.n_coda}: a "
                "context holds what the coda saw after the last loop alone. Ask `forward`, or a context per depth."
            )
        return self._answer(self._ask(xs_query, context, output_loop_predictions))

    def _ask(self, xs_query: torch.Tensor, context: Cache, every_loop: bool) -> torch.Tensor:
        """What is read for the answers of [`predict`]."""
        order = order_of(self.config)
        parts = xs_query.split(max(order.queries_per_row, order.queries_at_a_time // len(xs_query)), dim=1)
        read = [self._ask_part(part, context, every_loop) for part in parts]
        return self._check_finite(torch.cat(read, dim=2 if every_loop else 1))

    def _ask_part(self, xs_query: torch.Tensor, context: Cache, every_loop: bool) -> torch.Tensor:
        order, n_queries, n_seen = order_of(self.config), xs_query.shape[1], context.get_seq_length()
        n_rows = -(-n_queries // order.queries_per_row)  # R, of each context
        queries = order.embed_queries(self, xs_query)  # (B, Q, E), of a table (B, Q * (D + 1), E)
        queries = nn.functional.pad(queries, (0, 0, 0, -n_queries % n_rows))
        queries = queries.unflatten(1, (n_rows, -1)).flatten(0, 1)  # (B * R, ceil(Q / R), E)
        in_row = -(-n_queries // n_rows)
        context, column = freeze(context, n_rows), queries[:1, :: queries.shape[1] // in_row]
        # one row for all
        mask = make_mask(self.config, column, cache=context, rule=see_context(n_seen), place=lambda query: n_seen)
        outputs = self.transformer(
            inputs_embeds=queries,
            cache=context,
            attention_mask=mask,
            position_ids=torch.full((1, queries.shape[1]), order.query_position(n_seen), device=xs_query.device),
            use_cache=True,
            n_loops=self.config.loops_of(len(context)),
            output_loop_hidden_states=every_loop,
            **order.query_sight(queries.shape[1], in_row),
        )
        states = outputs.loop_hidden_states if every_loop else (outputs.last_hidden_state,)
        states = [order.query_states(state, in_row) for state in states]
        states = [state.unflatten(0, (-1, n_rows)).flatten(1, 2)[:, :n_queries] for state in states]
        answers = torch.stack([self._read_out(state) for state in states], dim=1)  # (B, L, Q, ...)
        return answers if every_loop else answers[:, 0]

    def predict_at_queries(
        self,
        xs: torch.FloatTensor,
        ys: torch.Tensor,
        xs_query: torch.FloatTensor,
        n_loops: int | torch.LongTensor | None = None,
    ) -> torch.FloatTensor:
        r"""
        Answer one query at every point of a prompt: query i takes the place of x_i and sees the examples before it.

        All queries run at once, after the tokens of the prompt. Query i has the position of x_i, and sees the i - 1
        examples before x_i and itself. Examples of a set see each other, so there every query has a prompt of its own.
        B batch, P points, D `config.n_dims`.

        Args:
            xs (`torch.FloatTensor` of shape `(B, P, D)`), ys (`torch.Tensor` of shape `(B, P, ...)`):
                Points; the last y may be left out.
            xs_query (`torch.FloatTensor` of shape `(B, P, D)`):
                Queries, finite.
            n_loops (`int` or `torch.LongTensor` of shape `(B,)`, *optional*, defaults to `config.n_loops`):
                Loops, as in `forward`.

        Returns:
            `torch.FloatTensor` of shape `(B, P, ...)`: for each i what `forward` gives for the last point of the
            prompt of i - 1 examples and query i.

        Raises:
            `ValueError`: a shape, dtype, value or loop count is not as above, or the prompt is longer than
                `config.n_positions` tokens.
        """
        self._check_prompt(xs, ys, layout=EXAMPLE_ORDERS["causal"])
        self._check_values("xs_query", xs_query)
        if xs_query.shape != xs.shape:
            raise ValueError(f"`xs_query` must have the shape {tuple(xs.shape)} of `xs`, got {tuple(xs_query.shape)}.")
        if order_of(self.config).is_split:
            prompts = whole_prompts(xs, ys, xs_query)
            return torch.cat([self(*prompt, n_loops=n_loops)[self.answer_name] for prompt in prompts], dim=1)
        prompt = self._embed_prompt(xs, ys)
        n_tokens = prompt.shape[1]
        inputs_embeds = torch.cat((prompt, self._read_in(xs_query)), dim=1)  # (B, 2 P - 1 + P, E)
        places = torch.arange(n_tokens, device=xs.device)
        mask = make_mask(
            self.config, inputs_embeds, rule=see_examples_before(n_tokens), place=place_in_prompt(n_tokens)
        )
        outputs = self.transformer(
            inputs_embeds=inputs_embeds,
            attention_mask=mask,
            position_ids=torch.cat((places, places[::2])).unsqueeze(0),
            use_cache=False,
            n_loops=n_loops,
        )
        return self._answer(self._check_finite(self._read_out(outputs.last_hidden_state[:, n_tokens:])))


def interleave(x_tokens: torch.Tensor, y_tokens: torch.Tensor) -> torch.Tensor:
    """
    Return the tokens x_1 y_1 ... x_P y_P, given those of xs and those of ys.

    Args:
        x_tokens (`torch.Tensor` of shape `(B, P, E)`):
            Any width E.
        y_tokens (`torch.Tensor` of shape `(B, P, E)` or `(B, P - 1, E)`):
            Without the last one the tokens end with x_P.

    Returns:
        `torch.Tensor` of shape `(B, 2 P, E)` or `(B, 2 P - 1, E)`.
    """
    n_points, n_ys = x_tokens.shape[1], y_tokens.shape[1]
    y_tokens = nn.functional.pad(y_tokens, (0, 0, 0, n_points - n_ys))
    return torch.stack((x_tokens, y_tokens), dim=2).flatten(1, 2)[:, : n_points + n_ys]


__all__ = ["LoopedGPT2InContextPreTrainedModel"]
