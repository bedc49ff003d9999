import json
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

from modeling_looped_gpt2 import (
    LoopedGPT2Config,
    LoopedGPT2ForInContextClassification,
    LoopedGPT2ForInContextRegression,
    LoopedGPT2LMHeadModel,
)
from scripts.demo_page import curves as drawing
from tasks import make_task
from tests.scripts.demo_page.test_curves import leftmost_point


ROOT = Path(__file__).parents[3]
TASK = make_task("linear_regression", n_dims=3)


@pytest.fixture(scope="module")
def save(tmp_path_factory):
    """Save an untrained model of 4 loops with the recipe of a task; its folder."""

    def save(model_class, recipe, **sizes):
        torch.manual_seed(0)
        folder = tmp_path_factory.mktemp("demo") / "model"
        model_class(LoopedGPT2Config(**{"n_embd": 32, "n_head": 4, "n_loops": 4} | sizes)).save_pretrained(folder)
        (folder / "recipe.yaml").write_text(recipe)
        return folder

    return save


@pytest.fixture(scope="module")
def folder(save):
    """A model that reads 6 points."""
    return save(LoopedGPT2ForInContextRegression, "task: linear_regression\n", n_dims=3, n_positions=14)


@pytest.fixture(scope="module")
def tables(save):
    """A model that tells classes apart by rows of tables."""
    recipe = "{task: table_prior, task_settings: {kind: classification}}"
    order = {"example_order": "set", "position_embedding": "none"}
    return save(LoopedGPT2ForInContextClassification, recipe, n_dims=5, n_positions=64, num_labels=3, **order)


@pytest.fixture(scope="module")
def parity(save):
    """A model of words of up to 5 bits."""
    recipe = "{task: parity, task_settings: {max_length: 5, positions: alternate}}"
    return save(LoopedGPT2LMHeadModel, recipe, vocab_size=3, n_positions=3, attention_window=2)


class Visitor:
    """What a browser says to the page, over HTTP; each has a session of its own."""

    def __init__(self, address: str, name: str):
        self.address, self.name = address, name
        functions = httpx2.get(address + "/config").json()["dependencies"]
        self.functions = {function["api_name"]: function["id"] for function in functions}

    def ask(self, function, data, event_data=None):
        content = json.dumps(
            {"data": data, "fn_index": self.functions[function], "session_hash": self.name}
            | {"event_data": event_data}
        )
        return httpx2.post(
            f"{self.address}/gradio_api/queue/join",
            content=content,
            timeout=180,
            headers={"content-type": "application/json"},
        )

    def do(self, function, data, event_data=None):
        """The outputs of a function, or the message of the error."""
        answer = self.ask(function, data, event_data)
        assert answer.status_code == 200, answer.text
        url = f"{self.address}/gradio_api/queue/data?session_hash={self.name}"
        with httpx2.stream("GET", url, timeout=180) as events:
            for line in events.iter_lines():
                event = json.loads(line.removeprefix("data:")) if line.startswith("data:") else {}
                if event.get("msg") == "process_completed":
                    return event["output"]["data"] if event["success"] else event["output"]["error"]
        raise AssertionError("the answer never came")


@pytest.fixture(scope="module")
def served(folder, tables, parity, tmp_path_factory):
    """Address of the page, served by a process of its own."""
    pytest.importorskip("gradio", reason="the page needs the extra `demo`")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "GRADIO_ANALYTICS_ENABLED": "False"}
    models = map(str, (folder, tables, parity))
    command = [sys.executable, "scripts/demo.py", "--model", *models, "--port", str(port)]
    path = tmp_path_factory.mktemp("log") / "log"
    with path.open("w") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            assert process.poll() is None, path.read_text()
            try:
                httpx2.get(address)
                break
            except httpx2.TransportError:
                time.sleep(0.5)
        yield address
    finally:
        process.kill()
        process.wait()


