"""Serve a page on which a looped model approaches, loop by loop, a function seen through a few points.

    python scripts/demo.py --model runs/quickstart

Click or type points, or sample a function of the class, and change the number of loops. In a Space of the Hub: this
repository with `app_file: scripts/demo.py`, and the model in the variable LOOPED_GPT2_MODEL.
"""

import argparse
import os
import sys

import torch

from scripts.common.model_loading import load_model
from scripts.demo_page.curves import function_class_for, max_points
from scripts.evaluation.evaluated_task import recipe_of, settings_of
from tasks import TASKS


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
    from scripts.demo_page import page

    model, recipe = load_model(name), recipe_of(name)
    trained = recipe.get("task")
    task_name = task_name or trained
    if not task_name:
        raise ValueError(f"{name} holds no recipe.yaml, which names the function class: give `--task`.")
    if not max_points(model):
        raise ValueError(f"{name} must have `n_positions` >= 3, a point and a query, got {model.config.n_positions}.")
    task = function_class_for(model, task_name, settings_of(recipe, task_name))
    title = f"`{name}`, trained with {model.config.n_loops} loops"
    title += f" on functions of the class `{trained}`." if trained else "."
    if task.name != trained:
        title += f" The functions on this page are of the class `{task.name}`."
    torch.set_num_threads(1)  # visitors are answered at the same time: more threads each would wait for each other
    page.serve(page.build_page(model, task, title), max_points(model), port)


if __name__ == "__main__":
    main()
