import sys

import pytest

from scripts import model_card, stages
from scripts.release.card import render_card


REPO = "ana/looped"


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["stages.py", *map(str, arguments)])
    stages.main()


def publish(metrics):
    errors = metrics["error_by_example"]["model"]["error"]
    curve = {"error": [error / 10 for error in errors[:-1]] + [2 * errors[-1]]}
    metrics["published"] = {"looped transformer": curve, "standard transformer": curve}


def test_the_record_of_the_stages_reaches_the_card(evaluated, earlier, change, monkeypatch, tmp_path):
    change("metrics.json", publish)
    without = render_card(evaluated, REPO)
    assert "Error against compute" not in without
    run(monkeypatch, "--model", evaluated, "--others", earlier)
    card = render_card(evaluated, REPO)
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
    model_card.main()
    assert (target / "README.md").read_text() == card
    assert (target / "stages.json").read_bytes() == (evaluated / "stages.json").read_bytes()
    monkeypatch.setattr(sys, "argv", [*flags, str(target)])
    model_card.main()
    assert (target / "README.md").read_text() == card
    (evaluated / "stages.json").unlink()
    monkeypatch.setattr(sys, "argv", [*flags, str(evaluated)])
    model_card.main()
    assert (target / "README.md").read_text() == without == render_card(target, REPO)


def test_stages_of_other_prompts_than_the_metrics_are_refused(evaluated, earlier, change, monkeypatch):
    run(monkeypatch, "--model", evaluated, "--others", earlier)
    change("metrics.json", lambda metrics: metrics["settings"].update(n_prompts=41))
    with pytest.raises(ValueError, match=r"stages\.json is of other prompts"):
        render_card(evaluated, REPO)


def test_a_class_without_published_curves_has_the_stages_alone(evaluated, earlier, monkeypatch):
    run(monkeypatch, "--model", evaluated, "--others", earlier)
    card = render_card(evaluated, REPO)
    assert "| 1.35e+12 | 5.2 |" in card
    assert "xtrapolated" not in card


def test_a_later_stage_that_was_not_released_stands_below_the_model(evaluated, earlier, monkeypatch):
    run(monkeypatch, "--model", earlier, "--others", evaluated)
    card = render_card(earlier, REPO)
    assert "this model in bold. What comes after it went on from this model and was not released" in card
    assert "| **1.35e+12** | 5.2 | 2.6 | 1.3 | 0.654 | 0.977 |\n| 1.35e+14 | 0.52 | 0.26 |" in card


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