BAD_REQUESTS = {
    "cleared seed": ("sample", [1, 4, 0, None], r"Seed must be .*, got nothing\."),
    "negative seed": ("sample", [1, 4, 0, -1], "Seed must be a whole number from 0"),
    "text": ("sample", ["a", 4, 0, 0], "Dimensions must be a whole number from 1 to 2, got 'a'"),
    "half a point": ("sample", [1, 2.5, 0, 0], r"Points must be a whole number from 1 to 6, got 2\.5"),
    "many points": ("sample", [1, 1e9, 0, 0], r"got 1000000000\.0"),
    "mappings": ("sample", [{}, {"a": 1}, [], "x"], r"Dimensions must be .*, got \{\}"),
    "text cell": ("type_points", [{"headers": ["x1", "y"], "data": [["1", "abc"]]}], "y of point 1 must be a number"),
    "huge cell": ("type_points", [{"headers": ["x1", "y"], "data": [["1e300", 1]]}], "x1 of point 1 must be"),
    "7 columns": ("type_points", [{"headers": list("abcdefg"), "data": [[1] * 7]}], "must have 2 or 3 numbers"),
    "7 points": ("type_points", [{"headers": ["x1", "y"], "data": [[1, 1]] * 7}], "reads 1 to 6 points, got 7"),
    "no table": ("type_points", [None], "The points must be a table"),
    "no loops": ("show", [None, None], "Loops must be a whole number from 1 to 8, got nothing"),
    "loop 0": ("show", [None, 0], "Loops must be"),
    "loop 9": ("show", [None, 9], "Loops must be"),
    "half a loop": ("show", [None, 1.5], "Loops must be"),
    "no text": ("answer_table", [None, {"a": 1}], "Paste a table first"),
    "uneven rows": ("answer_table", ["a,b\n1,2\n3", "b"], "row 2 below it has 1"),
    "free text": ("answer_table", ["a,b\n" + "".join(f"{i},note {i}\n" for i in range(9)), "b"], "up to 3 classes"),
    "numbers": ("answer_table", ["a,b\n" + "".join(f"{i},{i}\n" for i in range(9)), "a"], "a model of classes alone"),
    "no model": ("solve_problem", ["mine", "01", 0.9], "Model must be one of .*, got 'mine'"),
    "a list": ("choose_model", [["mine"]], "Model must be one of"),
    "too sure": ("solve_problem", ["mine", "01", 1], r"Sure enough must be a number from 0\.5 to 0\.99, got 1"),
}
TABLE = "size,colour,kind\n" + "".join(f"{i % 7},{'rgb'[i % 3]},{'xyz'[i % 3]}\n" for i in range(20)) + "3,r,\n"


def test_every_visitor_is_answered_whatever_another_sends(served):
    visitor = Visitor(served, "visitor")
    table, _ = visitor.do("sample", [1, 4, 0, 0])
    assert len(table["value"]["data"]) == 4
    for function, data, message in BAD_REQUESTS.values():
        assert re.search(message, visitor.do(function, data))
    assert "A click must be a column and a row" in visitor.do("click", [None, 4], {"index": "abc", "value": None})
    # of what has not even the form of a request the server has only a word of its own
    for function, data in (("type_points", ["abc"]), ("type_points", [{"data": 3}]), ("sample", [])):
        assert not isinstance(visitor.do(function, data), list)
    for content in ("", "[", "null", "{}", '{"data": 3}'):
        assert 400 <= httpx2.post(f"{served}/gradio_api/queue/join", content=content).status_code < 500
    *pictures, sentence = visitor.do("show", [None, 1])
    assert "After **1 loop** the error against the function" in sentence
    assert all(picture["path"].endswith(".png") for picture in pictures)


