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
