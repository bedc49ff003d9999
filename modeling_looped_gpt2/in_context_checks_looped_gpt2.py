"""Checks of the input and the numbers of an in-context head."""

import math

import torch
from transformers.cache_utils import Cache

from .example_orders_looped_gpt2 import ExampleOrder, order_of


class InContextChecks:
    """
    Checks of what is given to a head and of what it computes; each raises `ValueError`.

    B batch, P points, D `config.n_dims`. Values are looked at outside training only.
    """

    @property
    def _y_shape(self) -> tuple[int, ...]:
        """Shape of the y of one point: `()` where it is a single number or class."""
        return ()

    def _check_ys(self, ys: torch.Tensor):
        """Refuse ys `(B, P, *_y_shape)` of a wrong dtype or value."""
        raise NotImplementedError(f"{type(self).__name__} must define `_check_ys`.")

    def _check_labels(self, labels: torch.Tensor):
        """Refuse labels, one for each answer, of a wrong dtype or value."""
        raise NotImplementedError(f"{type(self).__name__} must define `_check_labels`.")

    def _check_prompt(
        self,
        xs: torch.Tensor,
        ys: torch.Tensor,
        labels: torch.Tensor | None = None,
        layout: ExampleOrder | None = None,
    ):
        """Refuse points that are no prompt; `layout` tells how many have ys, by default the order of the model."""
        order = order_of(self.config)
        layout = layout or order
        self._check_points(xs, order.max_examples(self.config.max_tokens) + 1)
        self._check_tensor("ys", ys)
        batch_size, n_points = xs.shape[:2]
        numbers, n_ys = layout.numbers_of_ys(n_points), ys.shape[1] if ys.ndim > 1 else None
        if n_ys not in numbers or tuple(ys.shape) != (batch_size, n_ys, *self._y_shape):
            first, last = ((batch_size, number, *self._y_shape) for number in (numbers[0], numbers[-1]))
            raise ValueError(f"`ys` must have shape {layout.expected_ys(first, last)}, got {tuple(ys.shape)}.")
        self._check_ys(ys[:, : n_points - 1])
        if labels is not None:
            self._check_shape("labels", labels, order.asked(xs, ys))
            self._check_labels(labels)

    def _check_examples(self, xs: torch.Tensor, ys: torch.Tensor, n_seen: int):
        """Refuse examples that do not fit behind `n_seen` tokens and before a query."""
        order = order_of(self.config)
        if n_seen and order.is_split:
            raise ValueError(
                f"`context` must be left out with `example_order={self.config.example_order!r}`: its examples have "
                "not seen the new ones. Encode all of them together."
            )
        self._check_points(xs, order.max_examples(self.config.max_tokens - n_seen))
        self._check_shape("ys", ys, xs)
        self._check_ys(ys)  # the last one too: a query sees it

    def _check_points(self, xs: torch.Tensor, max_points: int):
        self._check_values("xs", xs)
        if max_points < 1:
            raise ValueError(
                f"`xs` must be left out: no example more fits before a query into `n_positions` = "
                f"{self.config.n_positions} tokens, got {xs.shape[1]}. Encode fewer examples in a new context."
            )
        if xs.shape[1] > max_points:
            raise ValueError(
                f"`xs` must hold 1 to {max_points} points (`n_positions` = {self.config.n_positions} tokens, "
                f"{order_of(self.config).counted}), got {xs.shape[1]}."
            )

    def _check_shape(self, name: str, values: torch.Tensor, xs: torch.Tensor):
        self._check_tensor(name, values)
        shape = (*xs.shape[:2], *self._y_shape)
        if values.shape != shape:
            raise ValueError(f"`{name}` must have shape {shape}, got {tuple(values.shape)}.")

    def _check_tensor(self, name: str, values: torch.Tensor):
        if not isinstance(values, torch.Tensor):
            raise ValueError(f"`{name}` must be a torch.Tensor, got {type(values).__name__}: use `torch.as_tensor`.")

    def _check_values(self, name: str, xs: torch.Tensor):
        """Refuse anything but xs `(B, P, D)` that are finite, or missing where values may be."""
        self._check_tensor(name, xs)
        order = order_of(self.config)
        n_dims = order.n_columns(self.config)
        if xs.ndim != 3 or n_dims not in (None, xs.shape[-1]) or 0 in xs.shape:
            last = "n_columns" if n_dims is None else f"n_dims = {n_dims}"
            raise ValueError(
                f"`{name}` must have shape (batch, n_points, {last}), none of them 0, got {tuple(xs.shape)}."
            )
        self._check_numbers(name, order.known(xs))

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
        """Return embedded values; refuse those whose square overflows: a layer norm would turn them into 0."""
        if self._looks_at_values():
            self._check_finite(embeds.float().square().sum(dim=-1))
        return embeds

    def _check_finite(self, numbers: torch.Tensor) -> torch.Tensor:
        """Return numbers that the model has computed; refuse those that have overflowed."""
        if self._looks_at_values() and not numbers.isfinite().all():
            raise ValueError(
                f"The numbers overflow: `xs` or `ys` are too large for a model in {self.dtype}, or its weights are "
                "not finite. Scale the inputs, e.g. to a standard deviation of 1."
            )
        return numbers

    def _looks_at_values(self) -> bool:
        """Whether values are checked: not while training or compiling, where it costs a synchronisation."""
        return not self.training and not torch.compiler.is_compiling()

    def _check_query(self, xs_query: torch.Tensor, context: Cache):
        """Refuse queries that cannot be asked of this context."""
        self._check_values("xs_query", xs_query)
        self._check_context(context, xs_query)

    def _check_context(self, context: Cache, xs: torch.Tensor):
        plan = self.config.plan(1)
        n_once, n_steps = len(plan.prelude) + len(plan.coda), len(plan.loops[0])
        if not isinstance(context, Cache) or not context.get_seq_length() or (len(context) - n_once) % n_steps:
            raise ValueError(f"`context` must be what `encode_context` returned, got {context!r:.80}.")
        order = order_of(self.config)
        order.check_context(context, xs)
        # the columns of a table have a row of the cache each
        batch_size = len(context.layers[0].keys) // math.prod(order.lengths(1, xs.shape[2]))
        if batch_size != len(xs):
            raise ValueError(f"The batch size of `context` is {batch_size}, got queries or examples for {len(xs)}.")
