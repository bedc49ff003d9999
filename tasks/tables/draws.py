"""Small random draws and scalings that the parts of made-up tables share."""

from collections.abc import Sequence

import torch


def draw_kinds(n: int, weights: Sequence[float], generator: torch.Generator) -> torch.Tensor:
    """n kinds in 0 ... len(weights) - 1, int64, each as likely as its weight (>= 0)."""
    return torch.multinomial(torch.tensor(weights, dtype=torch.float), n, replacement=True, generator=generator)


def standardise(values: torch.Tensor, n_seen: int | None = None, most: float = 10.0) -> torch.Tensor:
    """
    Bring every column of `(B, P, D)` to mean 0 and deviation 1 over its first `n_seen` rows, by default all.

    Missing values (NaN) are not counted and stay; a column of equal values becomes 0; values end at +-`most`.
    """
    seen = values[:, :n_seen]
    mean = seen.nanmean(dim=1, keepdim=True).nan_to_num()
    deviation = (seen - mean).square().nanmean(dim=1, keepdim=True).sqrt().nan_to_num()
    varies = deviation > 1e-6 * (1 + mean.abs())
    scaled = torch.where(varies, (values - mean) / deviation, 0 * values)
    return scaled.clamp(-most, most)
