"""The tab of functions: a curve that settles loop by loop."""

from collections.abc import Sequence
from typing import Any

import gradio as gr

from scripts.common.model_loading import load_model
from scripts.demo_page import curves as drawing
from scripts.demo_page.curves import Curves
from scripts.demo_page.fields import read_number
from scripts.demo_page.figures import pixels
from scripts.demo_page.shown_model import LOOPS_SHOWN, ShownModel
from scripts.demo_page.tab import LAST, PICTURE, Tab, refusing
from tasks import FunctionClass


EXPLANATION = (
    "One block, applied again and again, learns a function from its points: move the loops and see the curve settle. "
    "Click beside the curve to add a point, on a point to take it away; change a number in the table; or sample "
    "another function of the class."
)


class FunctionTab(Tab):
    """
    The tab and its answers to a visitor's actions; a bad value in a field is refused with a sentence.

    Args:
        models (`Sequence[ShownModel]`):
            The model that answers; its task is the class that functions are drawn from.

    Raises:
        `ValueError`: there are several, or the model cannot be loaded or reads no point.
    """

    label = "A function"
    tasks = (FunctionClass,)
    task_kind = "a class of functions"

    def __init__(self, models: Sequence[ShownModel]):
        if len(models) > 1:
            names = ", ".join(model.name for model in models)
            raise ValueError(f"`--model` must name one model of functions at most, got {names}.")
        (shown,) = models
        self.model = load_model(shown.name)
        self.task = drawing.function_class_for(self.model, shown.task_name, shown.settings)
        if not drawing.max_points(self.model):
            raise ValueError(
                f"{shown.name} must have `n_positions` >= 3, a point and a query, got {self.model.config.n_positions}."
            )
        self.title = drawing.describe_model(shown, self.model)
        self.most_loops = LOOPS_SHOWN * self.model.config.n_loops

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
        return *map(pixels, figures), drawing.describe(curves, count)

    def _curves(self, rows: Any) -> Curves:
        points = drawing.read_points(rows, self.model, self.task)
        return drawing.compute(self.model, self.task, points, None)

    def _read_loops(self, loops: Any) -> int:
        return read_number("Loops", loops, 1, self.most_loops, whole=True)

    def build(self, page: gr.Blocks):
        """Lay the tab out on `page`."""
        max_points, dims = drawing.max_points(self.model), drawing.dims_to_choose(self.task)
        gr.Markdown(self.title)
        curves = gr.State()
        with gr.Row():  # on a narrow screen the columns lie below each other
            with gr.Column(min_width=340):
                picture = gr.Image(alt_text="curves", **PICTURE)
                loops = gr.Slider(1, self.most_loops, value=self.model.config.n_loops, step=1, label="Loops")
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
                headers = drawing.headers(dims[0])
                table = gr.Dataframe(headers=headers, datatype="str", interactive=True, label="Points, editable")
        sampled = [button.click, page.load, n_dims.change, n_points.release, noise.release, seed.submit]
        gr.on(sampled, self.sample, [n_dims, n_points, noise, seed], [table, curves], **LAST)
        table.input(self.type_points, table, curves, **LAST)
        picture.select(self.click, [curves, loops], [table, curves], trigger_mode="multiple", preprocess=False)
        gr.on([curves.change, loops.change], self.show, [curves, loops], drawn, show_progress="hidden", **LAST)
