"""A page on which a looped model settles, loop by loop, on a function seen through a few points.

    python scripts/demo.py --model runs/quickstart

Click or type points, or sample a function of the class, and move the loops. As a Space of the Hub: this repository
with `app_file: scripts/demo.py` and the model in the variable LOOPED_GPT2_MODEL.
"""

import argparse
import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers.utils import cached_file

from modeling_looped_gpt2 import LoopedGPT2ForInContextRegression
from scripts.common.model_loading import load_model
from scripts.common.records import read_yaml
from scripts.demo_page import curves as demo_curves
from scripts.demo_page.curves import Curves
from scripts.demo_page.request_limit import RequestLimit
from tasks import TASKS, Task, make_task


QUEUE_SIZE = 32  # actions that wait; further ones are refused
MAX_BYTES = 100_000  # of a request: many times a table of a hundred points


def trained_on(model: str) -> str | None:
    """The function class that the recipe beside a model names, a folder or a Hub repository; `None` without one."""
    try:
        path = cached_file(model, "recipe.yaml")
    except OSError:
        return None
    task = read_yaml(Path(path)).get("task")
    return None if task is None else str(task)


def build_page(model: LoopedGPT2ForInContextRegression, task: Task, title: str):
    """
    The page, a `gradio.Blocks`.

    Args:
        model ([`LoopedGPT2ForInContextRegression`]), task ([`Task`]):
            Who answers, and the class that functions are drawn of.
        title (`str`):
            What the page says of both, in Markdown.
    """
    import gradio as gr

    max_points, n_loops = demo_curves.max_points(model), model.config.n_loops
    dims = demo_curves.dims_to_choose(task)

    def refuse(function: Callable) -> Callable:
        """Show the visitor what is wrong with an action."""

        @functools.wraps(function)
        def answer(*arguments):
            try:
                return function(*arguments)
            except ValueError as error:
                raise gr.Error(str(error), print_exception=False) from None

        return answer

    @refuse
    def sample(n_dims: Any, n_points: Any, noise: Any, seed: Any):
        points, truth = demo_curves.draw_points(model, task, n_dims, n_points, noise, seed)
        headers = demo_curves.headers(points.shape[1] - 1)
        return gr.Dataframe(points.tolist(), headers=headers), demo_curves.compute(model, task, points, truth)

    @refuse
    def type_points(table: Any):
        points = demo_curves.read_points(table and table["data"], model, task)
        return demo_curves.compute(model, task, points, None)

    @refuse
    def click(curves: Curves | None, loops: Any, event: gr.SelectData):
        points = None if curves is None else demo_curves.click_points(curves, read_loops(loops), event.index)
        if points is None:
            return gr.skip()
        rows = points.tolist()
        return rows, demo_curves.compute(model, task, demo_curves.read_points(rows, model, task), None)

    @refuse
    def show(curves: Curves | None, loops: Any):
        if curves is None:  # the page is still loading
            return gr.skip()
        count = read_loops(loops)
        figures = demo_curves.draw_curve(curves, count), demo_curves.draw_errors(curves, count)
        return *map(demo_curves.pixels, figures), demo_curves.describe(curves, count)

    def read_loops(loops: Any) -> int:
        return demo_curves.read_number("Loops", loops, 1, demo_curves.LOOPS_SHOWN * n_loops, whole=True)

    picture_settings = {"show_label": False, "interactive": False, "buttons": [], "format": "png"}
    with gr.Blocks(title="Looped GPT-2") as page:
        gr.Markdown(f"# Looped GPT-2\n{title}")
        curves = gr.State()
        with gr.Row():  # on a narrow screen the columns lie below each other
            with gr.Column(min_width=340):
                picture = gr.Image(alt_text="curves", **picture_settings)
                loops = gr.Slider(1, demo_curves.LOOPS_SHOWN * n_loops, value=n_loops, step=1, label="Loops")
            with gr.Column(min_width=340):
                errors = gr.Image(alt_text="error by loop", **picture_settings)
                sentence = gr.Markdown()
        gr.Markdown(
            "One block, applied again and again, learns a function from its points: move the loops and see the curve "
            "settle. Click beside the curve to add a point, on a point to take it away; change a number in the table; "
            "or sample another function of the class."
        )
        with gr.Row():
            with gr.Column(min_width=340):
                n_dims = gr.Radio(dims, value=dims[0], label="Dimensions")
                n_points = gr.Slider(1, max_points, value=min(6, max_points), step=1, label="Points")
                noise = gr.Slider(0, 1, value=0.0, step=0.05, label="Noise")
                seed = gr.Number(0, precision=0, minimum=0, maximum=demo_curves.LAST_SEED, label="Seed")
                button = gr.Button("Sample a function", variant="primary")
            with gr.Column(min_width=340):
                headers = demo_curves.headers(dims[0])
                table = gr.Dataframe(headers=headers, datatype="str", interactive=True, label="Points, editable")
        # "always_last": by default an action is lost that comes while the one before is still being answered;
        # unprocessed, a field that is empty or out of its range reaches the functions, which name it
        last = {"trigger_mode": "always_last", "preprocess": False}
        sampled = [button.click, page.load, n_dims.change, n_points.release, noise.release, seed.submit]
        gr.on(sampled, sample, [n_dims, n_points, noise, seed], [table, curves], **last)
        table.input(type_points, table, curves, **last)
        picture.select(click, [curves, loops], [table, curves], trigger_mode="multiple", preprocess=False)
        drawn = [picture, errors, sentence]
        gr.on([curves.change, loops.change], show, [curves, loops], drawn, show_progress="hidden", **last)
    return page.queue(max_size=QUEUE_SIZE)


