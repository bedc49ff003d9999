from dataclasses import replace

import pytest

from scripts.evaluation.metrics_record import Curve, Interval, Metrics, Settings, StoppedErrors


CURVE = Curve([1.0, 0.5, 0.1], [0.9, 0.4, 0.05], [1.1, 0.6, 0.2])


@pytest.fixture
def metrics():
    """The least that a record holds."""
    settings = {"model": "linear", "task": "linear_regression", "n_points": 3, "n_prompts": 8, "n_loops": 2}
    return Metrics(
        settings=Settings(**settings, n_dims=2, normaliser=2.0, n_parameters=9, weights_sha256="0" * 64),
        error_by_example={"model": CURVE},
        error_by_loop={"last_point": [0.9, 0.1, 0.1, 0.2], "mean": [0.9, 0.5, 0.5, 0.5]},
    )


@pytest.fixture
def full_metrics(metrics):
    """All that a record can hold."""
    shift = dict.fromkeys(("model", "limit", "least squares", "zero"), CURVE)
    more = {"task_trained": "mixture", "n_points_trained": 2, "n_loop_prompts": 4, "n_shift_prompts": 4}
    more |= {"seed": 1, "max_loops": 4, "limit": "least squares"}
    return replace(
        metrics,
        settings=replace(metrics.settings, **more),
        error_by_example={"model": CURVE, "zero": CURVE, "least squares": CURVE},
        limit=CURVE,
        excess_over_limit=CURVE,
        excess_of_baselines={"zero": CURVE, "least squares": CURVE},
        mean_excess=Interval(0.01, 0.0, 0.02),
        coverage_by_example=[0.8, 0.9, 1.0],
        error_by_loop=metrics.error_by_loop | {"last_fifth": [0.9, 0.1, 0.1, 0.2]},
        error_by_loop_and_place=[[0.9, 0.9, 0.9], [0.1, 0.9, 0.9], [0.1, 0.2, 0.9], [0.1, 0.2, 0.3]],
        stops={
            "needed loops": StoppedErrors(CURVE, [1, 2, 2.5]),
            "exit_confidence 0.9": StoppedErrors(CURVE, [2, 2, 3]),
        },
        shifts={"skewed": shift, "scale_x_1/3": shift},
        published={"looped transformer": CURVE, "standard transformer": Curve([1.0, 0.5])},
        published_shifts={"skewed": Curve([None, 0.5, 0.2], digitisation_error=0.01)},
        components={"sparse": metrics},
        versions={"torch": "<2>"},
    )
