import numpy as np
import pytest
import torch

from modeling_looped_gpt2 import LoopedGPT2Config, LoopedGPT2ForInContextRegression
from scripts.demo_page import curves as drawing
from scripts.demo_page.figures import pixels
from scripts.demo_page.shown_model import LOOPS_SHOWN
from tasks import TASKS, FunctionClass, Task, make_task
from tasks.baselines.classical import predict_least_squares


TASK = make_task("linear_regression", n_dims=3)


def test_points_lie_on_the_function_and_follow_the_seed(make_model):
    model = make_model()
    points, truth = drawing.draw_points(model, TASK, 1, 5, noise=0, seed=3)
    slope = truth[-1] / drawing.GRID[-1]
    assert all(y == pytest.approx(slope.item() * x, abs=5e-3) for x, y in points)
    assert np.array_equal(drawing.draw_points(model, TASK, 1, 5, noise=0, seed=3)[0], points)
    assert not np.array_equal(drawing.draw_points(model, TASK, 1, 5, noise=0, seed=4)[0], points)
    assert drawing.draw_points(model, TASK, 2, 5, noise=0.5, seed=3)[0].shape == (5, 3)


@pytest.mark.parametrize("changes", [{}, {"n_layer": 2, "n_prelude": 1}, {"n_coda": 1}, {"loop_encoding": "share"}])
def test_the_curves_are_those_of_model_solver_and_function(make_model, changes):
    model = make_model(**changes)
    for parameter in model.transformer.loop_weights.parameters():
        torch.nn.init.normal_(parameter)
    points, truth = drawing.draw_points(model, TASK, 2, 4, noise=0.1, seed=0)
    curves = drawing.compute(model, TASK, points, truth)
    assert curves.by_loop.shape == (8, len(drawing.GRID))
    at = 30
    xs = torch.zeros(1, 5, 3)
    xs[0, :4, :2], xs[0, 4, 0] = torch.from_numpy(points)[:, :2], drawing.GRID[at]
    ys = torch.from_numpy(points).float()[None, :, 2]
    for n_loops in (1, 4, 8):
        expected = model(xs, ys, n_loops=n_loops).predictions[0, -1].item()
        assert curves.by_loop[n_loops - 1, at] == pytest.approx(expected, abs=1e-5)
    assert curves.solver == "least squares"
    expected = predict_least_squares(xs[:, :4].double(), ys.double(), xs[:, 4].double())
    assert curves.solution[at] == pytest.approx(expected.item(), abs=1e-5)


@pytest.mark.parametrize("n_dims", [1, 2])
def test_predicting_zero_has_the_error_one(make_model, n_dims):
    model = make_model()
    torch.nn.init.zeros_(model.read_out.weight)
    for points, truth in (
        drawing.draw_points(model, TASK, n_dims, 4, noise=0.1, seed=0),
        (drawing.draw_points(model, TASK, n_dims, 4, noise=0.1, seed=1)[0], None),
    ):
        assert drawing.compute(model, TASK, points, truth).errors == pytest.approx(np.ones(8))


def test_of_a_function_that_is_zero_the_error_is_the_squared_one(make_model):
    curves = drawing.compute(make_model(), TASK, np.array([[1.0, 0.0]]), None)
    assert curves.errors == pytest.approx((curves.by_loop**2).mean(axis=1))
    pixels(drawing.plot_errors(curves, 1))


CLASSES = [name for name, kind in TASKS.items() if issubclass(kind, FunctionClass) and kind().n_outputs == 1]


@pytest.mark.parametrize("name", CLASSES)
def test_every_class_is_drawn_in_two_counts_of_dimensions(make_model, name):
    model, task = make_model(n_dims=5), make_task(name, n_dims=5)
    fewest, more = drawing.dims_to_choose(task)
    assert more == fewest + 1
    for n_dims in (fewest, more):
        points, truth = drawing.draw_points(model, task, n_dims, 4, noise=0, seed=0)
        assert points.shape == (4, n_dims + 1)
        curves = drawing.compute(model, task, points, truth)
        assert curves.solver == task.solver.name
        (axes,) = drawing.plot_curve(curves, 2).axes
        assert [line.get_label() for line in axes.get_lines()] == ["function", curves.solver, "model, loop 2"]
        assert np.array_equal(drawing.read_points(points.tolist(), model, task), points)


