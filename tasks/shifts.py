"""Prompts from other distributions than in training: the protocols of Garg et al. (2022), section 4.

Each shift is a function from prompts to prompts. Prompts hold `xs (B, P, D)`, `ys (B, P)`, `queries (B, P, D)` and
`labels (B, P)`: prediction i is asked at query i after the points before i and scored against label i.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

from .baselines.classical import (
    predict_3_nearest_neighbours,
    predict_least_squares,
    predict_ridge,
    predict_zero,
)
from .baselines.prefixes import Predictor
from .common import FunctionClass, Prompts, draw_normal


Function = Callable[[torch.Tensor], torch.Tensor]


def evaluate_function(function: Function, xs: torch.Tensor, queries: torch.Tensor | None = None) -> Prompts:
    """Return the prompts of `function` on inputs `xs`, asked at `queries`, by default at the inputs themselves."""
    queries = xs if queries is None else queries
    return {"xs": xs, "ys": function(xs), "queries": queries, "labels": function(queries)}


def skew_covariance(prompts: Prompts, function: Function, generator: torch.Generator) -> Prompts:
    """Inputs whose covariance has eigenvalues proportional to 1 / i² in a random basis."""
    return _rotate_and_scale(prompts, function, generator, 1 / torch.arange(1.0, prompts["xs"].shape[2] + 1))


def keep_half_subspace(prompts: Prompts, function: Function, generator: torch.Generator) -> Prompts:
    """Inputs in a random subspace of half the dimensions."""
    n_dims = prompts["xs"].shape[2]
    return _rotate_and_scale(prompts, function, generator, (torch.arange(n_dims) < max(1, n_dims // 2)).float())


def _rotate_and_scale(
    prompts: Prompts, function: Function, generator: torch.Generator, scales: torch.Tensor
) -> Prompts:
    """Scale the inputs along the axes of one random basis, keeping their mean square."""
    n_dims = len(scales)
    basis = torch.linalg.svd(draw_normal((n_dims, n_dims), generator)).U
    transform = basis @ torch.diag(scales) @ basis.T * (n_dims / scales.square().sum()).sqrt()
    return evaluate_function(function, prompts["xs"] @ transform)


def add_noise(prompts: Prompts, function: Function, generator: torch.Generator) -> Prompts:
    """Values with N(0, 1) noise, scaled to a mean square of `n_dims`; predictions are scored against them too."""
    ys = prompts["ys"] + draw_normal(tuple(prompts["ys"].shape), generator)
    ys = ys * prompts["xs"].shape[2] ** 0.5 / ys.std()
    return prompts | {"ys": ys, "labels": ys}


def draw_quadrants(prompts: Prompts, function: Function, generator: torch.Generator) -> Prompts:
    """Examples of a prompt in one random quadrant, the query in any."""
    xs = prompts["xs"]
    signs = draw_normal((len(xs), 1, xs.shape[2]), generator).sign()
    return evaluate_function(function, xs.abs() * signs, xs)


def ask_orthogonal_queries(prompts: Prompts, function: Function, generator: torch.Generator) -> Prompts:
    """
    Queries orthogonal to all examples before them, of unchanged length: no prediction is better than 0.

    Prompts are cut to as many points as dimensions: with more examples there is no such query.
    """
    xs = prompts["xs"][:, : prompts["xs"].shape[2]]
    queries = xs.clone()
    for n in range(1, xs.shape[1]):
        basis = torch.linalg.qr(xs[:, :n].mT).Q
        rest = xs[:, n] - (basis @ (basis.mT @ xs[:, n].unsqueeze(2))).squeeze(2)
        queries[:, n] = rest * (xs[:, n].norm(dim=1) / rest.norm(dim=1)).unsqueeze(1)
    return evaluate_function(function, xs, queries)


def ask_overlapping_queries(prompts: Prompts, function: Function, generator: torch.Generator) -> Prompts:
    """Queries that are one of the examples before them, drawn uniformly."""
    xs = prompts["xs"]
    n_prompts, n_points = xs.shape[:2]
    shares = torch.rand((n_prompts, n_points), generator=generator, device=xs.device)
    chosen = (shares * torch.arange(n_points, device=xs.device)).long()  # uniform in 0 ... n - 1 at point n
    queries = xs.gather(1, chosen.unsqueeze(2).expand_as(xs))
    return evaluate_function(function, xs, queries)


def scale_xs(prompts: Prompts, function: Function, generator: torch.Generator, scale: float) -> Prompts:
    """Inputs times `scale`; the error of predicting 0 becomes its square."""
    return evaluate_function(function, scale * prompts["xs"])


def scale_ys(prompts: Prompts, function: Function, generator: torch.Generator, scale: float) -> Prompts:
    """Values times `scale`; the error of predicting 0 becomes its square."""
    return prompts | {"ys": scale * prompts["ys"], "labels": scale * prompts["labels"]}


@dataclass(frozen=True)
class Shift:
    """
    Another distribution of prompts of a linear function class than in training.

    Args:
        change (`Callable`):
            From prompts, their function and a generator to the shifted prompts.
        limit (`Predictor`, defaults to [`~tasks.baselines.classical.predict_least_squares`]):
            The best predictor under the shift: least squares of smallest norm for any inputs.
    """

    change: Callable[[Prompts, Function, torch.Generator], Prompts]
    limit: Predictor = predict_least_squares

    def sample(self, task: FunctionClass, n_prompts: int, generator: torch.Generator, n_points: int) -> Prompts:
        """Draw prompts `xs`, `ys`, `queries` and `labels` of functions of the class `task` under the shift."""
        function = task.draw_functions(n_prompts, task.n_dims, generator)
        xs = task.draw_xs(n_prompts, n_points, task.n_dims, generator)
        return self.change(evaluate_function(function, xs), function, generator)


SHIFTS: dict[str, Shift] = {
    "skewed": Shift(skew_covariance),
    "half_subspace": Shift(keep_half_subspace),
    # values and noise are scaled alike, so the best penalty stays 1
    "noisy": Shift(add_noise, partial(predict_ridge, alpha=1.0)),
    "random_quadrants": Shift(draw_quadrants),
    "orthogonal_query": Shift(ask_orthogonal_queries),
    "overlapping_query": Shift(ask_overlapping_queries),
    **{
        f"scale_{of}_{name}": Shift(partial(change, scale=scale))
        for of, change in (("x", scale_xs), ("y", scale_ys))
        for name, scale in (("1/3", 1 / 3), ("1/2", 0.5), ("2", 2), ("3", 3))
    },
}
# what is compared with the model under every shift
SHIFT_BASELINES: dict[str, Predictor] = {
    "least squares": predict_least_squares,
    "ridge": predict_ridge,
    "3-nearest neighbours": predict_3_nearest_neighbours,
    "zero": predict_zero,
}
