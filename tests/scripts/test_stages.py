import shutil
import sys

import pytest

from scripts import model_card as model_card_program
from scripts import stages as stages_program
from scripts.release import card as model_card
from scripts.release import stages


REPO = "ana/looped"


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["stages.py", *map(str, arguments)])
    stages_program.main()


@pytest.fixture
def earlier(evaluated, tmp_path, change):
    """An earlier stage: a hundredth of the operations, ten times the error of the model."""
    folder = shutil.copytree(evaluated, tmp_path / "earlier")

    def worse(metrics):
        curve = metrics["error_by_example"]["model"]
        curve["error"] = [10 * error for error in curve["error"]]

    change("metrics.json", worse, folder)
    change("environment.json", lambda record: record.update(flops=record["flops"] / 100), folder)
    return folder


def publish(metrics):
    errors = metrics["error_by_example"]["model"]["error"]
    curve = {"error": [error / 10 for error in errors[:-1]] + [2 * errors[-1]]}
    metrics["published"] = {"looped transformer": curve, "standard transformer": curve}


@pytest.mark.parametrize("factor", [1.5, 7.0])
def test_a_power_law_is_continued_exactly(factor):
    def error(flops):
        return 3 * flops**-0.4

    flops = stages.extrapolated_flops((1e13, error(1e13)), (4e13, error(4e13)), error(4e13) / factor)
    assert error(flops) == pytest.approx(error(4e13) / factor)
    assert flops > 4e13


def test_an_error_that_did_not_fall_is_not_continued():
    assert stages.extrapolated_flops((1e13, 0.1), (4e13, 0.1), 0.05) is None
    assert stages.extrapolated_flops((1e13, 0.1), (4e13, 0.2), 0.05) is None


def test_what_is_far_beyond_the_compute_taken_has_no_figure():
    assert model_card.operations_cell(9.9e15, 1e14) == "9.9e+15"
    assert model_card.operations_cell(1.1e16, 1e14) == "beyond 1.0e+16"


def test_columns_are_quarters_and_the_last_fifth():
    columns = stages.shown_examples(41)
    assert list(columns) == ["10 examples", "20 examples", "30 examples", "40 examples", "mean over 32 to 40"]
    assert columns["mean over 32 to 40"] == list(range(32, 41))
    assert stages.shown_examples(2) == {"0 examples": [0], "1 examples": [1], "mean over 0 to 1": [0, 1]}


def test_the_record_of_the_stages_reaches_the_card(evaluated, earlier, change, monkeypatch, tmp_path):
    change("metrics.json", publish)
    without = model_card.render_card(evaluated, REPO)
    assert "Error against compute" not in without
    run(monkeypatch, "--model", evaluated, "--others", earlier)
    card = model_card.render_card(evaluated, REPO)
    assert "| operations | 1 examples | 2 examples | 3 examples | 4 examples | mean over 3 to 4 |" in card
    assert "| 1.35e+12 | 5.2 | 2.6 | 1.3 | 0.654 | 0.977 |" in card
    assert "| **1.35e+14** | 0.52 | 0.26 | 0.13 | 0.0654 | 0.0977 |" in card
    assert "| looped transformer (published) | 0.052 | 0.026 | 0.013 | 0.131 | 0.0719 |" in card
    # a hundred times the operations for a tenth of the error
    assert "extrapolated | 1.4e+16 | 1.4e+16 | 1.4e+16 | reached | 2.5e+14 |" in card
    # and the folder that is pushed, whose record goes with the model that it is of
    target = tmp_path / "card"
    flags = ["model_card.py", "--repo_id", REPO, "--output_dir", str(target), "--model"]
    monkeypatch.setattr(sys, "argv", [*flags, str(evaluated)])
    model_card_program.main()
    assert (target / "README.md").read_text() == card
    assert (target / "stages.json").exists()
    monkeypatch.setattr(sys, "argv", [*flags, str(target)])
    model_card_program.main()
    assert (target / "README.md").read_text() == card
    (evaluated / "stages.json").unlink()
    monkeypatch.setattr(sys, "argv", [*flags, str(evaluated)])
    model_card_program.main()
    assert (target / "README.md").read_text() == without == model_card.render_card(target, REPO)


def test_stages_of_other_prompts_than_the_metrics_are_refused(evaluated, earlier, change, monkeypatch):
    run(monkeypatch, "--model", evaluated, "--others", earlier)
    change("metrics.json", lambda metrics: metrics["settings"].update(n_prompts=41))
    with pytest.raises(ValueError, match=r"stages\.json is of other prompts"):
        model_card.render_card(evaluated, REPO)


