import shutil

import pytest

from scripts.evaluation.metrics_record import Curve, Settings
from scripts.release.stages import extrapolated_flops, read_stages, shown_columns, stage_table


SETTINGS = Settings(model="tree", task="decision_tree", n_points=2, n_prompts=8, n_loops=2, n_parameters=9)


@pytest.mark.parametrize("factor", [1.5, 7.0])
def test_a_power_law_is_continued_exactly(factor):
    def error(flops):
        return 3 * flops**-0.4

    flops = extrapolated_flops((1e13, error(1e13)), (4e13, error(4e13)), error(4e13) / factor)
    assert error(flops) == pytest.approx(error(4e13) / factor)
    assert flops > 4e13


def test_an_error_that_did_not_fall_is_not_continued():
    assert extrapolated_flops((1e13, 0.1), (4e13, 0.1), 0.05) is None
    assert extrapolated_flops((1e13, 0.1), (4e13, 0.2), 0.05) is None


def test_columns_are_quarters_and_the_last_fifth():
    columns = shown_columns(range(41))
    assert list(columns) == ["10 examples", "20 examples", "30 examples", "40 examples", "mean over 32 to 40"]
    assert columns["mean over 32 to 40"] == list(range(32, 41))
    assert next(iter(shown_columns(range(5), "steps to take"))) == "1 steps to take"
    assert list(shown_columns([40, 80, 120])) == ["40 examples", "80 examples", "120 examples", "mean over 80 to 120"]
    assert shown_columns(range(2)) == {"0 examples": [0], "1 examples": [1], "mean over 0 to 1": [0, 1]}


def test_a_curve_is_continued_from_the_last_stage_released_or_not():
    first, second = {"flops": 1e12, "error": [0.4, 0.4]}, {"flops": 2e12, "error": [0.2, 0.4]}
    published = {"looped transformer": Curve([0.1, 0.4])}
    for model, other in ((first, second), (second, first)):
        table = stage_table(model, [other], published, SETTINGS)
        assert [row["is_model"] for row in table["rows"]] == [model is first, model is second]
        assert table["needed"][:2] == [pytest.approx(4e12), 2e12]


def test_stages_are_in_the_order_of_their_operations(evaluated, earlier, change, tmp_path):
    first = shutil.copytree(earlier, tmp_path / "first")
    change("environment.json", lambda record: record.update(flops=7.0), first)
    flops = [stage["flops"] for stage in read_stages(evaluated, [earlier, first])]
    assert flops == [7.0, 1.35e12]


def test_what_a_float_cannot_hold_is_beyond_all_compute():
    nearly = (1e12, 0.1), (2e12, 0.1 - 1e-15)
    assert extrapolated_flops(*nearly, 0.01) == float("inf")
    assert extrapolated_flops((1e12, 0.1), (2e12, 0.05), 0.0) == float("inf")


@pytest.mark.parametrize("published", [{}, {"Lasso": Curve([0.9, 0.5])}, {"looped transformer": Curve([0.9])}])
def test_published_curves_that_say_nothing_of_the_columns_are_left_out(published):
    first, second = {"flops": 1e12, "error": [0.4, 0.4]}, {"flops": 2e12, "error": [0.2, 0.4]}
    assert "target" not in stage_table(second, [first], published, SETTINGS)
