"""Probes: small networks that are trained to read a target from a model's states."""

import torch


HIDDEN = 64
BATCH_SIZE = 128


class Probes(torch.nn.Module):
    """K probes side by side: a softmax-weighted average over T tokens, then Linear-ReLU-Linear to D numbers."""

    def __init__(self, n_probes: int, n_tokens: int, n_embd: int, n_dims: int):
        super().__init__()
        self.scores = torch.nn.Parameter(torch.zeros(n_probes, n_tokens))
        self.first = torch.nn.Parameter(torch.empty(n_probes, n_embd, HIDDEN).uniform_(-1, 1) * n_embd**-0.5)
        self.second = torch.nn.Parameter(torch.empty(n_probes, HIDDEN, n_dims).uniform_(-1, 1) * HIDDEN**-0.5)
        self.first_bias = torch.nn.Parameter(torch.zeros(n_probes, 1, HIDDEN))
        self.second_bias = torch.nn.Parameter(torch.zeros(n_probes, 1, n_dims))

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """`(B, T, E)` to `(K, B, D)`."""
        means = torch.einsum("kt,bte->kbe", self.scores.softmax(dim=1), states)
        hidden = torch.baddbmm(self.first_bias, means, self.first).relu()
        return torch.baddbmm(self.second_bias, hidden, self.second)


def errors_of_probes(
    states: torch.Tensor, targets: torch.Tensor, fresh_states: torch.Tensor, fresh_targets: torch.Tensor, n_steps: int
) -> torch.Tensor:
    """Train a probe for each of K targets by Adam on standardised states; returns the errors `(K,)` on fresh ones."""
    torch.manual_seed(0)
    # the input tokens and the states after a loop differ in scale, and one learning rate must suit all
    deviation, mean = torch.std_mean(states, dim=(0, 1))
    deviation = deviation.clamp(min=1e-6)
    probes = Probes(len(targets), states.shape[1], states.shape[2], targets.shape[2])
    optimizer = torch.optim.Adam(probes.parameters(), lr=3e-3, fused=True)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, n_steps)
    for _ in range(n_steps):
        rows = torch.randint(len(states), (BATCH_SIZE,))
        errors = probes((states[rows] - mean) / deviation) - targets[:, rows]
        optimizer.zero_grad()
        errors.square().mean(dim=(1, 2)).sum().backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        return (probes((fresh_states - mean) / deviation) - fresh_targets).square().mean(dim=(1, 2))
