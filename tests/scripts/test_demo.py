import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx2
import numpy as np
import pytest
import torch

from scripts import demo
from tasks import make_task
from tasks.baselines import predict_least_squares


ROOT = Path(__file__).parents[2]
TASK = make_task("linear_regression", 3)


def test_points_lie_on_the_function_and_follow_the_seed():
    rows, truth = demo.draw_points(TASK, 1, 5, noise=0.0, seed=3)
    slope = truth[-1] / demo.GRID[-1]
    assert all(y == pytest.approx(slope.item() * x, abs=5e-3) for x, y in rows)
    assert demo.draw_points(TASK, 1, 5, noise=0.0, seed=3)[0] == rows
    assert demo.draw_points(TASK, 1, 5, noise=0.0, seed=4)[0] != rows
    assert len(demo.draw_points(TASK, 2, 5, noise=0.5, seed=3)[0][0]) == 3


def test_the_curves_are_those_of_model_solver_and_function(make_model):
    model = make_model()
    rows, truth = demo.draw_points(TASK, 2, 4, noise=0.1, seed=0)
    state = demo.compute(model, TASK, torch.tensor(rows), truth)
    assert len(state["by_loop"]) == len(state["errors"]) == 16
    at = 70
    xs = torch.zeros(1, 5, 3)
    xs[0, :4, :2], xs[0, 4, 0] = torch.tensor(rows)[:, :2], demo.GRID[at]
    ys = torch.tensor(rows)[None, :, 2]
    for n_loops in (1, 4, 16):
        expected = model(xs, ys, n_loops=n_loops).predictions[0, -1].item()
        assert state["by_loop"][n_loops - 1][at] == pytest.approx(expected, abs=1e-5)
        curve = torch.tensor(state["by_loop"][n_loops - 1])
        assert state["errors"][n_loops - 1] == pytest.approx(((curve - truth) ** 2).mean().item() / 3, rel=1e-4)
    name, solution = state["solver"]
    assert name == "least squares"
    expected = predict_least_squares(xs[:, :4].double(), ys.double(), xs[:, 4].double())
    assert solution[at] == pytest.approx(expected.item(), abs=1e-5)


def test_typed_points_are_judged_by_the_solver_and_the_sentence_says_so(make_model):
    points = demo.read_points([["1", "2.5"], ["", ""], [None, None], [-1, "0"]], make_model())
    assert points.tolist() == [[1, 2.5], [-1, 0]]
    state = demo.compute(make_model(), TASK, points, None)
    figure, sentence = demo.draw(state, 3)
    assert f"After **3** loops the error against the least squares is **{state['errors'][2]:.3g}**" in sentence
    assert "Trained with 4 loops" in sentence
    lines = {line.get_label(): list(line.get_ydata()) for line in figure.axes[0].get_lines()}
    assert lines["model, loop 3"] == state["by_loop"][2]
    assert lines["least squares"] == state["solver"][1]


def leftmost_point(state, n_loops):
    """Column and row of the picture where the leftmost of the blue points is, found by its colour."""
    image = np.asarray(demo.draw(state, n_loops)[0].canvas.buffer_rgba())
    rows, columns = np.nonzero((image[..., :3] == (0x00, 0x72, 0xB2)).all(axis=-1))
    near = columns < columns.min() + 10
    return round(columns[near].mean()), round(rows[near].mean())


@pytest.mark.parametrize("n_dims", [1, 2])
def test_a_click_adds_a_point_where_it_fell_and_a_click_on_one_takes_it_away(make_model, n_dims):
    rows, truth = demo.draw_points(TASK, n_dims, 5, noise=1.0, seed=0)
    state = demo.compute(make_model(), TASK, torch.tensor(rows), truth)
    leftmost = min(rows)
    column, row = leftmost_point(state, 3)
    assert demo.click_points(state, 3, (column, row)) == [point for point in rows if point != leftmost]
    *others, added = demo.click_points(state, 3, (column, row + 60))
    assert others == rows
    assert added[0] == pytest.approx(leftmost[0], abs=0.02)
    assert added[1:-1] == [0] * (n_dims - 1)
    assert added[-1] < leftmost[-1] - 0.1
    for beside in ((2, 2), (1200, 300)):
        assert demo.click_points(state, 3, beside) is None


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ([["1", "abc"]], "must be a number"),
        ([["1", ""]], "must be a number"),
        ([["1", "nan"]], "must be a finite number"),
        ([["", ""]], "reads 1 to 6 points, got 0"),
        ([[1, 1]] * 7, "reads 1 to 6 points, got 7"),
    ],
)
def test_a_bad_table_is_refused(table, message, make_model):
    with pytest.raises(ValueError, match=message):
        demo.read_points(table, make_model())


