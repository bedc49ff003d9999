"""The page that demo.py serves: a tab for each kind of task that its models were trained on."""

from collections.abc import Sequence

import gradio as gr
from starlette.middleware import Middleware

from scripts.demo_page.function_tab import FunctionTab
from scripts.demo_page.problem_tab import ProblemTab
from scripts.demo_page.request_limit import RequestLimit
from scripts.demo_page.shown_model import ShownModel
from scripts.demo_page.tab import Tab
from scripts.demo_page.table_tab import TableTab


QUEUE_SIZE = 32  # actions that may wait; further ones are refused
MAX_BYTES = 100_000  # of a request, several times the size of the largest table that a tab takes
TABS: tuple[type[Tab], ...] = (FunctionTab, TableTab, ProblemTab)


def load_tabs(models: Sequence[ShownModel]) -> list[Tab]:
    """
    Load models into a tab for each kind of task that they are of.

    Args:
        models (`Sequence[ShownModel]`):
            At least one.

    Raises:
        `ValueError`: a model cannot be loaded or shown, or there is no tab for its task.
    """
    for model in models:
        if not any(issubclass(model.task_class, tab.tasks) for tab in TABS):
            kinds = ", ".join(tab.task_kind for tab in TABS)
            raise ValueError(f"`task` must be one of what the page shows, {kinds}, got {model.task_name}.")
    chosen = {tab: [model for model in models if issubclass(model.task_class, tab.tasks)] for tab in TABS}
    return [tab(its_models) for tab, its_models in chosen.items() if its_models]


def build_page(tabs: Sequence[Tab]) -> gr.Blocks:
    """Build the page of these tabs, the first of which is open."""
    with gr.Blocks(title="Looped GPT-2") as page:
        gr.Markdown("# Looped GPT-2")
        for tab in tabs:
            with gr.Tab(tab.label):
                tab.build(page)
    return page.queue(max_size=QUEUE_SIZE)


def serve(page: gr.Blocks, port: int | None):
    """Serve a page until the program is stopped; requests that no tab needs are refused."""
    too_long = f"This request is longer than {MAX_BYTES} bytes, and this page takes no table of that size."
    limit = Middleware(RequestLimit, max_bytes=MAX_BYTES, message=too_long)
    page.launch(server_port=port, app_kwargs={"middleware": [limit]})
