"""Looped linear attention: no softmax, no norm, no MLP; prompts whose inputs have a chosen spectrum; the training."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from tasks.common import check_at_least_one
from tasks.functions.linear_regression import LinearRegression
from tasks.streams import Stream, make_generator


STD = 0.1  # of the initial weights
MAX_NORM = 1.0  # of a gradient; deep stacks have steep walls


class LinearAttention(nn.Module):
    """
    Layers of linear attention in a loop: Z <- Z - P G Q Z / n, where G sums z z^T over the n examples.

    Tokens are the columns z = [x; y] of Z, the query last with y = 0; the prediction is minus its last entry. With P
    zero but for its last entry p and Q zero but for its block A of the xs, a loop is a step of gradient descent on the
    squared error of the examples, preconditioned by p A^T.

    Args:
        n_dims (`int`):
            Dimension D of x.
        n_layers (`int`, defaults to 1):
            Layers with matrices of their own, run in turn; 1 is tied.
        is_full (`bool`, defaults to `False`):
            Whether all entries of P and Q are learned, or only the last row of P and the block of Q.
        generator (`torch.Generator`, *optional*):
            Source of the initial weights, which are 0 without it.

    Source: Gatmiry et al., "Can Looped Transformers Learn to Implement Multi-step Gradient Descent for In-context
    Learning?" (2410.08292), who learn the last row of P and the block of Q.
    """

    def __init__(
        self, n_dims: int, n_layers: int = 1, is_full: bool = False, generator: torch.Generator | None = None
    ):
        super().__init__()
        shape = (n_layers, n_dims + 1, n_dims + 1)
        for name in ("P", "Q"):
            weights = torch.zeros(shape, dtype=torch.float64)
            if generator:
                weights = STD * torch.randn(shape, generator=generator, dtype=torch.float64)
            self.register_parameter(name, nn.Parameter(weights))
        learned = torch.full((2, *shape[1:]), float(is_full), dtype=torch.float64)
        learned[0, -1] = learned[1, :-1, :-1] = 1
        self.register_buffer("learned", learned)

    @classmethod
    def descent(cls, preconditioners: torch.Tensor) -> "LinearAttention":
        """The layers that are gradient descent with these preconditioners `(n_layers, D, D)`."""
        model = cls(preconditioners.shape[2], len(preconditioners))
        with torch.no_grad():
            model.P[:, -1, -1] = 1
            model.Q[:, :-1, :-1] = preconditioners.mT
        return model

    @property
    def preconditioners(self) -> torch.Tensor:
        """The last entry of P times the transposed block of Q, `(n_layers, D, D)`."""
        return (self.P[:, -1:, -1:] * self.Q[:, :-1, :-1].mT).detach()

    def forward(self, xs: torch.Tensor, ys: torch.Tensor, n_loops: int) -> torch.Tensor:
        """
        Predict y of the last x after every loop.

        Args:
            xs (`torch.Tensor` of shape `(B, n + 1, D)`), ys (`torch.Tensor` of shape `(B, n)`):
                Examples and query, float64.
            n_loops (`int`):
                Layers to run, >= 1; beyond `n_layers` they come again.

        Returns:
            `torch.Tensor` of shape `(B, n_loops)`.
        """
        zs = torch.cat([xs, nn.functional.pad(ys, (0, 1)).unsqueeze(2)], dim=2)  # tokens are rows here
        examples, queries = zs[:, :-1], zs[:, -1:]
        products = examples.mT @ examples / ys.shape[1]
        P, Q = self.learned[0] * self.P, self.learned[1] * self.Q
        # without a softmax a loop is one linear map of all tokens: the maps are multiplied, the tokens never touched
        maps, predictions = torch.eye(zs.shape[2], dtype=zs.dtype).expand_as(products), []
        for loop in range(n_loops):
            layer = loop % len(P)
            maps = maps - maps @ Q[layer].mT @ (maps.mT @ products @ maps) @ P[layer].mT
            predictions.append(-(queries @ maps)[:, 0, -1])
        return torch.stack(predictions, dim=1)


Eigenvalues = Callable[[int, int, torch.Generator], torch.Tensor]
CONDITION = 16  # greatest ratio of eigenvalues of a diverse spectrum


def isotropic(n_prompts: int, n_dims: int, generator: torch.Generator) -> torch.Tensor:
    """All eigenvalues 1."""
    return torch.ones(n_prompts, n_dims, dtype=torch.float64)


def skewed(n_prompts: int, n_dims: int, generator: torch.Generator) -> torch.Tensor:
    """Eigenvalues proportional to 1 / i^2, of mean 1."""
    values = torch.arange(1, n_dims + 1, dtype=torch.float64) ** -2
    return (values / values.mean()).expand(n_prompts, n_dims)


def diverse(n_prompts: int, n_dims: int, generator: torch.Generator) -> torch.Tensor:
    """Eigenvalues of every prompt anew, their logarithms uniform between those of 1 / `CONDITION` and 1."""
    return log_uniform(n_prompts, n_dims, CONDITION, generator)


def log_uniform(n_prompts: int, n_dims: int, ratio: float, generator: torch.Generator) -> torch.Tensor:
    """Numbers `(n_prompts, n_dims)` between 1 / `ratio` and 1, their logarithms uniform."""
    return ratio ** -torch.rand(n_prompts, n_dims, generator=generator, dtype=torch.float64)


SPECTRA: dict[str, Eigenvalues] = {"isotropic": isotropic, "skewed": skewed, "diverse": diverse}


def wider(values: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Every eigenvalue times its own number between 1/4 and 1."""
    return values * log_uniform(*values.shape, 4, generator)