def test_a_table_is_answered_and_its_answers_follow_the_loops(served):
    visitor = Visitor(served, "owner")
    column, _ = visitor.do("answer_table", [TABLE, None])
    assert column["value"] == "kind"
    assert [name for name, _ in column["choices"]] == ["size", "colour", "kind"]
    for n_loops in (1, 8):
        picture, sentence, answers = visitor.do("show_table", [None, n_loops])
        assert picture["path"].endswith(".png")
        assert sentence.startswith(f"After **{n_loops} loop")
        (row,) = answers["value"]["data"]
        assert row[0] == "21"
        assert row[1] in "xyz"
    assert "Loops must be" in visitor.do("show_table", [None, 9])
    column, _ = visitor.do("answer_table", [TABLE, "colour"])
    assert column["value"] == "colour"
    assert len(visitor.do("show_table", [None, 4])[2]["value"]["data"]) == 2  # held out


def test_a_problem_is_solved_and_what_is_none_refused(served, parity):
    visitor = Visitor(served, "solver")
    note, problem = visitor.do("choose_model", [str(parity)])
    assert "up to 5 bits" in note
    assert len(problem) == 5
    picture, sentence, rows = visitor.do("solve_problem", [str(parity), "0110" * 3, 0.9])
    assert picture["path"].endswith(".png")
    assert "The problem needs 12 loops." in sentence
    assert [row[0] for row in rows["data"]] == [str(number) for number in range(1, 37)]
    assert "is written in 0 1, got '2'" in visitor.do("solve_problem", [str(parity), "012", 0.9])


def test_a_million_rows_are_refused_unread(served):
    visitor = Visitor(served, "million")
    answer = visitor.ask("type_points", [{"headers": ["x1", "y"], "data": [[1, 1]] * 10**6}])
    assert answer.status_code == 413
    assert answer.json()["detail"].endswith("this page takes no table of that size.")
    assert len(visitor.do("sample", [1, 4, 0, 0])) == 2


def test_a_new_visitor_sees_nothing_of_another(served):
    for function in ("show", "show_table"):
        assert Visitor(served, "late").do(function, [None, 4]) == [{"__type__": "update"}] * 3


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="the browser is driven by playwright")
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        pytest.skip("no Chromium is installed")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


def loaded_picture(page, name, source=None):
    """The picture of that name, once another than `source` has come: a text may be on the page before its picture."""
    page.wait_for_function(
        """([name, source]) => {
            const image = document.querySelector(`img[alt="${name}"]`)
            return image && image.src !== source && image.complete && image.naturalWidth
        }""",
        arg=[name, source],
    )
    return page.get_by_role("img", name=name)


@pytest.mark.parametrize(("width", "height"), [(390, 844), (1280, 800)])
def test_the_picture_comes_first_and_can_be_read(browser, served, width, height):
    page = browser.new_page(viewport={"width": width, "height": height})
    page.set_default_timeout(180_000)  # a loaded machine
    page.goto(served)
    page.get_by_text("After 4 loops").wait_for()
    curve, errors = (loaded_picture(page, name).bounding_box() for name in ("curves", "error by loop"))
    loops, seed = (page.get_by_label(name, exact=True).bounding_box() for name in ("number input for Loops", "Seed"))
    for box in (curve, errors):
        assert box["width"] > min(width, 640) * 0.8  # of 4 inches, in letters of 9 to 10 points
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
    assert curve["y"] < 240  # below a heading, the tabs, and the name of the model on a line or two
    assert curve["y"] + curve["height"] < loops["y"] < height
    assert max(errors["y"] + errors["height"], loops["y"]) < seed["y"]
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.get_by_text("trained with 4 loops on functions of the class linear_regression").is_visible()
    assert not page.get_by_text("Error", exact=True).is_visible()


