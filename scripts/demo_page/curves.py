"""A function seen through a few points: the model's curve after every loop, and its error."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from modeling_looped_gpt2 import LoopedGPT2ForInContextRegression
from modeling_looped_gpt2.example_orders_looped_gpt2 import order_of
from modeling_looped_gpt2.loop_weights_looped_gpt2 import depends_on_n_loops
from scripts.demo_page.fields import read_number
from scripts.demo_page.figures import finish, start_figure
from scripts.demo_page.shown_model import LOOPS_SHOWN, ShownModel, say_loops
from scripts.evaluation.evaluated_task import build_task
from tasks import TASKS, FunctionClass
from tasks.streams import make_generator


GRID = torch.linspace(-2.5, 2.5, 41)  # of x1; every other x is 0 on it
LARGEST = 1000  # largest number in a table of points, either sign: inputs are standard normal
LAST_SEED = 2**32 - 1
REACH = 20  # pixels of the picture within which a click means a point: a finger is no finer


@dataclass(frozen=True, eq=False)
class Curves:
    """
    All that the pictures show. P points of d dimensions, G points on [`GRID`], L loops.

    Args:
        points (`np.ndarray` of shape `(P, d + 1)`):
            What the model has seen, y last.
        by_loop (`np.ndarray` of shape `(L, G)`):
            The model's curve after every loop.
        solver (`str`), solution (`np.ndarray` of shape `(G,)`):
            Name and curve of the classical solver of the function class.
        truth (`np.ndarray` of shape `(G,)`, *optional*):
            The function; `None` where points were typed.
        errors (`np.ndarray` of shape `(L,)`):
            Squared error against the function, or else against the solver; that of predicting 0 is 1.
        n_loops (`int`):
            Loops that the model was trained with.
    """

    points: np.ndarray
    by_loop: np.ndarray
    solver: str
    solution: np.ndarray
    truth: np.ndarray | None
    errors: np.ndarray
    n_loops: int

    @property
    def target(self) -> str:
        """What the error is measured against."""
        return self.solver if self.truth is None else "function"


def function_class_for(model: LoopedGPT2ForInContextRegression, name: str, settings: dict[str, Any]) -> FunctionClass:
    """
    Return the class of functions of that name, with these settings and as many dimensions as the model reads.

    Raises:
        `ValueError`: there is no such task, it is not a class of functions to numbers, or a setting is not its own.
    """
    if not issubclass(TASKS.get(name, FunctionClass), FunctionClass):
        raise ValueError(f"`task` must be a class of functions, whose curves the page draws, got {name}.")
    task = build_task(name, settings | {"n_dims": model.config.n_dims})
    if task.n_outputs > 1:
        raise ValueError(f"`task` must be a class whose values are numbers, which curves show, got {name}.")
    return task


def describe_model(shown: ShownModel, model: LoopedGPT2ForInContextRegression) -> str:
    """Return a sentence in Markdown on the model and the class of functions that the page draws."""
    trained = shown.recipe.get("task")
    title = f"`{shown.name}`, trained with {say_loops(model.config.n_loops)}"
    title += f" on functions of the class `{trained}`." if trained else "."
    if shown.task_name != trained:
        title += f" The functions on this page are of the class `{shown.task_name}`."
    return title


def max_points(model: LoopedGPT2ForInContextRegression) -> int:
    """Most points that the model reads before a query."""
    return order_of(model.config).max_examples(model.config.n_positions)


def dims_to_choose(task: FunctionClass) -> list[int]:
    """Return the two smallest numbers of active dimensions (or the only one) that the class can have."""

    def can_draw(n_dims: int) -> bool:
        try:
            task.check_sizes(n_dims_active=n_dims)
        except ValueError:
            return False
        return True

    return [n_dims for n_dims in range(1, task.n_dims + 1) if can_draw(n_dims)][:2]


def draw_points(
    model: LoopedGPT2ForInContextRegression, task: FunctionClass, n_dims: Any, n_points: Any, noise: Any, seed: Any
) -> tuple[np.ndarray, torch.Tensor]:
    """
    Draw a random function of the class and points on it.

    Args:
        model ([`LoopedGPT2ForInContextRegression`]), task ([`FunctionClass`]):
            The model that will read the points, and the class, of as many dimensions.
        n_dims (`int`):
            Dimensions in use, one of [`dims_to_choose`].
        n_points (`int`):
            Points to draw, in 1 ... [`max_points`].
        noise (`float`):
            Standard deviation added to y, in units of y, in 0 ... 1.
        seed (`int`):
            Decides function, points and noise, in 0 ... [`LAST_SEED`].

    Returns:
        Rows `[x1, ..., y]`, rounded as a table shows them, and the function's values on [`GRID`].

    Raises:
        `ValueError`: a number is not as above; the message is written for the visitor.
    """
    choices = dims_to_choose(task)
    n_dims = read_number("Dimensions", n_dims, choices[0], choices[-1], whole=True)
    n_points = read_number("Points", n_points, 1, max_points(model), whole=True)
    noise = read_number("Noise", noise, 0, 1)
    generator = make_generator("demo", read_number("Seed", seed, 0, LAST_SEED, whole=True))
    function = task.draw_functions(1, n_dims, generator)
    xs = torch.zeros(1, n_points, task.n_dims)
    xs[..., :n_dims] = torch.randn(1, n_points, n_dims, generator=generator)
    ys = function(xs) + noise * torch.randn(1, n_points, generator=generator)
    rows = torch.cat((xs[0, :, :n_dims], ys[0].unsqueeze(1)), dim=1)
    return rows.double().numpy().round(3), function(_on_grid(task.n_dims))[0]


def read_points(table: Any, model: LoopedGPT2ForInContextRegression, task: FunctionClass) -> np.ndarray:
    """
    Read the points of a table, rows `[x1, ..., y]`; empty rows are left out.

    Raises:
        `ValueError`: the table is not a list of rows, there is no point or more than the model reads, a row is longer
            or shorter than a point, or a cell is not a number up to [`LARGEST`]; the message is written for the
            visitor.
    """
    if not isinstance(table, list) or not all(isinstance(row, list) for row in table):
        raise ValueError(f"The points must be a table, rows of numbers, got {table!r:.40}.")
    rows = [row for row in table if any(cell not in (None, "") for cell in row)]
    if not 1 <= len(rows) <= max_points(model):
        raise ValueError(f"This model reads 1 to {max_points(model)} points, got {len(rows)}.")
    columns = [n_dims + 1 for n_dims in dims_to_choose(task)]
    for i, row in enumerate(rows):
        if len(row) not in columns or len(row) != len(rows[0]):
            raise ValueError(
                f"A point must have {' or '.join(map(str, columns))} numbers, y the last, and all points as many: "
                f"point {i + 1} has {len(row)}."
            )
    names = headers(len(rows[0]) - 1)
    return np.array(
        [
            [read_number(f"{names[j]} of point {i + 1}", cell, -LARGEST, LARGEST) for j, cell in enumerate(row)]
            for i, row in enumerate(rows)
        ]
    )


def headers(n_dims: int) -> list[str]:
    """Names of the columns of a table of points."""
    return [*(f"x{i + 1}" for i in range(n_dims)), "y"]


@torch.inference_mode()
def compute(
    model: LoopedGPT2ForInContextRegression, task: FunctionClass, points: np.ndarray, truth: torch.Tensor | None
) -> Curves:
    """
    Ask the model for its curve after every loop, and the solver for its own.

    Args:
        model ([`LoopedGPT2ForInContextRegression`]), task ([`FunctionClass`]):
            The model and its class, which decides the solver.
        points (`np.ndarray` of shape `(P, n_dims + 1)`):
            Points, y last.
        truth (`torch.Tensor` of shape `(G,)`, *optional*):
            The function on the grid; errors are measured against it, or else against the solver.
    """
    xs = torch.zeros(1, len(points), model.config.n_dims)
    xs[0, :, : points.shape[1] - 1] = torch.from_numpy(points[:, :-1])
    ys, queries = torch.from_numpy(points[:, -1]).float().unsqueeze(0), _on_grid(model.config.n_dims)
    by_loop = _predict_by_loop(model, xs, ys, queries).double()
    name, solver = task.solver
    examples = xs.expand(len(GRID), -1, -1), ys.expand(len(GRID), -1)
    solution = solver(*(tensor.double() for tensor in examples), queries[0].double())
    target = solution if truth is None else truth.double()
    error_of_zero = target.square().mean().item() or 1.0  # a function that is 0 has no relative error
    errors = (by_loop - target).square().mean(dim=1) / error_of_zero
    return Curves(
        points=points,
        by_loop=by_loop.numpy(),
        solver=name,
        solution=solution.numpy(),
        truth=None if truth is None else truth.numpy(),
        errors=errors.numpy(),
        n_loops=model.config.n_loops,
    )


def _predict_by_loop(
    model: LoopedGPT2ForInContextRegression, xs: torch.Tensor, ys: torch.Tensor, queries: torch.Tensor
) -> torch.Tensor:
    """Predictions `(L, G)` for examples xs `(1, P, D)` and ys `(1, P)` at queries `(1, G, D)`."""
    n_loops = LOOPS_SHOWN * model.config.n_loops
    if depends_on_n_loops(model.config):
        contexts = (model.encode_context(xs, ys, n_loops=number) for number in range(1, 1 + n_loops))
        return torch.cat([model.predict(queries, context) for context in contexts])
    if not model.config.n_coda:
        context = model.encode_context(xs, ys, n_loops=n_loops)
        return model.predict(queries, context, output_loop_predictions=True)[0]
    # a context holds what a coda saw after the last loop only, so each query needs a whole prompt
    prompts = torch.cat((xs.expand(len(GRID), -1, -1), queries.transpose(0, 1)), dim=1)
    outputs = model(prompts, ys.expand(len(GRID), -1), n_loops=n_loops, output_loop_predictions=True)
    return outputs.loop_predictions[:, :, -1].T


def _on_grid(n_dims: int) -> torch.Tensor:
    xs = torch.zeros(1, len(GRID), n_dims)
    xs[0, :, 0] = GRID
    return xs


def plot_curve(curves: Curves, n_loops: int) -> Figure:
    """Plot the model's curve after `n_loops` loops, the points, the solver's curve and the function."""
    axes = start_figure()
    if curves.truth is not None:
        axes.plot(GRID, curves.truth, color="#999999", linewidth=1.5, label="function")
    axes.plot(GRID, curves.solution, "--", color="#000000", linewidth=1.5, label=curves.solver)
    axes.plot(GRID, curves.by_loop[n_loops - 1], color="#D55E00", linewidth=2, label=f"model, loop {n_loops}")
    points = curves.points
    axes.scatter(points[:, 0], points[:, -1], color="#0072B2", zorder=3, label="points")
    span = np.abs([*curves.solution, *points[:, -1]]).max() * 1.3 + 0.1
    axes.set(xlabel="x1" if points.shape[1] == 2 else "x1, every other x = 0", ylabel="y", ylim=(-span, span))
    return finish(axes)


def plot_errors(curves: Curves, n_loops: int) -> Figure:
    """Plot the error after every loop, and mark `n_loops`."""
    axes = start_figure()
    errors = curves.errors.clip(1e-12, 1e12)  # an axis cannot show 0 or infinity
    axes.plot(range(1, len(errors) + 1), errors, color="#D55E00", linewidth=2)
    axes.scatter([n_loops], [errors[n_loops - 1]], color="#D55E00", zorder=3)
    axes.axvline(curves.n_loops, color="#666666", linestyle="--", linewidth=1, label="trained loops")
    # whole powers of ten, so that at least two have a number
    low, high = np.floor(np.log10(errors.min())), np.ceil(np.log10(errors.max()))
    axes.set(xlabel="loops", ylabel=f"error against the {curves.target}", yscale="log")
    axes.set(xlim=(0, len(errors) + 1), ylim=(10**low, 10 ** max(high, low + 1)))
    # no minor ticks and no formulas as labels: they take as long to draw as the rest of the picture
    axes.minorticks_off()
    axes.yaxis.set_major_formatter("{x:g}")
    return finish(axes)


def describe(curves: Curves, n_loops: int) -> str:
    """Return a sentence in Markdown on what the pictures show after `n_loops` loops."""
    best = int(np.argmin(curves.errors)) + 1
    return (
        f"After **{say_loops(n_loops)}** the error against the {curves.target} is "
        f"**{curves.errors[n_loops - 1]:.3g}** (predicting 0 has error 1); it is least after {say_loops(best)} "
        f"({curves.errors[best - 1]:.3g}). Trained with {say_loops(curves.n_loops)}."
    )


def click_points(curves: Curves, n_loops: int, pixel: Any) -> np.ndarray | None:
    """
    Return the points after a click into the picture: without the one that was clicked, or with a new one.

    Args:
        curves ([`Curves`]), n_loops (`int`):
            What the picture shows.
        pixel:
            Column and row of the click, from the upper left corner.

    Returns:
        Rows `[x1, ..., y]`, every x but x1 of a new point 0; `None` where the click was outside the axes.

    Raises:
        `ValueError`: `pixel` is not two numbers.
    """
    if not isinstance(pixel, list | tuple) or len(pixel) != 2:
        raise ValueError(f"A click must be a column and a row, got {pixel!r:.40}.")
    column, row = (read_number(name, value, 0, 10**6) for name, value in zip(("Column", "Row"), pixel, strict=True))
    axes, points = plot_curve(curves, n_loops).axes[0], curves.points
    click = column, axes.figure.bbox.height - row
    if not axes.bbox.contains(*click):
        return None
    distances = np.hypot(*(axes.transData.transform(points[:, [0, -1]]) - click).T)
    if distances.min() < REACH:
        return np.delete(points, distances.argmin(), axis=0)
    x, y = axes.transData.inverted().transform(click).round(3)
    return np.vstack((points, [x, *[0] * (points.shape[1] - 2), y]))
