"""The base of all tasks of tables: a prompt is labelled rows, and asks for the class of one more."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from ..baselines.prefixes import Predictor
from ..common import Prompts, Task, check_at_least_one
from .classifiers import predict_logistic_regression, predict_majority_of_3_nearest


@dataclass(frozen=True)
class TableTask(Task):
    """
    Tables whose rows have classes; a prompt is rows of one table with their classes, each class equally likely.

    Columns are standardised; those that a table lacks are zero. A subclass defines `sample_rows`.

    Args:
        n_dims (`int`, defaults to 20):
            Largest number of columns D that a prompt shows, >= 1.
        n_points (`int`, defaults to 41):
            Rows P of a prompt, >= 1.
        n_labels (`int`, defaults to 2):
            Classes of a prompt, >= 2.
    """

    objective = "classification"
    score_name = "share of wrong classes"
    place_name = "in-context examples"

    n_dims: int = 20
    n_points: int = 41
    n_labels: int = 2

    def __post_init__(self):
        check_at_least_one(n_dims=self.n_dims, n_points=self.n_points, n_labels=self.n_labels)
        if self.n_labels < 2:
            raise ValueError(f"`n_labels` must be >= 2, got {self.n_labels}.")

    @property
    def sizes(self) -> dict[str, int]:
        return {"n_points": self.n_points, "n_columns": self.n_dims}

    @property
    def model_fields(self) -> dict[str, int]:
        return {"n_dims": self.n_dims, "n_positions": 2 * self.n_points, "num_labels": self.n_labels}

    @property
    def baselines(self) -> Mapping[str, Predictor]:
        return {
            "logistic regression": predict_logistic_regression,
            "3-nearest neighbours": predict_majority_of_3_nearest,
        }

    def check_sizes(self, n_points: int | None = None, n_columns: int | None = None):
        if n_points is not None:
            check_at_least_one(n_points=n_points)
        if n_columns is not None:
            check_at_least_one(n_columns=n_columns)
            if n_columns > self.n_dims:
                raise ValueError(f"`n_columns` must be <= `n_dims` = {self.n_dims}, got {n_columns}.")

    def sample_rows(self, labels: torch.Tensor, n_columns: int, generator: torch.Generator) -> torch.Tensor:
        """Draw a table per prompt and a row of it for each of the `labels` `(B, P)`; returns xs `(B, P, D)`."""
        raise NotImplementedError(f"{type(self).__name__} must define `sample_rows`.")

    def sample(
        self,
        n_prompts: int,
        generator: torch.Generator,
        with_hints: bool = False,
        n_points: int | None = None,
        n_columns: int | None = None,
    ) -> Prompts:
        """
        Draw prompts as [`Task.sample`] says, one table per prompt.

        Returns:
            `xs` of shape `(B, P, D)`, float32, and `ys` and `labels`, the same classes, of shape `(B, P)`, int64.
        """
        sizes = self.checked_sizes(n_prompts, with_hints, n_points=n_points, n_columns=n_columns)
        shape = (n_prompts, sizes["n_points"])
        labels = torch.randint(self.n_labels, shape, generator=generator, device=generator.device)
        return {"xs": self.sample_rows(labels, sizes["n_columns"], generator), "ys": labels, "labels": labels}

    def score(self, answers: np.ndarray, prompts: Prompts) -> np.ndarray:
        """1 where the class is wrong and 0 where it is right, `(B, P)`."""
        return (answers != prompts["labels"].numpy()).astype(np.float64)
