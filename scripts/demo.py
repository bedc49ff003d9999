"""A page on which a looped model settles, loop by loop, on a function seen through a few points.

    python scripts/demo.py --model runs/quickstart --task linear_regression

Click or type points, or sample a function of the class, and move the loops. As a Space of the Hub: this repository
with `app_file: scripts/demo.py` and the model in the variable LOOPED_GPT2_MODEL.
"""

import argparse
import os
import sys
from typing import Any

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from modeling_looped_gpt2 import LoopedGPT2ForInContextRegression
from tasks import TASKS, Task, make_task
from tasks.baselines import predict_3_nearest_neighbours, predict_least_squares
from tasks.streams import make_generator


GRID = torch.linspace(-2.5, 2.5, 101)  # of x_1; x_2 is 0 on it
SOLVERS = {
    "decision_tree": ("3-nearest neighbours", predict_3_nearest_neighbours),
    "relu_2nn_regression": ("3-nearest neighbours", predict_3_nearest_neighbours),
}
LOOPS_SHOWN = 4  # times the trained count
REACH = 12  # pixels of the picture within which a click means a point


def draw_points(
    task: Task, n_dims: int, n_points: int, noise: float, seed: int
) -> tuple[list[list[float]], torch.Tensor]:
    """
    Draw a function of the class and points of it.

    Args:
        task ([`Task`]):
            The class, of as many dimensions as the model reads.
        n_dims (`int`):
            Dimensions in use.
        n_points (`int`):
            Points to draw.
        noise (`float`):
            Standard deviation added to y, in units of y, >= 0.
        seed (`int`):
            Decides function, points and noise.

    Returns:
        Rows `[x_1, ..., y]`, rounded as a table shows them, and the function's values on [`GRID`].
    """
    task.check_n_dims_active(n_dims)
    generator = make_generator("demo", seed)
    function = task.draw_functions(1, n_dims, generator)
    xs = torch.zeros(1, n_points, task.n_dims)
    xs[..., :n_dims] = torch.randn(1, n_points, n_dims, generator=generator)
    ys = function(xs) + noise * torch.randn(1, n_points, generator=generator)
    rows = torch.cat((xs[0, :, :n_dims], ys[0].unsqueeze(1)), dim=1)
    return np.round(rows.double().numpy(), 3).tolist(), function(_on_grid(task.n_dims))[0]


def read_points(table: Any, model: LoopedGPT2ForInContextRegression) -> torch.Tensor:
    """
    Points of a table, rows `[x_1, ..., y]`, to a float tensor; empty rows are left out.

    Raises:
        `ValueError`: a cell is not a number, there is no point, or more than the model reads.
    """
    rows = [row for row in np.asarray(table, dtype=object).tolist() if any(cell not in (None, "") for cell in row)]
    try:
        points = torch.tensor([[float(cell) for cell in row] for row in rows])
    except (TypeError, ValueError):
        raise ValueError("Every cell of a point must be a number.") from None
    max_points = (model.config.n_positions - 1) // 2
    if not 1 <= len(points) <= max_points:
        raise ValueError(f"This model reads 1 to {max_points} points, got {len(points)}.")
    if not points.isfinite().all():
        raise ValueError("Every cell of a point must be a finite number.")
    return points


