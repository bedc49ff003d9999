"""Pointer chains: prompts whose answer takes as many dependent look-ups as a chain is long."""

from dataclasses import dataclass

import numpy as np
import torch

from ..common import Prompts, Task, check_at_least_one


@dataclass(frozen=True)
class PointerChains(Task):
    """
    A prompt tells where every node points, and asks where the chain of every node ends.

    The N nodes, tokens 0 ... N - 1, form chains of random order in which each node points to the next and the last to
    itself. A prompt lists all pairs (node, pointer) in random order and then all nodes, in another, as queries. The
    answer to a query is the last node of its chain.

    Args:
        n_nodes (`int`, defaults to 12):
            N >= 2.
        max_hops (`int`, defaults to 4):
            Longest chain, in pointers from its first node to its last, in 1 ... N - 1.
    """

    name = "pointer_chains"
    description = "chains of pointers"
    objective = "answer_slots"
    score_name = "share of wrong answers"
    place_name = "pointers to follow"

    n_nodes: int = 12
    max_hops: int = 4

    def __post_init__(self):
        check_at_least_one(n_nodes=self.n_nodes, max_hops=self.max_hops)
        if self.n_nodes < 2:
            raise ValueError(f"`n_nodes` must be >= 2, got {self.n_nodes}.")
        if self.max_hops >= self.n_nodes:
            raise ValueError(f"`max_hops` must be in 1 ... `n_nodes` - 1 = {self.n_nodes - 1}, got {self.max_hops}.")

    @property
    def sizes(self) -> dict[str, int]:
        return {"max_hops": self.max_hops}

    @property
    def model_fields(self) -> dict[str, int]:
        return {"vocab_size": self.n_nodes, "n_positions": 3 * self.n_nodes}

    def check_sizes(self, max_hops: int | None = None):
        if max_hops is not None:
            check_at_least_one(max_hops=max_hops)
            if max_hops > self.max_hops:
                raise ValueError(f"`max_hops` must be <= that of the task, {self.max_hops}, got {max_hops}.")

    def sample(
        self, n_prompts: int, generator: torch.Generator, with_hints: bool = False, max_hops: int | None = None
    ) -> Prompts:
        """
        Draw prompts, as [`Task.sample`] says.

        Returns:
            int64 of shape `(B, 3 N)`: `input_ids`, and `labels`, the answers at the last N places and -100 elsewhere.
        """
        max_hops = self.checked_sizes(n_prompts, with_hints, max_hops=max_hops)["max_hops"]

        def permutations() -> torch.Tensor:
            return torch.rand(n_prompts, self.n_nodes, generator=generator, device=generator.device).argsort(dim=1)

        nodes = permutations()  # chain after chain
        ends = torch.rand(n_prompts, self.n_nodes, generator=generator, device=generator.device) < 1 / (max_hops + 1)
        ends[:, -1] = True
        length = torch.zeros_like(nodes[:, 0])
        for place in range(self.n_nodes):
            ends[:, place] |= length == max_hops
            length = torch.where(ends[:, place], 0, length + 1)
        pointers = torch.where(ends, nodes, nodes.roll(-1, dims=1))
        order = permutations()
        pairs = torch.stack((nodes.gather(1, order), pointers.gather(1, order)), dim=-1).flatten(1)
        input_ids = torch.cat((pairs, nodes.gather(1, permutations())), dim=1)
        labels = torch.full_like(input_ids, -100)
        labels[:, -self.n_nodes :] = self.follow(input_ids)[0]
        return {"input_ids": input_ids, "labels": labels}

    def follow(self, input_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the last node of each query's chain, and the number of pointers to it: `(B, N)` each."""
        pairs, nodes = input_ids[:, : 2 * self.n_nodes].unflatten(1, (-1, 2)), input_ids[:, 2 * self.n_nodes :]
        pointers = torch.empty_like(nodes).scatter(1, pairs[..., 0], pairs[..., 1])
        hops = torch.zeros_like(nodes)
        for _ in range(self.max_hops):
            following = pointers.gather(1, nodes)
            hops += following != nodes
            nodes = following
        return nodes, hops

    def score(self, answers: np.ndarray, prompts: Prompts) -> np.ndarray:
        """Shares of wrong answers, `(B, max_hops + 1)`: entry h is over the queries h pointers from their answer."""
        hops = self.follow(prompts["input_ids"])[1].numpy()
        is_wrong = (answers != prompts["labels"].numpy())[:, -self.n_nodes :]
        has_hops = hops[..., None] == np.arange(self.max_hops + 1)  # (B, N, max_hops + 1)
        n_queries, n_wrong = has_hops.sum(axis=1), (has_hops & is_wrong[..., None]).sum(axis=1)
        return np.divide(n_wrong, n_queries, out=np.full(n_queries.shape, np.nan), where=n_queries > 0)
