"""Measure the processor time that demo.py takes to answer a click.

    python scripts/benchmark_demo.py --model model_cards/linear_regression

A click adds a point: the model answers the whole grid after every loop, and both pictures are drawn and written as
PNG. The time of Gradio and of the browser is not counted.
"""

import argparse
import io
import sys
import time
from statistics import median

import torch
from matplotlib.image import imsave

from modeling_looped_gpt2 import LoopedGPT2ForInContextRegression
from scripts.common.model_loading import load_model
from scripts.demo_page import curves as drawing
from scripts.demo_page.figures import pixels
from tasks import TASKS, FunctionClass


N_POINTS = 6
PIXEL = (300, 200)  # inside the picture


def answer_click(
    model: LoopedGPT2ForInContextRegression, task: FunctionClass, curves: drawing.Curves
) -> drawing.Curves:
    """Do what the server does after a click at `PIXEL` in the picture of `curves`; returns the new curves."""
    n_loops = model.config.n_loops
    points = drawing.click_points(curves, n_loops, PIXEL)
    answer = drawing.compute(model, task, drawing.read_points(points.tolist(), model, task), None)
    for draw in (drawing.plot_curve, drawing.plot_errors):
        imsave(io.BytesIO(), pixels(draw(answer, n_loops)), format="png")
    drawing.describe(answer, n_loops)
    return answer


def main():
    """Load the model, warm up, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--model", required=True, help="Folder or Hub repository of a model.")
    parser.add_argument("--task", choices=TASKS, default="linear_regression", help="Default: linear_regression.")
    parser.add_argument("--repeats", type=int, default=7, help="Clicks to measure. Default: 7.")
    arguments = parser.parse_args()
    if arguments.repeats < 1:
        parser.error(f"`repeats` must be >= 1, got {arguments.repeats}")
    torch.set_num_threads(1)  # as the page has it
    try:
        model = load_model(arguments.model)
        task = drawing.function_class_for(model, arguments.task, settings={})
        n_points = min(N_POINTS, drawing.max_points(model) - 1)
        points, truth = drawing.draw_points(model, task, drawing.dims_to_choose(task)[0], n_points, 0.0, 0)
    except (OSError, ValueError) as error:
        sys.exit(f"benchmark_demo.py: error: {error}")
    curves = drawing.compute(model, task, points, truth)
    answer_click(model, task, curves)
    seconds = []
    for _ in range(arguments.repeats):
        start = time.process_time()
        answer_click(model, task, curves)
        seconds.append(time.process_time() - start)
    print(f"{median(seconds):.3f} s of processor time per click ({min(seconds):.3f} to {max(seconds):.3f})")


if __name__ == "__main__":
    main()
