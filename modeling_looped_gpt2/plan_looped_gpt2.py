"""Which block runs when: in which part of the model, in which loop and on which slot of the cache."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple


# the model's lists of blocks, in the order in which they run: once before the loops, in every loop, once after them
PARTS = ("prelude", "h", "coda")


class Step(NamedTuple):
    """
    One block at one moment.

    Args:
        part (`str`):
            The list that holds the block, one of `PARTS`.
        block (`int`):
            Its place in that list.
        slot (`int`):
            The slot of the cache that holds the keys and values of earlier tokens.
        keeps (`bool`, defaults to `True`):
            Whether the step leaves the new tokens in its slot, or only reads the tokens that are there.
    """

    part: str
    block: int
    slot: int
    keeps: bool = True


@dataclass(frozen=True)
class Plan:
    """
    The steps of one call, in the order in which they run. It holds only names and numbers, no model.

    Args:
        prelude (`tuple[Step, ...]`), coda (`tuple[Step, ...]`):
            Steps before the first loop and after the last.
        loops (`tuple[tuple[Step, ...], ...]`):
            Steps of each loop.
    """

    prelude: tuple[Step, ...]
    loops: tuple[tuple[Step, ...], ...]
    coda: tuple[Step, ...]

    @property
    def steps(self) -> tuple[Step, ...]:
        """All steps in their order."""
        return (*self.prelude, *(step for loop in self.loops for step in loop), *self.coda)

    @property
    def depth(self) -> int:
        """Blocks that a call executes."""
        return len(self.steps)

    @property
    def n_slots(self) -> int:
        """Slots of the cache that a call fills."""
        return len({step.slot for step in self.steps})


def make_plan(
    n_blocks: Mapping[str, int], n_loops: int, loops_per_slot: int = 1, block_loops: Sequence[int] | None = None
) -> Plan:
    """
    Return the plan of a call: the blocks of every part one after another, those of the loop `n_loops` times.

    Args:
        n_blocks (`Mapping[str, int]`):
            Blocks of each of `PARTS`, >= 0, and >= 1 in the loop.
        n_loops (`int`):
            Loops of the call, >= 1.
        loops_per_slot (`int`, defaults to 1):
            Loops that share a slot, >= 1. The last loop of every such group keeps its keys and values.
        block_loops (`Sequence[int]`, *optional*, defaults to 1 for each):
            Times that each block of the loop runs in a row within every loop, >= 1.
    """
    times = block_loops or [1] * n_blocks["h"]
    order = [block for block in range(n_blocks["h"]) for _ in range(times[block])]  # of the steps in a loop
    loops = []
    for loop in range(n_loops):
        slot = n_blocks["prelude"] + loop // loops_per_slot * len(order)
        keeps = loop == n_loops - 1 or loop % loops_per_slot == loops_per_slot - 1
        loops.append(tuple(Step("h", block, slot + place, keeps) for place, block in enumerate(order)))
    after_loops = n_blocks["prelude"] + -(-n_loops // loops_per_slot) * len(order)
    return Plan(
        prelude=tuple(Step("prelude", block, block) for block in range(n_blocks["prelude"])),
        loops=tuple(loops),
        coda=tuple(Step("coda", block, after_loops + block) for block in range(n_blocks["coda"])),
    )