def test_a_class_without_published_curves_has_the_stages_alone(evaluated, earlier, monkeypatch):
    run(monkeypatch, "--model", evaluated, "--others", earlier)
    card = model_card.render_card(evaluated, REPO)
    assert "| 1.35e+12 | 5.2 |" in card
    assert "xtrapolated" not in card


def test_a_later_stage_that_was_not_released_stands_below_the_model(evaluated, earlier, monkeypatch):
    run(monkeypatch, "--model", earlier, "--others", evaluated)
    card = model_card.render_card(earlier, REPO)
    assert "this model in bold. What comes after it went on from this model and was not released" in card
    assert "| **1.35e+12** | 5.2 | 2.6 | 1.3 | 0.654 | 0.977 |\n| 1.35e+14 | 0.52 | 0.26 |" in card


def test_a_curve_is_continued_from_the_last_stage_released_or_not():
    first, second = {"flops": 1e12, "error": [0.4, 0.4]}, {"flops": 2e12, "error": [0.2, 0.4]}
    published = {"looped transformer": {"error": [0.1, 0.4]}}
    for model, other in ((first, second), (second, first)):
        table = stages.stage_table(model, [other], published)
        assert [row["is_model"] for row in table["rows"]] == [model is first, model is second]
        assert table["needed"][:2] == [pytest.approx(4e12), 2e12]


def test_stages_are_in_the_order_of_their_operations(evaluated, earlier, change, tmp_path):
    first = shutil.copytree(earlier, tmp_path / "first")
    change("environment.json", lambda record: record.update(flops=7.0), first)
    flops = [stage["flops"] for stage in stages.read_stages(evaluated, [earlier, first])]
    assert flops == [7.0, 1.35e12]


@pytest.mark.parametrize(
    ("name", "edit", "message"),
    [
        ("metrics.json", lambda m: m["settings"].update(seed=8), "evaluated on other prompts"),
        ("metrics.json", lambda m: m.pop("error_by_loop"), "not what scripts/evaluate.py writes"),
        ("environment.json", lambda record: record.update(flops=100 * record["flops"]), "took as many operations"),
    ],
)
def test_what_is_no_other_stage_is_refused_and_nothing_written(
    name, edit, message, evaluated, earlier, change, monkeypatch
):
    change(name, edit, earlier)
    with pytest.raises(SystemExit, match=message):
        run(monkeypatch, "--model", evaluated, "--others", earlier)
    assert not (evaluated / "stages.json").exists()


@pytest.mark.parametrize("name", ["metrics.json", "environment.json"])
def test_a_missing_record_is_named(name, evaluated, earlier, monkeypatch):
    (earlier / name).unlink()
    with pytest.raises(SystemExit, match=name):
        run(monkeypatch, "--model", evaluated, "--others", earlier)


def test_what_a_float_cannot_hold_is_beyond_all_compute():
    nearly = (1e12, 0.1), (2e12, 0.1 - 1e-15)
    assert stages.extrapolated_flops(*nearly, 0.01) == float("inf")
    assert stages.extrapolated_flops((1e12, 0.1), (2e12, 0.05), 0.0) == float("inf")
    assert model_card.operations_cell(float("inf"), 1e14) == "beyond 1.0e+16"


@pytest.mark.parametrize("published", [{}, {"Lasso": {"error": [0.9, 0.5]}}, {"looped transformer": {"error": [0.9]}}])
def test_published_curves_that_say_nothing_of_the_columns_are_left_out(published):
    first, second = {"flops": 1e12, "error": [0.4, 0.4]}, {"flops": 2e12, "error": [0.2, 0.4]}
    assert "target" not in stages.stage_table(second, [first], published)


@pytest.mark.parametrize("flops", [None, "many", float("nan"), -1.0, 10**400, "missing"])
def test_operations_that_are_no_number_are_refused_in_one_line(flops, evaluated, earlier, change, monkeypatch):
    change(
        "environment.json", lambda record: record.pop("flops") if flops == "missing" else record.update(flops=flops)
    )
    with pytest.raises(SystemExit, match=str(evaluated / "environment.json")) as refused:
        run(monkeypatch, "--model", evaluated, "--others", earlier)
    assert len(str(refused.value).splitlines()) == 1
    assert not (evaluated / "stages.json").exists()


@pytest.mark.parametrize("name", ["metrics.json", "environment.json"])
@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff\xfe\x00", b'"text"'])
def test_a_damaged_record_is_refused_in_one_line(name, content, evaluated, earlier, monkeypatch):
    (earlier / name).write_bytes(content)
    with pytest.raises(SystemExit, match=str(earlier / name)) as refused:
        run(monkeypatch, "--model", evaluated, "--others", earlier)
    assert len(str(refused.value).splitlines()) == 1
    assert not (evaluated / "stages.json").exists()
