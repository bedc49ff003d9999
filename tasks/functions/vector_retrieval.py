"""Tables of keys and values, both vectors: associative recall (Arora et al., 2023; Park et al., 2024)."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn.functional import normalize, pad

from ..common import FunctionClass, NamedPredictor, Prompts, check_at_least_one, draw_normal


@dataclass(frozen=True)
class VectorRetrieval(FunctionClass):
    """
    The value of a key: a function from `n_keys` random vectors to random vectors, all uniform on spheres.

    Every point asks for a key drawn uniformly, so after n examples it has been seen with the probability
    1 - (1 - 1 / `n_keys`)^n. Values are vectors of `n_dims` numbers and of length sqrt(`n_dims`); keys have the length
    sqrt(`n_dims_active`).

    Park et al. show 64 keys once and ask at the end for one of them. Their code
    (github.com/krafton-ai/mambaformer-icl, `src/samplers.py`) draws the place of the question from one too many, so
    that in one prompt of 65 it is a vector that was never shown.

    Args:
        n_dims (`int`, defaults to 20), n_points (`int`, defaults to 41):
            As in every class.
        n_keys (`int`, defaults to 16):
            Keys of a prompt, >= 1.
    """

    name = "vector_retrieval"
    description = "tables of keys and values"
    n_keys: int = 16

    def __post_init__(self):
        super().__post_init__()
        check_at_least_one(n_keys=self.n_keys)

    @property
    def n_outputs(self) -> int:
        return self.n_dims

    @property
    def normaliser(self) -> float:
        return float(self.n_dims)

    @property
    def limit(self) -> NamedPredictor:
        return NamedPredictor("lookup", predict_lookup)

    @property
    def solver(self) -> NamedPredictor:
        return self.limit

    def draw_functions(self, n_prompts: int, n_dims_active: int, generator: torch.Generator) -> "DrawnTables":
        keys = _draw_on_sphere((n_prompts, self.n_keys, n_dims_active), generator)
        values = _draw_on_sphere((n_prompts, self.n_keys, self.n_outputs), generator)
        return DrawnTables(pad(keys, (0, self.n_dims - n_dims_active)), values)

    def draw_points(
        self,
        function: Callable[[torch.Tensor], torch.Tensor],
        n_prompts: int,
        n_points: int,
        n_dims_active: int,
        generator: torch.Generator,
    ) -> Prompts:
        chosen = torch.randint(self.n_keys, (n_prompts, n_points), generator=generator, device=generator.device)
        xs = _take(function.keys, chosen)
        labels = function(xs)
        return {"xs": xs, "ys": labels, "labels": labels}


class DrawnTables:
    """
    A table per prompt.

    Args:
        keys (`torch.Tensor` of shape `(n_prompts, n_keys, n_dims)`), values (`(n_prompts, n_keys, n_outputs)`):
            Its rows. All keys are of one length.
    """

    def __init__(self, keys: torch.Tensor, values: torch.Tensor):
        self.keys, self.values = keys, values

    def __call__(self, xs: torch.Tensor) -> torch.Tensor:
        """Values `(n_prompts, n_points, n_outputs)` of the keys nearest to xs `(n_prompts, n_points, n_dims)`."""
        return _take(self.values, (xs @ self.keys.mT).argmax(dim=2))


def predict_lookup(xs: torch.Tensor, ys: torch.Tensor, query: torch.Tensor) -> torch.Tensor:
    """Predict the y of the first example whose x is the query, 0 where there is none: the posterior mean."""
    is_same = (xs == query.unsqueeze(1)).all(dim=2)
    return ys.gather(1, is_same.long().argmax(dim=1, keepdim=True)).squeeze(1) * is_same.any(dim=1)


def _take(rows: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """The chosen `(B, P)` of rows `(B, K, D)`: `(B, P, D)`."""
    return rows.gather(1, chosen.unsqueeze(2).expand(-1, -1, rows.shape[2]))


def _draw_on_sphere(shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    """Vectors along the last axis, uniform on the sphere where their numbers have a mean square of 1."""
    return shape[-1] ** 0.5 * normalize(draw_normal(shape, generator), dim=-1)