@torch.inference_mode()
def compute(
    model: LoopedGPT2ForInContextRegression, task: Task, points: torch.Tensor, truth: torch.Tensor | None
) -> dict[str, Any]:
    """
    All that the pictures show: predictions on [`GRID`] after every loop, the solver's, and the error by loop.

    Args:
        model ([`LoopedGPT2ForInContextRegression`]), task ([`Task`]):
            The model and its class, which decides the solver.
        points (`torch.Tensor` of shape `(P, n_dims + 1)`):
            Points, y last.
        truth (`torch.Tensor` of shape `(101,)`, *optional*):
            The function on the grid; errors are measured against it, or else against the solver.
    """
    n_grid, n_points = len(GRID), len(points)
    examples = torch.zeros(1, n_points, model.config.n_dims)
    examples[..., : points.shape[1] - 1] = points[:, :-1]
    ys = points[:, -1].expand(n_grid, -1)
    queries = _on_grid(model.config.n_dims)[0]
    xs = torch.cat((examples.expand(n_grid, -1, -1), queries.unsqueeze(1)), dim=1)
    n_loops = LOOPS_SHOWN * model.config.n_loops
    by_loop = model(xs, ys, n_loops=n_loops, output_loop_predictions=True).loop_predictions[:, :, -1].T
    name, solver = SOLVERS.get(task.name, ("least squares", predict_least_squares))
    solution = solver(xs[:, :-1].double(), ys.double(), queries.double()).float()
    target = solution if truth is None else truth
    errors = (by_loop - target).square().mean(dim=1) / task.normaliser
    return {
        "points": points.tolist(),
        "by_loop": by_loop.tolist(),
        "solver": (name, solution.tolist()),
        "truth": None if truth is None else truth.tolist(),
        "errors": errors.tolist(),
        "n_loops": model.config.n_loops,
    }


def _on_grid(n_dims: int) -> torch.Tensor:
    xs = torch.zeros(1, len(GRID), n_dims)
    xs[0, :, 0] = GRID
    return xs


def draw(state: dict[str, Any], n_loops: int) -> tuple[Figure, str]:
    """The curve after `n_loops` loops beside the error by loop, and a sentence that says the same."""
    figure = Figure(figsize=(9.5, 4), dpi=150, layout="constrained")
    left, right = figure.subplots(1, 2)
    name, solution = state["solver"]
    if state["truth"] is not None:
        left.plot(GRID, state["truth"], color="#999999", linewidth=1.5, label="function")
    left.plot(GRID, solution, "--", color="#000000", linewidth=1.5, label=name)
    left.plot(GRID, state["by_loop"][n_loops - 1], color="#D55E00", linewidth=2, label=f"model, loop {n_loops}")
    points = np.array(state["points"])
    left.scatter(points[:, 0], points[:, -1], color="#0072B2", zorder=3, label="points")
    span = np.abs([*solution, *points[:, -1]]).max() * 1.3 + 0.1
    left.set(xlabel="x1" if points.shape[1] == 2 else "x1, at x2 = 0", ylabel="y", ylim=(-span, span))
    left.legend(fontsize=8, frameon=False)
    errors = state["errors"]
    right.plot(range(1, len(errors) + 1), errors, color="#D55E00", linewidth=2)
    right.scatter([n_loops], [errors[n_loops - 1]], color="#D55E00", zorder=3)
    right.axvline(state["n_loops"], color="#666666", linestyle="--", linewidth=1, label="trained loops")
    against = "function" if state["truth"] is not None else name
    right.set(xlabel="loops", ylabel=f"error against the {against}", yscale="log")
    right.legend(fontsize=8, frameon=False)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25, linewidth=0.6)
    FigureCanvasAgg(figure).draw()  # which places the axes too
    best = int(np.argmin(errors)) + 1
    return figure, (
        f"After **{n_loops}** loops the error against the {against} is **{errors[n_loops - 1]:.3g}**; "
        f"it is least after {best} ({errors[best - 1]:.3g}). Trained with {state['n_loops']} loops."
    )


def click_points(state: dict[str, Any], n_loops: int, pixel: tuple[int, int]) -> list[list[float]] | None:
    """
    Points after a click into the picture: one less where there was one, or else one more, whose x_2 is 0.

    Args:
        state (`dict`), n_loops (`int`):
            What the picture shows.
        pixel (`tuple[int, int]`):
            Column and row of the click, from the upper left corner.

    Returns:
        Rows `[x_1, ..., y]`, or `None` where the click was beside the curves.
    """
    axes, points = draw(state, n_loops)[0].axes[0], np.array(state["points"])
    click = pixel[0], axes.figure.bbox.height - pixel[1]
    if not axes.bbox.contains(*click):
        return None
    distances = np.hypot(*(axes.transData.transform(points[:, [0, -1]]) - click).T)
    if distances.min() < REACH:
        points = np.delete(points, distances.argmin(), axis=0)
    else:
        x, y = axes.transData.inverted().transform(click).round(3)
        points = np.vstack((points, [x, *[0] * (points.shape[1] - 2), y]))
    return points.round(6).tolist()  # as typed: they were float32