def test_the_class_has_the_dimensions_of_the_model_and_these_settings(make_model, monkeypatch):
    model = make_model()
    settings = {"depth": 2, "n_dims": 9}
    assert drawing.function_class_for(model, "decision_tree", settings) == make_task(
        "decision_tree", n_dims=3, depth=2
    )
    assert drawing.function_class_for(model, "linear_regression", {}) == TASK
    monkeypatch.setitem(TASKS, "tokens", Task)
    for name, message in (
        ("tokens", "must be a class of functions, .* got tokens"),
        ("vector_retrieval", "must be a class whose values are numbers, .* got vector_retrieval"),
        ("cubes", "must be one of"),
    ):
        with pytest.raises(ValueError, match=message):
            drawing.function_class_for(model, name, {})


def test_a_model_of_one_dimension_offers_one():
    assert drawing.dims_to_choose(make_task("linear_regression", n_dims=1)) == [1]
    assert drawing.dims_to_choose(make_task("sparse_linear_regression", n_dims=3)) == [3]


def test_typed_points_are_judged_by_the_solver_and_the_sentence_says_so(make_model):
    points = drawing.read_points([["1", "2.5"], ["", ""], [None, None], [-1, " 0 "]], make_model(), TASK)
    assert points.tolist() == [[1, 2.5], [-1, 0]]
    curves = drawing.compute(make_model(), TASK, points, None)
    sentence = drawing.describe(curves, 3)
    assert f"After **3 loops** the error against the least squares is **{curves.errors[2]:.3g}**" in sentence
    assert "Trained with 4 loops." in sentence
    assert "After **1 loop** the" in drawing.describe(curves, 1)
    (axes,) = drawing.plot_curve(curves, 3).axes
    lines = {line.get_label(): list(line.get_ydata()) for line in axes.get_lines()}
    assert lines["model, loop 3"] == curves.by_loop[2].tolist()
    assert lines["least squares"] == curves.solution.tolist()


@pytest.mark.parametrize("scale", [1e-9, 1, 900])
def test_all_letters_lie_in_the_pictures(make_model, scale):
    curves = drawing.compute(make_model(), TASK, np.array([[1.0, scale], [-0.5, -scale]]), None)
    for draw in (drawing.plot_curve, drawing.plot_errors):
        figure = draw(curves, 3)
        pixels(figure)
        (axes,) = figure.axes
        needed = axes.get_tightbbox()
        assert needed.x0 >= 0
        assert needed.y0 >= 0
        assert needed.x1 <= figure.bbox.width
        assert needed.y1 <= figure.bbox.height
        assert sum(bool(label.get_text()) for label in axes.get_yticklabels()) >= 2


def leftmost_point(curves, n_loops):
    """Column and row of the picture where the leftmost of the blue points is, found by its colour."""
    figure = drawing.plot_curve(curves, n_loops)
    figure.axes[0].get_legend().remove()  # which shows one too
    image = pixels(figure)
    rows, columns = np.nonzero((image == (0x00, 0x72, 0xB2)).all(axis=-1))
    near = columns < columns.min() + 14
    return round(columns[near].mean()), round(rows[near].mean())


