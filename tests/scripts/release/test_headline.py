import json
from pathlib import Path

import pytest

from scripts.release.headline import headline, specialist_tables
from tasks import TASKS, Task
from tests.scripts.specialists.test_record import COMPARISON


CARDS = Path(__file__).parents[3] / "model_cards"


@pytest.fixture
def records(tmp_path):
    """The records of the released models, without the models."""
    for folder in (path.parent for path in CARDS.glob("*/config.json")):
        (tmp_path / folder.name).mkdir()
        for name in ("metrics.json", "environment.json", "log.jsonl"):
            (tmp_path / folder.name / name).write_text((folder / name).read_text())
    return tmp_path


def change(path, edit):
    metrics = json.loads(path.read_text())
    edit(metrics)
    path.write_text(json.dumps(metrics))


def test_the_table_shows_what_the_records_hold(records):
    assert headline(records) == headline(CARDS)

    def differ(metrics):
        curve = metrics["error_by_example"]["model"]
        curve["error"] = [0.123] * len(curve["error"])

    change(records / "decision_tree" / "metrics.json", differ)
    assert "| decision tree | 80 to 100 | 0.018 | 0.349, XGBoost, signs | 0.0749 | **0.046** | 0.123 |" in headline(
        records
    )


def test_a_release_that_was_compared_with_others_has_its_table_too(tmp_path):
    assert list(specialist_tables(tmp_path)) == []
    folder = tmp_path / "all_classes"
    folder.mkdir()
    COMPARISON.write(folder)
    with pytest.raises(ValueError, match=r"all_classes/metrics\.json"):
        list(specialist_tables(tmp_path))
    content = json.loads((CARDS / "linear_regression" / "metrics.json").read_text())
    part = content | {"coverage_by_example": [0.5] * 40 + [0.9]}
    (folder / "metrics.json").write_text(json.dumps(content | {"components": {"relu_2nn": part}}))
    compared, covered = specialist_tables(tmp_path)
    assert compared == f"{COMPARISON.table}\n\n{COMPARISON.summary}"
    assert covered.splitlines()[0] == "| in the 90% interval | 20 | 40 | all |"
    assert covered.splitlines()[2:] == ["| relu 2nn | 0.5 | 0.9 | 0.51 |"]


def test_a_task_without_a_folder_or_without_headline_places_has_no_row(tmp_path, monkeypatch):
    monkeypatch.setitem(TASKS, "tokens", Task)
    (tmp_path / "tokens").mkdir()
    (tmp_path / "noisy_linear_regression").mkdir()
    assert headline(tmp_path).count("\n") == 4


@pytest.mark.parametrize(
    "edit",
    [
        lambda metrics: [metrics.pop(name) for name in ("limit", "excess_over_limit")],
        lambda metrics: metrics["settings"].update(n_dims=10),
        lambda metrics: metrics["settings"].pop("n_dims"),
        lambda metrics: [metrics["error_by_example"].pop(name) for name in {*metrics["error_by_example"]} - {"model"}],
    ],
)
def test_a_record_that_cannot_stand_beside_the_papers_is_refused(edit, records):
    change(records / "decision_tree" / "metrics.json", edit)
    with pytest.raises(
        ValueError, match=r"decision_tree/metrics\.json has no error or limit to show .* in 20 dimensions"
    ):
        headline(records)
