"""The page that demo.py serves: its layout, and its answer to every action of a visitor."""

import functools
from collections.abc import Callable
from typing import Any

import gradio as gr
from starlette.middleware import Middleware

from modeling_looped_gpt2 import LoopedGPT2ForInContextRegression
from scripts.demo_page import curves as drawing
from scripts.demo_page.curves import Curves
from scripts.demo_page.request_limit import RequestLimit
from tasks import FunctionClass


QUEUE_SIZE = 32  # actions that may wait; further ones are refused
MAX_BYTES = 100_000  # of a request, many times the size of a table of a hundred points
EXPLANATION = (
    "One block, applied again and again, learns a function from its points: move the loops and see the curve settle. "
    "Click beside the curve to add a point, on a point to take it away; change a number in the table; or sample "
    "another function of the class."
)
PICTURE = {"show_label": False, "interactive": False, "buttons": [], "format": "png"}
# by default Gradio drops an action that comes before the last one is answered, and checks fields by itself; without
# preprocessing an empty field, or one out of its range, reaches the functions, whose messages name it
LAST = {"trigger_mode": "always_last", "preprocess": False}


def refusing(action: Callable) -> Callable:
    """Wrap an action so that the visitor sees the message of its `ValueError`."""

    @functools.wraps(action)
    def answer(*arguments):
        try:
            return action(*arguments)
        except ValueError as error:
            raise gr.Error(str(error), print_exception=False) from None

    return answer


class Actions:
    """
    The answers of the page to a visitor's actions; a bad value in a field is refused with a sentence.

    Args:
        model ([`LoopedGPT2ForInContextRegression`]), task ([`FunctionClass`]):
            The model that answers, and the class that functions are drawn from.
    """

    def __init__(self, model: LoopedGPT2ForInContextRegression, task: FunctionClass):
        self.model, self.task = model, task
        self.most_loops = drawing.LOOPS_SHOWN * model.config.n_loops

    @refusing
    def sample(self, n_dims: Any, n_points: Any, noise: Any, seed: Any):
        """Return a table of points on another function, and the curves for them."""
        points, truth = drawing.draw_points(self.model, self.task, n_dims, n_points, noise, seed)
        table = gr.Dataframe(points.tolist(), headers=drawing.headers(points.shape[1] - 1))
        return table, drawing.compute(self.model, self.task, points, truth)

    @refusing
    def type_points(self, table: Any):
        """Return the curves for the points of a table."""
        return self._curves(table and table["data"])

    @refusing
    def click(self, curves: Curves | None, loops: Any, event: gr.SelectData):
        """Return the table and the curves after a click into the picture of `curves`."""
        points = None if curves is None else drawing.click_points(curves, self._read_loops(loops), event.index)
        return gr.skip() if points is None else (points.tolist(), self._curves(points.tolist()))

    @refusing
    def show(self, curves: Curves | None, loops: Any):
        """Return both pictures and the sentence below them."""
        if curves is None:  # the page is still loading
            return gr.skip()
        count = self._read_loops(loops)
        figures = drawing.plot_curve(curves, count), drawing.plot_errors(curves, count)
        return *map(drawing.pixels, figures), drawing.describe(curves, count)

    def _curves(self, rows: Any) -> Curves:
        points = drawing.read_points(rows, self.model, self.task)
        return drawing.compute(self.model, self.task, points, None)

    def _read_loops(self, loops: Any) -> int:
        return drawing.read_number("Loops", loops, 1, self.most_loops, whole=True)


def build_page(model: LoopedGPT2ForInContextRegression, task: FunctionClass, title: str) -> gr.Blocks:
    """
    Build the page.

    Args:
        model ([`LoopedGPT2ForInContextRegression`]), task ([`FunctionClass`]):
            The model that answers, and the class that functions are drawn from.
        title (`str`):
            Text about both below the heading, in Markdown.
    """
    actions, max_points, dims = Actions(model, task), drawing.max_points(model), drawing.dims_to_choose(task)
    n_loops, headers = model.config.n_loops, drawing.headers(dims[0])
    with gr.Blocks(title="Looped GPT-2") as page:
        gr.Markdown(f"# Looped GPT-2\n{title}")
        curves = gr.State()
        with gr.Row():  # on a narrow screen the columns lie below each other
            with gr.Column(min_width=340):
                picture = gr.Image(alt_text="curves", **PICTURE)
                loops = gr.Slider(1, actions.most_loops, value=n_loops, step=1, label="Loops")
            with gr.Column(min_width=340):
                drawn = [picture, gr.Image(alt_text="error by loop", **PICTURE), gr.Markdown()]
        gr.Markdown(EXPLANATION)
        with gr.Row():
            with gr.Column(min_width=340):
                n_dims = gr.Radio(dims, value=dims[0], label="Dimensions")
                n_points = gr.Slider(1, max_points, value=min(6, max_points), step=1, label="Points")
                noise = gr.Slider(0, 1, value=0.0, step=0.05, label="Noise")
                seed = gr.Number(0, precision=0, minimum=0, maximum=drawing.LAST_SEED, label="Seed")
                button = gr.Button("Sample a function", variant="primary")
            with gr.Column(min_width=340):
                table = gr.Dataframe(headers=headers, datatype="str", interactive=True, label="Points, editable")
        sampled = [button.click, page.load, n_dims.change, n_points.release, noise.release, seed.submit]
        gr.on(sampled, actions.sample, [n_dims, n_points, noise, seed], [table, curves], **LAST)
        table.input(actions.type_points, table, curves, **LAST)
        picture.select(actions.click, [curves, loops], [table, curves], trigger_mode="multiple", preprocess=False)
        gr.on([curves.change, loops.change], actions.show, [curves, loops], drawn, show_progress="hidden", **LAST)
    return page.queue(max_size=QUEUE_SIZE)


def serve(page: gr.Blocks, max_points: int, port: int | None):
    """Serve a page until the program is stopped; requests that no table of `max_points` points needs are refused."""
    too_long = f"This request is longer than {MAX_BYTES} bytes: the model reads {max_points} points."
    limit = Middleware(RequestLimit, max_bytes=MAX_BYTES, message=too_long)
    page.launch(server_port=port, app_kwargs={"middleware": [limit]})
