"""Pointer chains: prompts whose answer takes as many dependent look-ups as a chain is long."""

import torch


def sample_chains(n_prompts: int, n_nodes: int, max_hops: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """
    Draw prompts that list where every node points and ask where the chain of every node ends.

    The nodes, numbered 0 ... n_nodes - 1, form chains of random order in which each node points to the next and the
    last to itself. A prompt lists all pairs (node, pointer) in random order and then all nodes, in another, as
    queries. The answer to a query is the last node of its chain, `hops` pointers away.

    Args:
        n_prompts (`int`):
            P >= 1.
        n_nodes (`int`):
            N >= 2.
        max_hops (`int`):
            Longest chain, in pointers from its first node to its last, in 1 ... N - 1.
        generator (`torch.Generator`):
            On the CPU; decides all.

    Returns:
        `dict` of `torch.LongTensor`: `input_ids` `(P, 3 N)`, and for the last N of them, the queries, `answers`
        `(P, N)` and `hops` `(P, N)`.

    Raises:
        `ValueError`: a number is out of its range.
    """
    if n_prompts < 1 or n_nodes < 2:
        raise ValueError(f"`n_prompts` must be >= 1 and `n_nodes` >= 2, got {n_prompts} and {n_nodes}.")
    if not 1 <= max_hops < n_nodes:
        raise ValueError(f"`max_hops` must be in 1 ... `n_nodes` - 1 = {n_nodes - 1}, got {max_hops}.")

    def permutations() -> torch.Tensor:
        return torch.rand(n_prompts, n_nodes, generator=generator).argsort(dim=1)

    nodes = permutations()  # chain after chain
    ends = torch.rand(n_prompts, n_nodes, generator=generator) < 1 / (max_hops + 1)
    length = torch.zeros(n_prompts, dtype=torch.long)
    for place in range(n_nodes):
        ends[:, place] |= (length == max_hops) | (place == n_nodes - 1)
        length = torch.where(ends[:, place], 0, length + 1)
    pointers, answers, hops = nodes.clone(), nodes.clone(), torch.zeros_like(nodes)
    for place in reversed(range(n_nodes - 1)):
        goes_on = ~ends[:, place]
        pointers[goes_on, place] = nodes[goes_on, place + 1]
        answers[goes_on, place] = answers[goes_on, place + 1]
        hops[goes_on, place] = hops[goes_on, place + 1] + 1

    pair_order, query_order = permutations(), permutations()
    pairs = torch.stack((nodes.gather(1, pair_order), pointers.gather(1, pair_order)), dim=-1).flatten(1)
    queries, answers, hops = (values.gather(1, query_order) for values in (nodes, answers, hops))
    return {"input_ids": torch.cat((pairs, queries), dim=1), "answers": answers, "hops": hops}
