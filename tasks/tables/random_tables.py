"""Random tables: classes are Gaussian clouds, more or less far apart, with correlated columns."""

from dataclasses import dataclass

import torch

from ..common import draw_normal
from .common import TableTask


MOST_SPARE_CLASSES = 3  # classes that a table has and a prompt does not show


@dataclass(frozen=True)
class RandomTables(TableTask):
    """
    Tables of 1 ... `n_columns` columns and up to three classes more than a prompt shows.

    Columns are standardised over all classes, shown or not, so that the classes of a prompt do not always lie on both
    sides of zero. A row is the centre of its class plus normal noise that mixes the columns.
    """

    name = "random_tables"
    description = "random tables"

    def sample_rows(self, labels: torch.Tensor, n_columns: int, generator: torch.Generator) -> torch.Tensor:
        n_prompts, device = len(labels), generator.device
        # C classes, K of them in the table; D columns, `width` of them in use
        n_classes = self.n_labels + MOST_SPARE_CLASSES
        width = torch.randint(1, n_columns + 1, (n_prompts, 1, 1), generator=generator, device=device)
        in_use = torch.arange(self.n_dims, device=device) < width
        n_spare = torch.randint(MOST_SPARE_CLASSES + 1, (n_prompts, 1, 1), generator=generator, device=device)
        in_table = torch.arange(n_classes, device=device)[:, None] < self.n_labels + n_spare

        distance = 1 + 3 * torch.rand(n_prompts, 1, 1, generator=generator, device=device)
        centres = distance * draw_normal((n_prompts, n_classes, self.n_dims), generator) / width.sqrt()
        mixing = draw_normal((n_prompts, self.n_dims, self.n_dims), generator) / width.sqrt()
        mixing = (mixing + torch.eye(self.n_dims, device=device)) * in_use.mT
        weight = in_table / in_table.sum(dim=1, keepdim=True)  # (B, C, 1)
        mean = (weight * centres).sum(dim=1, keepdim=True)
        variance = (weight * (centres - mean) ** 2).sum(dim=1, keepdim=True) + mixing.square().sum(1, keepdim=True)
        noise = draw_normal((*labels.shape, self.n_dims), generator) @ mixing
        rows = centres.gather(1, labels.unsqueeze(2).expand(-1, -1, self.n_dims)) + noise
        return (rows - mean) / variance.sqrt() * in_use
