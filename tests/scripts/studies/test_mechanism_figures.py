from pathlib import Path

import pytest
import torch

from scripts.studies import mechanism_figures
from scripts.studies.mechanism_figures import LOOPS, mark, measure_cell, plot_cells, table
from scripts.studies.mechanisms import MECHANISMS, PROBLEMS, MechanismGrid


TINY = ["--n_embd", "8", "--n_head", "2", "--batch_size", "4"]


def figures(*errors, score_name="normalised squared error"):
    """Figures of a cell with errors at half the loops, as trained and at four times."""
    costs = {"n_parameters": 12345, "n_steps": 100, "flops": 3.2e12, "seconds": 0.25, "peak_bytes": 5_000_000}
    return {"error": dict(zip(LOOPS, errors, strict=False)), "score_name": score_name, **costs}


def seeds(*errors):
    return {seed: figures(error, error) for seed, error in enumerate(errors)}


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [
        ((0.1, 0.2, 0.3), (0.2, 0.3, 0.4), " +"),
        ((0.3, 0.4, 0.5), (0.2, 0.3, 0.4), " -"),
        ((0.3, 0.2, 0.5), (0.2, 0.3, 0.4), ""),
        ((0.2, 0.3, 0.4), (0.2, 0.3, 0.4), ""),  # the base model itself
        ((0.1, 0.2), (0.2, 0.3, 0.4), ""),
        ((), (), ""),
    ],
)
def test_a_mark_needs_all_seeds(ours, theirs, expected):
    assert mark(seeds(*ours), seeds(*theirs), "as trained") == expected
    assert mark(seeds(*ours), seeds(*theirs), "4 x the loops") == ""


def test_the_table_has_a_row_for_everything_and_figures_of_what_is_finished():
    cells = {f"linear/add/{seed}": figures(0.4, 0.2 + seed / 10, 0.3) for seed in range(3)}
    cells |= {f"linear/gated/{seed}": figures(0.4, 0.1, 0.5) for seed in range(3)}
    cells["chains/untied/2"] = {**figures(), "error": {"as trained": 0.75}}
    heading, rule, *rows = table(cells).splitlines()
    assert {line.count("|") for line in (heading, rule, *rows)} == {12}
    assert len(rows) == len(PROBLEMS) * len(MECHANISMS)
    rows = [[value.strip() for value in row.strip("|").split("|")] for row in rows]
    by_name = {(row[0], row[1]): row[2:] for row in rows}
    add, gated = (by_name["linear functions", MECHANISMS[name].title] for name in ("add", "gated"))
    assert add == [
        "0.4 (0.4 to 0.4)",
        "0.3 (0.2 to 0.4)",
        "0.3 (0.3 to 0.3)",
        "3 of 3",
        "12,345",
        "100",
        "3.2",
        "250",
        "5",
    ]
    assert gated[:4] == ["0.4 (0.4 to 0.4)", "0.1 (0.1 to 0.1) +", "0.5 (0.5 to 0.5) -", "3 of 3"]
    assert by_name["pointer chains", MECHANISMS["untied"].title][:4] == ["", "0.75 (0.75 to 0.75)", "", "1 of 3"]
    assert by_name["decision trees", "prompt added"] == ["", "", "", "0 of 3", "", "", "", "", ""]


@pytest.mark.parametrize("chosen", ["nothing", "one", "all"])
def test_the_picture_shows_every_error_that_is_there(chosen, tmp_path, monkeypatch):
    shares = {"chains": "share of wrong answers"}
    cells = {
        name: figures(0.3, 0.0, 0.9, **{"score_name": shares[name.split("/")[0]]} if name.startswith("chains") else {})
        for name in MechanismGrid.cells
    }
    names = {"nothing": [], "one": ["chains/none/1"], "all": MechanismGrid.cells}[chosen]
    kept = []
    monkeypatch.setattr(mechanism_figures.plt, "close", kept.append)
    plot_cells({name: cells[name] for name in names}, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"study.png", "study.svg"}
    for axes, problem in zip(kept[0].axes, PROBLEMS, strict=True):
        dots = [line for line in axes.get_lines() if line.get_marker() in "<o>"]
        assert sum(len(line.get_xdata()) for line in dots) == 3 * sum(name.startswith(problem) for name in names)
        assert axes.get_xscale() == ("log" if chosen == "all" and problem != "chains" else "linear")
        low, high = axes.get_xlim()
        assert all(low <= x <= high for line in dots for x in line.get_xdata())
    monkeypatch.undo()
    mechanism_figures.plt.close("all")


@pytest.mark.parametrize("cell", ["linear/add/0", "tree/untied/0", "chains/none/0"])
def test_a_cell_is_measured_at_its_loops(cell, tmp_path, monkeypatch):
    monkeypatch.setattr(mechanism_figures, "N_PROMPTS", 8)
    run = MechanismGrid(tmp_path, False, 2, TINY).run(cell)
    model = run.arguments.objective.model_class(run.arguments.config)
    model.save_pretrained(tmp_path / cell)
    measured = measure_cell(run, torch.device("cpu"))
    assert list(measured["error"]) == (["as trained"] if "untied" in cell else list(LOOPS))
    assert all(error >= 0 for error in measured["error"].values())
    assert measured["n_parameters"] == model.num_parameters()
    assert measured["n_steps"] == run.arguments.optimization.max_steps
    assert measured["seconds"] > 0
    assert measured["peak_bytes"] > 4 * model.num_parameters()
    again = measure_cell(run, torch.device("cpu"))
    assert again["error"] == measured["error"]


def test_every_mechanism_is_on_the_page():
    page = (Path(__file__).parents[3] / "docs" / "mechanisms.md").read_text()
    for name, mechanism in MECHANISMS.items():
        assert f"| `{name}` | {mechanism.title} |" in page
