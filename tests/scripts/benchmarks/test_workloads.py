import argparse

import pytest
import torch

from scripts.benchmarks.peak_memory import PeakMemory
from scripts.benchmarks.workloads import NaiveLoop, Workload


SIZES = {"batch_size": 2, "n_dims": 3, "n_points": 12, "n_embd": 64, "n_loops": 10, "loop_window": 8, "n_queries": 5}


@pytest.fixture
def workload():
    return Workload(argparse.Namespace(**SIZES), torch.device("cpu"))


def test_the_naive_loop_computes_what_the_model_computes(make_model, prompts):
    model = make_model()
    naive = NaiveLoop(model.config)
    naive.load_state_dict(model.state_dict(), strict=False)
    by_loop = model(
        prompts["xs"], prompts["ys"], n_loops=5, loop_window=3, output_loop_predictions=True
    ).loop_predictions
    torch.testing.assert_close(naive(prompts["xs"], prompts["ys"], 5, 3), by_loop, rtol=1e-4, atol=1e-5)


def test_both_ways_of_a_prediction_compute_the_same(workload):
    workload.naive.load_state_dict(workload.model.state_dict(), strict=False)
    with torch.no_grad():
        ours, naive = (step() for step in workload.predictions().values())
        torch.testing.assert_close(ours.predictions, naive[:, -1], rtol=1e-3, atol=1e-4)
        ours, naive = (step() for step in workload.queries().values())
        torch.testing.assert_close(ours[0], naive, rtol=1e-3, atol=1e-4)


def test_a_context_with_one_more_example_is_measured_again_and_again(workload):
    step = workload.added_example()["LoopedGPT2"]
    assert torch.equal(step(), step())


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
def test_memory_grows_with_the_window_alone_and_checkpointing_spares_it(workload):
    peaks = {}
    for name, step in workload.memory().items():
        step()
        with PeakMemory() as memory:
            step()
        peaks[name] = memory.peak
    assert peaks["prediction, 40 loops"] == peaks["prediction, 10 loops"]
    window = peaks["training, last 8 of 8 loops"]
    assert peaks["training, last 8 of 10 loops"] == pytest.approx(window, rel=0.01)
    assert peaks["training, last 10 of 10 loops"] > 1.1 * window
    assert peaks["the same, 8 of 10, checkpointed"] < 0.5 * window