@pytest.mark.parametrize("n_dims", [1, 2])
def test_a_click_adds_a_point_where_it_fell_and_a_click_on_one_takes_it_away(make_model, n_dims):
    model = make_model()
    points, truth = drawing.draw_points(model, TASK, n_dims, 5, noise=1, seed=0)
    curves = drawing.compute(model, TASK, points, truth)
    leftmost = min(points.tolist())
    column, row = leftmost_point(curves, 3)
    fewer = drawing.click_points(curves, 3, [column, row])
    assert fewer.tolist() == [point for point in points.tolist() if point != leftmost]
    *others, added = drawing.click_points(curves, 3, [column, row + 60]).tolist()
    assert others == points.tolist()
    assert added[0] == pytest.approx(leftmost[0], abs=0.02)
    assert added[1:-1] == [0] * (n_dims - 1)
    assert added[-1] < leftmost[-1] - 0.1
    for beside in ([2, 2], [1200, 300]):
        assert drawing.click_points(curves, 3, beside) is None
    for bad in (None, "12", [1], [1, "a"], [1, None], [float("nan"), 1], [1, 1e300], {"x": 1}):
        with pytest.raises(ValueError, match=r"A click must be|(Column|Row) must be a number from 0 to 1000000"):
            drawing.click_points(curves, 3, bad)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ([["1", "abc"]], r"y of point 1 must be a number from -1000 to 1000, got 'abc'\."),
        ([["1", "2"], ["=1+1", "1"]], r"x1 of point 2 must be a number from -1000 to 1000, got '=1\+1'"),
        ([["1", ""]], "y of point 1 must be a number from -1000 to 1000, got nothing"),
        ([["1", None]], "got nothing"),
        ([["1", "nan"]], "got 'nan'"),
        ([["-inf", "1"]], "got '-inf'"),
        ([[1, 1e300]], r"got 1e\+300"),
        ([[1, 10**400]], "y of point 1 must be"),
        ([[True, 1]], "got True"),
        ([[[1], 1]], r"got \[1\]"),
        ([["1" * 500, 1]], r"got '1{39}\.$"),
        ([["", ""]], "reads 1 to 6 points, got 0"),
        ([], "reads 1 to 6 points, got 0"),
        ([[1, 1]] * 7, "reads 1 to 6 points, got 7"),
        ([[1] * 7], "must have 2 or 3 numbers, y the last, and all points as many: point 1 has 7"),
        ([[1, 1], [1, 1, 1]], "point 2 has 3"),
        ([[1]], "point 1 has 1"),
        (None, "The points must be a table, rows of numbers, got None"),
        ("abc", "must be a table"),
        ([1, 2], "must be a table"),
    ],
)
def test_a_bad_table_is_refused(table, message, make_model):
    with pytest.raises(ValueError, match=message):
        drawing.read_points(table, make_model(), TASK)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": None}, r"^Seed must be a whole number from 0 to 4294967295, got nothing\.$"),
        ({"seed": -1}, "Seed must be .* got -1"),
        ({"seed": 2**64}, "Seed must be"),
        ({"seed": 0.5}, "Seed must be a whole number"),
        ({"n_points": 2.5}, r"Points must be a whole number from 1 to 6, got 2\.5"),
        ({"n_points": 0}, "Points must be"),
        ({"n_points": 10**9}, "Points must be"),
        ({"noise": "nan"}, "Noise must be a number from 0 to 1, got 'nan'"),
        ({"noise": float("inf")}, "Noise must be"),
        ({"noise": None}, "Noise must be .* got nothing"),
        ({"n_dims": 3}, "Dimensions must be a whole number from 1 to 2, got 3"),
        ({"n_dims": [1]}, r"Dimensions must be .* got \[1\]"),
    ],
)
def test_a_bad_field_is_refused_by_name(changes, message, make_model):
    fields = {"n_dims": 1, "n_points": 4, "noise": 0, "seed": 0} | changes
    with pytest.raises(ValueError, match=message):
        drawing.draw_points(make_model(), TASK, **fields)


def test_an_answer_takes_one_token_per_query_and_loop():
    """No prompt is read twice: the block sees every token of the context, and every query, once per loop."""
    model = LoopedGPT2ForInContextRegression(LoopedGPT2Config(n_embd=16, n_head=2, n_dims=3, n_loops=3)).eval()
    tokens = []
    model.transformer.h[0].register_forward_hook(
        lambda module, inputs, output: tokens.append(inputs[0].shape[:2].numel())
    )
    drawing.compute(model, TASK, np.ones((6, 2)), None)
    assert sum(tokens) == LOOPS_SHOWN * 3 * (2 * 6 + len(drawing.GRID))