def build_page(model: LoopedGPT2ForInContextRegression, task: Task):
    """The page, a `gradio.Blocks`."""
    import gradio as gr

    max_points, n_loops = (model.config.n_positions - 1) // 2, model.config.n_loops

    def headers(n_dims: int) -> list[str]:
        return [*(f"x{i + 1}" for i in range(n_dims)), "y"]

    def sample(n_dims: int, n_points: int, noise: float, seed: float):
        try:
            rows, truth = draw_points(task, n_dims, n_points, noise, int(seed))
        except ValueError as error:
            raise gr.Error(str(error)) from None
        return gr.Dataframe(rows, headers=headers(n_dims)), compute(model, task, torch.tensor(rows), truth)

    def type_points(table):
        try:
            return compute(model, task, read_points(table, model), None)
        except ValueError as error:
            raise gr.Error(str(error)) from None

    def click(state: dict[str, Any], n_loops: int, event: gr.SelectData):
        rows = click_points(state, n_loops, event.index)
        return gr.skip() if rows is None else (rows, type_points(rows))

    def show(state: dict[str, Any], n_loops: int):
        figure, text = draw(state, n_loops)
        return np.asarray(figure.canvas.buffer_rgba()), text

    with gr.Blocks(title="Looped GPT-2") as page:
        gr.Markdown(
            "# Looped GPT-2\nOne block, applied again and again, learns a function from its points. Move the loops "
            "and see the curve settle. Click beside the curve to add a point, on a point to take it away; change a "
            "number in the table; or sample another function of the class."
        )
        state = gr.State()
        with gr.Row():
            with gr.Column(scale=1):
                n_dims = gr.Radio([1, 2], value=1, label="Dimensions")
                n_points = gr.Slider(1, max_points, value=min(6, max_points), step=1, label="Points")
                noise = gr.Slider(0, 1, value=0.0, step=0.05, label="Noise")
                seed = gr.Number(0, precision=0, minimum=0, label="Seed")
                button = gr.Button("Sample a function", variant="primary")
                table = gr.Dataframe(
                    headers=headers(1), datatype="str", type="array", interactive=True, label="Points, editable"
                )
            with gr.Column(scale=3):
                loops = gr.Slider(1, LOOPS_SHOWN * n_loops, value=n_loops, step=1, label="Loops")
                picture = gr.Image(show_label=False, interactive=False, buttons=[], format="png", alt_text="curves")
                sentence = gr.Markdown()
        # "always_last": by default an action is lost that comes while the one before is still being answered
        sampled = [button.click, page.load, n_dims.change, n_points.release, noise.release]
        gr.on(sampled, sample, [n_dims, n_points, noise, seed], [table, state], trigger_mode="always_last")
        table.input(type_points, table, state, trigger_mode="always_last")
        picture.select(click, [state, loops], [table, state], trigger_mode="multiple")
        shown = {"show_progress": "hidden", "trigger_mode": "always_last"}
        gr.on([state.change, loops.change], show, [state, loops], [picture, sentence], **shown)
    return page


def main():
    """Load the model and serve the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument(
        "--model", default=os.environ.get("LOOPED_GPT2_MODEL"), help="Folder or Hub repository of a model."
    )
    parser.add_argument("--task", default="linear_regression", choices=TASKS, help="Function class of the model.")
    parser.add_argument("--port", type=int, help="Port on this machine. Default: the first free one from 7860 on.")
    arguments = parser.parse_args()
    if arguments.model is None:
        parser.error("give `--model`, or set LOOPED_GPT2_MODEL")
    try:
        model = LoopedGPT2ForInContextRegression.from_pretrained(arguments.model).eval()
        page = build_page(model, make_task(arguments.task, model.config.n_dims))
        page.launch(server_port=arguments.port)
    except (OSError, OverflowError, ValueError) as error:
        sys.exit(f"demo.py: error: {error}")
    except ImportError as error:
        sys.exit(f"demo.py: error: {error}: run `pip install -c constraints.txt -e '.[demo]'`.")


if __name__ == "__main__":
    main()
