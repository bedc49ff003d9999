"""Rows with loops of their own beside a sum over rows, loops and places."""

import pytest
import torch

from modeling_looped_gpt2 import LoopedGPT2Config, LoopedGPT2LMHeadModel
from scripts.training.objectives import AnswerSlots
from scripts.training.objectives.own_loops import OwnLoops


NEEDED, LAST = [1, 3, 2, 4], [1, 5, 4, 4]


@pytest.fixture
def model():
    torch.manual_seed(0)
    config = LoopedGPT2Config(n_embd=8, n_head=2, n_positions=6, n_loops=3, vocab_size=7, initializer_range=0.3)
    return LoopedGPT2LMHeadModel(config).train()


@pytest.fixture
def batch():
    torch.manual_seed(1)
    asked = torch.tensor([[0, 0, 1, 0, 1, 1], [0, 0, 0, 0, 0, 1], [1] * 6, [0, 1, 1, 0, 0, 0]]).bool()
    return {
        "input_ids": torch.randint(7, (4, 6)),
        "labels": torch.where(asked, torch.randint(7, (4, 6)), -100),
        "needed_loops": torch.tensor(NEEDED),
        "n_loops": torch.tensor(LAST),
    }


def naive(model, batch, doubt_weight):
    """The loss, row by row, and its parts."""
    answered, doubted = [], []
    for row in range(4):
        places = (batch["labels"][row] != -100).nonzero()[:, 0].tolist()
        early, late = [], []
        for loop in range(1, LAST[row] + 1):
            logits = model(batch["input_ids"][row : row + 1], n_loops=loop).logits[0]
            for place in places:
                logs = logits[place].log_softmax(dim=0)
                if loop >= NEEDED[row]:
                    late.append(-logs[batch["labels"][row, place]])
                elif place == places[-1]:
                    uniform = torch.full((7,), 1 / 7)
                    early.append((uniform * (uniform.log() - logs)).sum())
        answered.append(sum(late) / len(late))
        doubted.append(sum(early) / max(len(early), 1))
    return sum(answered) / 4, sum(doubted) / 4


@pytest.mark.parametrize("doubt_weight", [0.0, 0.5])
def test_a_row_is_scored_from_the_loop_that_it_needs_to_its_last(model, batch, doubt_weight):
    loss, means = OwnLoops(AnswerSlots(), doubt_weight)(model, batch, {"n_loops": 3, "loop_window": None})
    error, doubt = naive(model, batch, doubt_weight)
    expected = error + doubt_weight * doubt
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(means["loss"], error.detach())
    assert next(iter(means)) == "loss"
    assert means.keys() == {"loss", "error_rate"} | ({"doubt"} if doubt_weight else set())
    if doubt_weight:
        torch.testing.assert_close(means["doubt"], doubt.detach())
    parameters = list(model.parameters())
    grads = zip(torch.autograd.grad(loss, parameters), torch.autograd.grad(expected, parameters), strict=True)
    for found, wanted in grads:
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-5)


def test_a_model_that_knows_from_the_loop_it_needs_has_no_loss(model, batch):
    """Logits that are equal before the needed loop and sure after it have neither loss nor doubt."""

    class Knowing(torch.nn.Module):
        def forward(self, n_loops, **columns):
            sure = 100 * torch.nn.functional.one_hot(batch["labels"].clamp(min=0), 7).float()
            runs = [(batch["needed_loops"] <= n) & (n <= batch["n_loops"]) for n in range(1, n_loops + 1)]
            logits = [sure * each[:, None, None] for each in runs]
            return type("Outputs", (), {"loss": torch.zeros(()), "logits": logits[-1], "loop_logits": logits})

    loss, means = OwnLoops(AnswerSlots(), 1.0)(Knowing(), batch, {})
    assert loss == pytest.approx(0, abs=1e-5)
    assert means["doubt"] == pytest.approx(0, abs=1e-5)
    assert means["error_rate"] == 0


def test_the_error_rate_is_that_after_the_last_loop_of_each_row(model, batch):
    _, means = OwnLoops(AnswerSlots(), 0.0)(model, batch, {"n_loops": 3, "loop_window": None})
    n_wrong = n_asked = 0
    for row, last in enumerate(LAST):
        labels = batch["labels"][row]
        answers = model(batch["input_ids"][row : row + 1], n_loops=last).logits[0].argmax(dim=-1)
        n_wrong += ((answers != labels) & (labels != -100)).sum()
        n_asked += (labels != -100).sum()
    assert means["error_rate"] == n_wrong / n_asked


def test_answers_are_those_of_the_objective(model, batch):
    own, plain = OwnLoops(AnswerSlots(), 1.0), AnswerSlots()
    assert torch.equal(own.answers(model.eval(), batch), plain.answers(model, batch))
    assert own.auto_class == plain.auto_class