def test_a_visitor_moves_the_loops_and_the_points(browser, served, folder):
    page = browser.new_page()
    broken = []
    page.on("pageerror", lambda error: broken.append(error))
    page.set_default_timeout(180_000)  # a loaded machine
    page.goto(served)
    sentence = page.get_by_text("After 4 loops")
    sentence.wait_for()
    model = LoopedGPT2ForInContextRegression.from_pretrained(folder).eval()

    def draw(n_dims):
        points, truth = drawing.draw_points(model, TASK, n_dims, 6, noise=0, seed=0)
        return points, drawing.compute(model, TASK, points, truth)

    points, expected = draw(1)
    assert f"the function is {expected.errors[3]:.3g} (" in sentence.inner_text()

    def wait_for_another_picture(source):
        return loaded_picture(page, "curves", source).evaluate("image => image.src")

    picture = loaded_picture(page, "curves")
    source = picture.evaluate("image => image.src")

    loops = page.get_by_label("number input for Loops")
    loops.fill("7")
    loops.press("Enter")
    page.get_by_text(f"After 7 loops the error against the function is {expected.errors[6]:.3g} (").wait_for()
    source = wait_for_another_picture(source)

    def type_into(row, text):
        cell = page.get_by_test_id(f"cell-{row}-1")
        cell.dblclick()
        cell.get_by_role("textbox").fill(text)
        cell.get_by_role("textbox").press("Enter")

    # the second number comes while the first is still being answered
    type_into(0, "1.5")
    type_into(1, "2.5")
    points[:2, 1] = 1.5, 2.5
    typed = drawing.compute(model, TASK, points, None)
    page.get_by_text(f"the least squares is {typed.errors[6]:.3g} (").wait_for()
    type_into(1, "abc")
    page.get_by_text("y of point 2 must be a number from -1000 to 1000, got 'abc'.").first.wait_for()

    # the picture still shows the points before that cell
    source = wait_for_another_picture(source)
    column, row = leftmost_point(typed, 7)
    scale = picture.bounding_box()["width"] / picture.evaluate("image => image.naturalWidth")
    picture.click(position={"x": column * scale, "y": row * scale})
    left = points[:, 0].argmin()
    fewer = drawing.compute(model, TASK, np.delete(points, left, axis=0), None)
    page.get_by_text(f"the least squares is {fewer.errors[6]:.3g} (").wait_for()
    wait_for_another_picture(source)
    picture.click(position={"x": column * scale, "y": (row + 60) * scale})
    cell = page.get_by_test_id("cell-5-0")
    cell.wait_for()
    assert float(cell.inner_text()) == pytest.approx(points[left, 0], abs=0.03)

    seed = page.get_by_label("Seed")
    seed.fill("")
    page.get_by_role("button", name="Sample a function").click()
    page.get_by_text("Seed must be a whole number from 0 to 4294967295, got nothing.").first.wait_for()
    seed.fill("0")
    page.get_by_role("radio", name=re.compile("^2$")).check()
    page.get_by_text(f"the function is {draw(2)[1].errors[6]:.3g} (").wait_for()
    assert not broken


def test_a_visitor_pastes_a_table_and_types_a_problem(browser, served):
    page = browser.new_page(viewport={"width": 390, "height": 844})
    broken = []
    page.on("pageerror", lambda error: broken.append(error))
    page.set_default_timeout(180_000)  # a loaded machine
    page.goto(served)
    page.get_by_role("tab", name="Your table").click()
    page.get_by_text("rows held out are answered right").wait_for()
    page.get_by_label("Table", exact=True).fill(TABLE)
    page.get_by_role("button", name="Answer the table").click()
    page.get_by_text("After 4 loops. Trained with 4 loops.").wait_for()
    loops = page.get_by_label("number input for Loops of the answers")
    loops.fill("7")
    loops.press("Enter")
    page.get_by_text("After 7 loops. Trained with 4 loops.").wait_for()
    loaded_picture(page, "answers by loop")
    page.get_by_label("Table", exact=True).fill("1,2\n3,4")
    page.get_by_role("button", name="Answer the table").click()
    page.get_by_text("The first row must name the columns, and '1' is a number").first.wait_for()
    page.get_by_role("tab", name="A problem").click()
    problem = page.get_by_label("Problem", exact=True)
    problem.fill("0110 1")
    problem.press("Enter")
    page.get_by_text("The problem needs 5 loops.").wait_for()
    loaded_picture(page, "probabilities by loop")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert not broken
