"""The posterior mean of one of a few known linear functions seen through noise."""

import torch


def predict_discrete_posterior(
    xs: torch.Tensor, ys: torch.Tensor, query: torch.Tensor, functions: torch.Tensor, noise_std: float
) -> torch.Tensor:
    """
    Predict the mean of w·x over the given w, each by its probability given the examples; before, all are as likely.

    No predictor has a smaller expected error where w is one of them. Source: Raventós et al., "Pretraining task
    diversity and the emergence of non-Bayesian in-context learning for regression" (2023), who call it dMMSE.

    Args:
        xs (`torch.Tensor` of shape `(B, n, D)`), ys (`torch.Tensor` of shape `(B, n)`):
            Examples, n >= 0.
        query (`torch.Tensor` of shape `(B, D)`):
            Where to predict.
        functions (`torch.Tensor` of shape `(M, D)`):
            The w.
        noise_std (`float`):
            Standard deviation of the normal noise in ys, > 0.

    Returns:
        `torch.Tensor` of shape `(B,)`.
    """
    weights = functions.to(xs).mT
    distances = (ys.unsqueeze(2) - xs @ weights).square().sum(dim=1)  # (B, M)
    return ((-distances / (2 * noise_std**2)).softmax(dim=1) * (query @ weights)).sum(dim=1)
