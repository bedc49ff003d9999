"""Serve a page on which looped models approach, loop by loop, a function, the answers of a table, or a problem's.

    python scripts/demo.py
    python scripts/demo.py --model runs/quickstart runs/tables_classification

Every model has its place by the task of its recipe: a function seen through a few points, a table of one's own, or a
problem that is typed. In a Space of the Hub: this repository with `app_file: scripts/demo.py`, and the models, with
spaces between them, in the variable LOOPED_GPT2_MODEL.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from scripts.demo_page.shown_model import find_model
from tasks import TASKS


FOLDER = Path("model_cards")
RELEASES = (
    *("all_classes", "tables_classification", "tables_regression"),
    *("parity", "addition", "group_words", "p_hop"),
)


def parse_arguments() -> argparse.Namespace:
    """Read the command line; refuse a task that several models cannot share, and a page without a model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument(
        "--model",
        nargs="+",
        default=os.environ.get("LOOPED_GPT2_MODEL", "").split() or releases(),
        help=f"Folders or Hub repositories of models. Default: what {FOLDER} has of {', '.join(RELEASES)}.",
    )
    parser.add_argument("--task", choices=TASKS, help="Task of a single model. Default: that of its recipe.")
    parser.add_argument("--port", type=int, help="Port on this machine. Default: the first free one from 7860 on.")
    arguments = parser.parse_args()
    if not all(arguments.model) or not arguments.model:
        parser.error(f"give `--model`, or set LOOPED_GPT2_MODEL: there is no release in {FOLDER.resolve()}")
    if arguments.task and len(arguments.model) > 1:
        parser.error(f"`--task` is of a single `--model`, got {len(arguments.model)} of them")
    return arguments


def releases() -> list[str]:
    """The folders of released models, of those that the page shows by default, that there are."""
    return [str(FOLDER / name) for name in RELEASES if (FOLDER / name / "config.json").is_file()]


def main():
    """Load the models and serve the page."""
    arguments = parse_arguments()
    try:
        serve(arguments.model, arguments.task, arguments.port)
    except (OSError, OverflowError, ValueError) as error:
        sys.exit(f"demo.py: error: {error}")
    except ImportError as error:
        sys.exit(f"demo.py: error: {error}: run `pip install -c constraints.txt -e '.[demo]'`.")


def serve(names: Sequence[str], task_name: str | None, port: int | None):
    """Serve the page of models until the program is stopped; raises `ValueError` where one cannot be shown."""
    from scripts.demo_page import page

    tabs = page.load_tabs([find_model(name, task_name) for name in names])
    torch.set_num_threads(1)  # visitors are answered at the same time: more threads each would wait for each other
    page.serve(page.build_page(tabs), port)


if __name__ == "__main__":
    main()
