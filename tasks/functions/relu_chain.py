"""ReLU networks that a prompt shows layer by layer: a chain of thought (Li et al., 2023)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch.nn.functional import pad

from ..baselines.classical import GENERIC_BASELINES, predict_least_squares
from ..baselines.prefixes import Predictor
from ..common import FunctionClass, NamedPredictor, Prompts, check_at_least_one, draw_normal


@dataclass(frozen=True)
class ReluChain(FunctionClass):
    """
    s_1 = c relu(W_1 x), s_2 = c relu(W_2 s_1), ..., y = w·s_L; weights are N(0, 1), and c = sqrt(2 / `n_dims_active`).

    An example is a chain of L + 1 points, x -> s_1, s_1 -> s_2, ..., s_L -> (y, 0, ..., 0): values are vectors of
    `n_dims` numbers, of a mean square of `n_dims`, and what a point answers the next one asks with. So a model can
    learn layer by layer. With one layer the y of x has the law of `relu_2nn_regression` with as many hidden units as
    dimensions, whose prompts show x and y alone.

    Scored are the answers at the last point of a chain, so that place n is y after n whole chains. There s_L is given,
    and least squares of smallest norm on the pairs of s_L and y is the posterior mean, exact after `n_dims` chains.
    In a [`~ReluChain.roll_out`] x alone is given. Least squares on the chains where a unit of the first layer is
    active is exact from `n_dims` of them on, of a later layer once the layer before spans its inputs there. The best
    answer to fewer has no closed form.

    Args:
        n_dims (`int`, defaults to 20):
            Dimensions of x and of every layer, >= 1.
        n_points (`int`, defaults to 82):
            Points of a prompt, at least those of a chain; the last chain may be cut off.
        n_layers (`int`, defaults to 1):
            Hidden layers L, >= 1.

    Source: "Dissecting chain-of-thought: compositionality through in-context filtering and learning" (arXiv
    2305.18869), whose layers are narrower than x. There a hidden layer is one token of a prompt; here it is two, an
    answer and the next question.
    """

    name = "relu_chain"
    has_steps = True
    description = "ReLU networks shown layer by layer"
    n_points: int = 82
    n_layers: int = 1

    def __post_init__(self):
        super().__post_init__()
        check_at_least_one(n_layers=self.n_layers)
        self.check_sizes(n_points=self.n_points)

    @property
    def n_outputs(self) -> int:
        return self.n_dims

    @property
    def n_steps(self) -> int:
        """Points of a chain."""
        return self.n_layers + 1

    @property
    def normaliser(self) -> float:
        return float(self.n_dims)

    @property
    def baselines(self) -> Mapping[str, Predictor]:
        """Those of every class, each from the points of its own layer."""
        return {name: partial(predict_layer, baseline=name, n_steps=self.n_steps) for name in GENERIC_BASELINES}

    @property
    def limit(self) -> NamedPredictor:
        return NamedPredictor("least squares of the layer", partial(predict_layer, n_steps=self.n_steps))

    @property
    def solver(self) -> NamedPredictor:
        return self.limit

    def check_sizes(self, n_points: int | None = None, n_dims_active: int | None = None):
        super().check_sizes(n_points, n_dims_active)
        if n_points is not None and n_points < self.n_steps:
            raise ValueError(f"`n_points` must be >= `n_layers` + 1 = {self.n_steps}, a whole chain, got {n_points}.")

    def draw_functions(self, n_prompts: int, n_dims_active: int, generator: torch.Generator) -> "DrawnNetworks":
        shape = (self.n_layers, n_prompts, n_dims_active, n_dims_active)
        hidden = (2 / n_dims_active) ** 0.5 * draw_normal(shape, generator)
        output = draw_normal((n_prompts, n_dims_active, 1), generator)
        n_beyond = self.n_dims - n_dims_active
        return DrawnNetworks(pad(hidden, (0, n_beyond, 0, n_beyond)), pad(output, (0, self.n_dims - 1, 0, n_beyond)))

    def draw_points(
        self,
        function: "DrawnNetworks",
        n_prompts: int,
        n_points: int,
        n_dims_active: int,
        generator: torch.Generator,
    ) -> Prompts:
        n_chains = -(-n_points // self.n_steps)
        states = [self.draw_xs(n_prompts, n_chains, n_dims_active, generator)]
        for step in range(self.n_steps):
            states.append(function.layer(step, states[-1]))
        xs, labels = (torch.stack(part, dim=2).flatten(1, 2)[:, :n_points] for part in (states[:-1], states[1:]))
        return {"xs": xs, "ys": labels, "labels": labels}

    def score(self, answers: np.ndarray, prompts: Prompts) -> np.ndarray:
        """As in every class, at the last point of each chain alone."""
        return super().score(answers, prompts)[:, self.n_layers :: self.n_steps]

    def roll_out(
        self, answer: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], xs: torch.Tensor, ys: torch.Tensor
    ) -> torch.Tensor:
        """
        Answer y of every chain from its x alone: each answer of a layer is what the next layer is asked with.

        The answers of the hidden layers are the steps; those of a chain that is cut off are 0. Else as
        [`Task.roll_out`].
        """
        answers = torch.zeros_like(ys)
        for start in range(0, xs.shape[1] - self.n_layers, self.n_steps):
            shown_xs, shown_ys = xs[:, : start + 1], ys[:, :start]
            for place in range(start, start + self.n_steps):
                answers[:, place] = told = answer(shown_xs, shown_ys)
                shown_xs, shown_ys = (torch.cat((shown, told.unsqueeze(1)), dim=1) for shown in (shown_xs, shown_ys))
        return answers


class DrawnNetworks:
    """
    A network per prompt.

    Args:
        hidden (`torch.Tensor` of shape `(n_layers, n_prompts, n_dims, n_dims)`):
            Weights of the hidden layers, with the factor c.
        output (`torch.Tensor` of shape `(n_prompts, n_dims, n_dims)`):
            Weights of y, in the first column; the others are 0.
    """

    def __init__(self, hidden: torch.Tensor, output: torch.Tensor):
        self.hidden, self.output = hidden, output

    def layer(self, step: int, states: torch.Tensor) -> torch.Tensor:
        """What layer `step`, counted from 0, makes of the states before it, `(n_prompts, n, n_dims)`."""
        return (states @ self.hidden[step]).relu() if step < len(self.hidden) else states @ self.output

    def __call__(self, xs: torch.Tensor) -> torch.Tensor:
        """Values `(n_prompts, n_points, n_dims)` at points of chains; point i is of layer i modulo `n_layers` + 1."""
        n_steps, values = len(self.hidden) + 1, torch.empty_like(xs)
        for step in range(n_steps):
            values[:, step::n_steps] = self.layer(step, xs[:, step::n_steps])
        return values


def predict_layer(
    xs: torch.Tensor, ys: torch.Tensor, query: torch.Tensor, n_steps: int, baseline: str | None = None
) -> torch.Tensor:
    """
    Predict one unit of a layer from the points of this layer, 0 where there are none.

    Args:
        xs (`torch.Tensor` of shape `(B, n, D)`), ys (`torch.Tensor` of shape `(B, n)`), query (`(B, D)`):
            Points of chains of which the last may have begun, and the next one.
        n_steps (`int`):
            Points of a chain; the last layer is linear.
        baseline (`str`, *optional*):
            The entry of `GENERIC_BASELINES` that predicts. Default: the least squares of smallest norm, of a hidden
            unit on the points where it is active, and at least 0.
    """
    step = xs.shape[1] % n_steps
    xs, ys = xs[:, step::n_steps], ys[:, step::n_steps]
    if not xs.shape[1]:
        return query.new_zeros(len(query))
    if baseline is not None:
        return GENERIC_BASELINES[baseline](xs, ys, query)
    if step == n_steps - 1:
        return predict_least_squares(xs, ys, query)
    return predict_least_squares(xs * (ys > 0).unsqueeze(2), ys, query).relu()  # a row of zeros says nothing