def main():
    """Load the model and serve the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument(
        "--model", default=os.environ.get("LOOPED_GPT2_MODEL"), help="Folder or Hub repository of a model."
    )
    parser.add_argument("--task", choices=TASKS, help="Function class. Default: that of the model's recipe.")
    parser.add_argument("--port", type=int, help="Port on this machine. Default: the first free one from 7860 on.")
    arguments = parser.parse_args()
    if not arguments.model:
        parser.error("give `--model`, or set LOOPED_GPT2_MODEL")
    try:
        serve(arguments.model, arguments.task, arguments.port)
    except (OSError, OverflowError, ValueError) as error:
        sys.exit(f"demo.py: error: {error}")
    except ImportError as error:
        sys.exit(f"demo.py: error: {error}: run `pip install -c constraints.txt -e '.[demo]'`.")


def serve(name: str, task_name: str | None, port: int | None):
    """Serve the page of a model until the program is stopped; raises `ValueError` where the model cannot be shown."""
    from starlette.middleware import Middleware

    model, trained = load_model(name), trained_on(name)
    if not (task_name or trained):
        raise ValueError(f"{name} holds no recipe.yaml, which names the function class: give `--task`.")
    if not demo_curves.max_points(model):
        raise ValueError(f"{name} must have `n_positions` >= 3, a point and a query, got {model.config.n_positions}.")
    task = make_task(task_name or trained, n_dims=model.config.n_dims)
    title = f"`{name}`, trained with {model.config.n_loops} loops"
    title += f" on functions of the class `{trained}`." if trained else "."
    if task.name != trained:
        title += f" The functions on this page are of the class `{task.name}`."
    torch.set_num_threads(1)  # a visitor each: threads of one answer would wait for those of another
    too_long = (
        f"This request is longer than {MAX_BYTES} bytes: the model reads {demo_curves.max_points(model)} points."
    )
    limit = Middleware(RequestLimit, max_bytes=MAX_BYTES, message=too_long)
    build_page(model, task, title).launch(server_port=port, app_kwargs={"middleware": [limit]})


if __name__ == "__main__":
    main()
