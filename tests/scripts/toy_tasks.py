"""Small tasks of other objectives than regression."""

from dataclasses import dataclass

import numpy as np
import torch

from tasks import FunctionClass, Task
from tasks.common import NamedPredictor


def predict_last_class(xs, ys, query):
    """The class of the example before."""
    return ys[:, -1]


@dataclass(frozen=True)
class TwoClasses(Task):
    """Points of two classes, told by the sign of their first coordinate."""

    name = "two_classes"
    objective = "classification"
    score_name = "share of wrong classes"
    place_name = "in-context examples"

    @property
    def model_fields(self):
        return {"n_dims": 3, "num_labels": 2, "n_positions": 10}

    @property
    def baselines(self):
        return {"last class": predict_last_class}

    @property
    def limit(self):
        return NamedPredictor("the sign", lambda xs, ys, query: (query[:, 0] > 0).double())

    @property
    def sizes(self):
        return {}

    def sample(self, n_prompts, generator, with_hints=False):
        xs = torch.randn(n_prompts, 5, 3, generator=generator)
        labels = (xs[..., 0] > 0).long()
        return {"xs": xs, "ys": labels, "labels": labels}

    def score(self, answers, prompts):
        return (answers != prompts["labels"].numpy()).astype(np.float64)


@dataclass(frozen=True)
class Copies(Task):
    """Some of the first three tokens are to be said again by the last three; a place is a token that is asked for."""

    name = "copies"
    objective = "answer_slots"
    score_name = "share of wrong answers"
    place_name = "tokens back"
    share: float = 0.7

    @property
    def model_fields(self):
        return {"vocab_size": 5, "n_positions": 6}

    @property
    def sizes(self):
        return {}

    def sample(self, n_prompts, generator, with_hints=False):
        first = torch.randint(4, (n_prompts, 3), generator=generator)
        is_asked = torch.rand(n_prompts, 3, generator=generator) < self.share
        labels = torch.cat((torch.full_like(first, -100), torch.where(is_asked, first, -100)), dim=1)
        return {"input_ids": torch.cat((first, torch.full_like(first, 4)), dim=1), "labels": labels}

    def score(self, answers, prompts):
        labels = prompts["labels"].numpy()[:, 3:]
        return np.where(labels == -100, np.nan, answers[:, 3:] != labels)


@dataclass(frozen=True)
class Vectors(FunctionClass):
    """Two linear functions at once."""

    name = "vectors"
    n_outputs = 2

    @property
    def normaliser(self):
        return 2.0 * self.n_dims

    def draw_functions(self, n_prompts, n_dims_active, generator):
        weights = torch.randn(n_prompts, self.n_dims, 2, generator=generator)
        return lambda xs: xs @ weights


@dataclass(frozen=True)
class Tables(Task):
    """Tables of any size with missing cells: a row sums its cells, or has the class of whether the sum is positive."""

    name = "tables"
    score_name = "share of wrong classes, or squared error"
    place_name = "queries"
    has_queries = True

    kind: str = "regression"

    @property
    def objective(self):
        return self.kind

    @property
    def sizes(self):
        return {"n_points": 12}

    @property
    def model_fields(self):
        return {"num_labels": 2, "n_positions": 12}

    def check_sizes(self, n_points=12):
        assert n_points >= 4

    def n_tokens(self, n_points):
        return n_points * 5

    def draw_shape(self, generator, n_points=12):
        ranges = ((4, n_points), (1, 4))
        return tuple(int(torch.randint(least, most + 1, (), generator=generator)) for least, most in ranges)

    def sample(self, n_prompts, generator, with_hints=False, n_points=12):
        n_rows, n_columns = self.draw_shape(generator, n_points)
        xs = torch.randn(n_prompts, n_rows, n_columns, generator=generator)
        ys = xs.sum(dim=-1)
        ys = ys if self.kind == "regression" else (ys > 0).long()
        xs = xs.masked_fill(torch.rand(xs.shape, generator=generator) < 0.1, float("nan"))
        return {"xs": xs, "ys": ys[:, : n_rows // 2], "labels": ys[:, n_rows // 2 :]}

    def score(self, answers, prompts):
        labels = prompts["labels"].numpy()
        return (answers != labels).astype(float) if self.kind == "classification" else (answers - labels) ** 2
