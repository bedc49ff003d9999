import numpy as np
import pytest
import torch

from modeling_looped_gpt2 import LoopedGPT2Config, LoopedGPT2LMHeadModel
from scripts.benchmarks.stop_rules import (
    THRESHOLDS,
    benchmark_stop_rules,
    beside_random_exit,
    last_errors,
    loops_used,
    rules_of,
)
from scripts.training.objectives import AnswerSlots, Regression
from tasks import make_task
from tasks.streams import make_generator


@pytest.fixture
def chains():
    task = make_task("pointer_chains", n_nodes=5, max_hops=2)
    config = LoopedGPT2Config(
        n_embd=16, n_head=2, n_loops=6, exit_gate=True, initializer_range=0.3, **task.model_fields
    )
    return LoopedGPT2LMHeadModel(config).eval(), AnswerSlots(), task, task.sample(30, make_generator("evaluation", 0))


def test_a_rule_that_knows_beats_a_random_exit_and_one_that_does_not_is_said_not_to():
    generator = np.random.default_rng(0)
    needed = generator.integers(1, 7, size=400)
    errors = (np.arange(1, 7) < needed[:, None]).astype(float)
    knows = beside_random_exit(errors, needed)
    assert knows["error"] == 0
    assert knows["beats_random"]
    blind = beside_random_exit(errors, generator.permutation(needed))
    assert not blind["beats_random"]
    assert blind["random_error"] == pytest.approx(knows["random_error"])
    same = beside_random_exit(errors, np.full(400, 3))  # the same for all is its own random exit
    assert same["error"] == same["random_error"] == pytest.approx(same["fixed_error"])
    assert not same["beats_random"]


def test_the_random_exit_is_the_mean_of_permuted_loops(chains):
    """Loops that are given to other prompts, by the model itself."""
    model, objective, task, prompts = chains
    errors = last_errors(objective, task, model, prompts, 6)
    used = loops_used(objective, model, prompts, 6, {"exit_tolerance": 0.3})
    assert len(set(used)) > 1
    row = beside_random_exit(errors, used)
    labels = prompts["labels"][:, -1]

    def error_of(loops):
        logits = model(prompts["input_ids"], n_loops=torch.as_tensor(loops), use_cache=False).logits
        return (logits[:, -1].argmax(-1) != labels).float().mean().item()

    assert row["error"] == pytest.approx(error_of(used))
    shifted = [error_of(np.roll(used, shift)) for shift in range(len(used))]  # every prompt gets every number once
    assert row["random_error"] == pytest.approx(np.mean(shifted))


def test_a_model_has_the_rules_that_it_can_end_by(chains, make_model):
    assert rules_of(chains[0]) == THRESHOLDS
    assert list(rules_of(make_model())) == ["exit_tolerance"]
    config = LoopedGPT2Config(n_embd=16, n_head=2, vocab_size=7, n_coda=1)
    assert list(rules_of(LoopedGPT2LMHeadModel(config))) == ["exit_tolerance"]


def test_the_last_point_of_a_set_is_asked(make_model, prompts):
    model = make_model(example_order="set")
    used = loops_used(Regression(), model, prompts, 6, {"exit_tolerance": 0.1})
    expected = model(prompts["xs"], prompts["ys"][:, :-1], n_loops=6, exit_tolerance=0.1).n_loops_used
    assert used.tolist() == expected.tolist()


@pytest.mark.parametrize("batch_size", [7, 64])
def test_every_rule_is_measured_at_every_threshold(chains, batch_size):
    model, objective, task, prompts = chains
    rows = benchmark_stop_rules(model, objective, task, prompts, 6, batch_size)
    assert len(rows) == sum(map(len, THRESHOLDS.values()))
    assert rows == benchmark_stop_rules(model, objective, task, prompts, 6, 30)
    for row in rows.values():
        assert 1 <= row["mean_loops"] <= 6
        assert row["gain_low"] <= row["gain"] <= row["gain_high"]


def test_errors_of_numbers_are_in_units_of_the_task(make_model):
    model, task = make_model(n_dims=3, n_positions=9), make_task("linear_regression", n_dims=3, n_points=5)
    prompts = task.sample(6, make_generator("evaluation", 0))
    errors = last_errors(Regression(), task, model, prompts, 4)
    for n_loops in (1, 4):
        scores = task.score(Regression().answers(model, prompts, n_loops).numpy(), prompts)
        np.testing.assert_allclose(errors[:, n_loops - 1], scores[:, -1], rtol=1e-4)
