"""Parts are scored as one, each prompt after loops of its own."""

import numpy as np
import pytest
import torch

from scripts.evaluation.loop_scores import LoopScores, first_prompts
from tests.scripts.toy_tasks import TwoClasses


PARTS = [TwoClasses().sample(n_prompts, torch.Generator().manual_seed(n_prompts)) for n_prompts in (3, 1, 4)]


def test_each_prompt_is_scored_after_its_own_loops():
    generator = np.random.default_rng(0)
    by_loop = [generator.integers(2, size=(len(part["labels"]), 6, 5)) for part in PARTS]
    scores, loops = LoopScores(TwoClasses(), PARTS, by_loop), np.arange(8) % 6 + 1
    assert (scores.n_prompts, scores.n_loops) == (8, 6)
    answers, labels = np.concatenate(by_loop), np.concatenate([part["labels"] for part in PARTS])
    for asked in (1, 6, loops):
        chosen = answers[np.arange(8), np.broadcast_to(asked, 8) - 1]
        np.testing.assert_array_equal(scores.after(asked), chosen != labels)


@pytest.mark.parametrize("n_first", [1, 3, 5, 8, 9])
def test_the_first_prompts_and_the_others_are_all_of_them_in_their_order(n_first):
    some, others = first_prompts(PARTS, n_first)
    assert sum(len(part["labels"]) for part in some) == min(n_first, 8)
    for name in ("xs", "labels"):
        joined = torch.cat([part[name] for part in (*some, *others)])
        assert torch.equal(joined, torch.cat([part[name] for part in PARTS]))
    assert all(len(part["labels"]) for part in (*some, *others))