def larger(values: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Every eigenvalue times 1.5."""
    return 1.5 * values


# changes of the spectrum after training
SHIFTS = {"as trained": lambda values, generator: values, "wider": wider, "larger": larger}


@dataclass(frozen=True)
class Settings:
    """
    What is learned and how.

    Args:
        n_dims (`int`, defaults to 5):
            Dimension of x, >= 1.
        n_points (`int`, defaults to 101):
            Points of a prompt, >= 2; the last is the query.
        batch_size (`int`, defaults to 128):
            Prompts of a step, >= 1.
        max_steps (`int`, defaults to 600):
            Steps of a training, >= 1.
        learning_rate (`float`, defaults to 0.02):
            Adam's, > 0, at the first step; it falls to 0 as a cosine.
    """

    n_dims: int = 5
    n_points: int = 101
    batch_size: int = 128
    max_steps: int = 600
    learning_rate: float = 0.02

    def __post_init__(self):
        check_at_least_one(n_dims=self.n_dims, batch_size=self.batch_size, max_steps=self.max_steps)
        if self.n_points < 2:
            raise ValueError(f"`n_points` must be >= 2, an example and the query, got {self.n_points}.")
        if not 0 < self.learning_rate < float("inf"):
            raise ValueError(f"`learning_rate` must be a finite number > 0, got {self.learning_rate}.")

    @property
    def task(self) -> LinearRegression:
        """The task that prompts are drawn from, before their inputs get a spectrum."""
        return LinearRegression(self.n_dims, self.n_points)

    @property
    def basis(self) -> torch.Tensor:
        """The eigenvectors of every spectrum, in columns `(D, D)`."""
        generator = make_generator("linear_attention basis", 0)
        return torch.linalg.qr(torch.randn(self.n_dims, self.n_dims, generator=generator, dtype=torch.float64)).Q

    def with_spectrum(self, prompts: dict[str, torch.Tensor], values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """
        Give the inputs of prompts the covariance with these eigenvalues `(B, D)`.

        The ys stay, so that w ~ N(0, covariance^-1) and predicting 0 has the same error whatever the spectrum.

        Returns:
            xs `(B, P, D)`, the examples' ys `(B, P - 1)` and the query's y `(B,)`, float64.
        """
        xs = prompts["xs"].double() * values.sqrt().unsqueeze(1) @ self.basis.mT
        ys = prompts["ys"].double()
        return xs, ys[:, :-1], ys[:, -1]


def train(model: LinearAttention, n_loops: int, spectrum: Eigenvalues, settings: Settings, seed: int):
    """Train the prediction after `n_loops` loops by Adam on fresh prompts of the seed."""
    stream = Stream(settings.task, settings.batch_size, {}, seed, split="linear_attention")
    optimizer = torch.optim.Adam(model.parameters(), settings.learning_rate, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.max_steps)
    for step in range(settings.max_steps):
        generator = make_generator("linear_attention spectrum", seed, step)
        values = spectrum(settings.batch_size, settings.n_dims, generator)
        xs, ys, labels = settings.with_spectrum(stream.batch(step), values)
        loss = (model(xs, ys, n_loops)[:, -1] - labels).square().mean() / settings.task.normaliser
        optimizer.zero_grad()
        loss.backward()
        if nn.utils.clip_grad_norm_(model.parameters(), MAX_NORM).isfinite():  # else a prompt has overflowed
            optimizer.step()
        schedule.step()
