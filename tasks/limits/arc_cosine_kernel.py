"""The best predictor, linear in y, of random 2-layer ReLU networks."""

import torch


def predict_arc_cosine_kernel(xs: torch.Tensor, ys: torch.Tensor, query: torch.Tensor) -> torch.Tensor:
    """
    Predict a random 2-layer ReLU network by the best linear function of the ys, from its exact covariance.

    Cov(f(x), f(x')) = |x||x'| (sin t + (pi - t) cos t) / pi, t the angle between x and x', whatever the width.
    Source: Cho and Saul, "Kernel Methods for Deep Learning" (2009), the arc-cosine kernel of degree 1.
    """
    gram = _arc_cosine(xs, xs)
    gram = gram + 1e-9 * torch.diag_embed(gram.diagonal(dim1=1, dim2=2))
    weights = torch.linalg.solve(gram, ys.unsqueeze(-1))
    return (_arc_cosine(query.unsqueeze(1), xs) @ weights).flatten()


def _arc_cosine(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Covariances `(B, m, n)` of the values at `(B, m, D)` and `(B, n, D)`."""
    lengths = first.norm(dim=-1).unsqueeze(2) * second.norm(dim=-1).unsqueeze(1)
    cosine = (first @ second.mT / lengths.clamp(min=1e-300)).clamp(-1, 1)
    angle = cosine.acos()
    return lengths * (angle.sin() + (torch.pi - angle) * cosine) / torch.pi