def test_a_class_that_needs_more_dimensions_says_so():
    with pytest.raises(ValueError, match="`sparsity` must be <= the active dimensions"):
        demo.draw_points(make_task("sparse_linear_regression", 5), 2, 4, noise=0.0, seed=0)


def test_without_a_model_it_says_what_to_give(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["demo.py"])
    monkeypatch.delenv("LOOPED_GPT2_MODEL", raising=False)
    with pytest.raises(SystemExit):
        demo.main()
    assert "give `--model`" in capsys.readouterr().err


@pytest.fixture
def served(make_model, tmp_path):
    """Address of the page, served by a process of its own."""
    pytest.importorskip("gradio", reason="the page needs the extra `demo`")
    make_model().save_pretrained(tmp_path / "model")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "GRADIO_ANALYTICS_ENABLED": "False"}
    command = [sys.executable, "scripts/demo.py", "--model", str(tmp_path / "model"), "--port", str(port)]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            assert process.poll() is None, (tmp_path / "log").read_text()
            try:
                httpx2.get(address)
                break
            except httpx2.TransportError:
                time.sleep(0.5)
        yield address
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="the browser is driven by playwright")
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        pytest.skip("no Chromium is installed")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


def test_a_visitor_moves_the_loops_and_the_points(browser, served, make_model):
    page = browser.new_page()
    broken = []
    page.on("pageerror", lambda error: broken.append(error))
    page.set_default_timeout(180_000)  # a loaded machine
    page.goto(served)
    sentence = page.get_by_text("Trained with 4 loops")
    sentence.wait_for()

    def state(n_dims):
        rows, truth = demo.draw_points(TASK, n_dims, 6, noise=0.0, seed=0)
        return rows, demo.compute(make_model(), TASK, torch.tensor(rows), truth)

    rows, expected = state(1)
    assert f"the function is {expected['errors'][3]:.3g};" in sentence.inner_text()
    picture = page.get_by_role("img", name="curves")
    before = picture.get_attribute("src")

    loops = page.get_by_label("number input for Loops")
    loops.fill("9")
    loops.press("Enter")
    page.get_by_text(f"After 9 loops the error against the function is {expected['errors'][8]:.3g};").wait_for()
    assert picture.get_attribute("src") != before

    def type_into(row, text):
        cell = page.get_by_test_id(f"cell-{row}-1")
        cell.dblclick()
        cell.get_by_role("textbox").fill(text)
        cell.get_by_role("textbox").press("Enter")

    # the second number comes while the first is still being answered
    type_into(0, "1.5")
    type_into(1, "2.5")
    points = [[rows[0][0], 1.5], [rows[1][0], 2.5], *rows[2:]]
    typed = demo.compute(make_model(), TASK, torch.tensor(points), None)
    page.get_by_text(f"the least squares is {typed['errors'][8]:.3g};").wait_for()
    type_into(1, "abc")
    page.get_by_text("Every cell of a point must be a number.").first.wait_for()

    # the picture still shows the points before that cell
    column, row = leftmost_point(typed, 9)
    scale = picture.bounding_box()["width"] / picture.evaluate("image => image.naturalWidth")
    picture.click(position={"x": column * scale, "y": row * scale})
    points.remove(min(points))
    fewer = demo.compute(make_model(), TASK, torch.tensor(points), None)
    page.get_by_text(f"the least squares is {fewer['errors'][8]:.3g};").wait_for()
    picture.click(position={"x": column * scale, "y": (row + 60) * scale})
    cell = page.get_by_test_id("cell-5-0")
    cell.wait_for()
    assert float(cell.inner_text()) == pytest.approx(rows[1][0], abs=0.03)

    page.get_by_role("radio", name=re.compile("^2$")).check()
    page.get_by_text(f"the function is {state(2)[1]['errors'][8]:.3g};").wait_for()
    assert not broken
