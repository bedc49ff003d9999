"""What the tabs of the page share: how they are laid out and answer the actions of a visitor."""

import functools
from collections.abc import Callable
from typing import ClassVar

import gradio as gr

from tasks import Task


# by default Gradio drops an action that comes before the last one is answered, and checks fields by itself; without
# preprocessing an empty field, or one out of its range, reaches the functions, whose messages name it
LAST = {"trigger_mode": "always_last", "preprocess": False}
PICTURE = {"show_label": False, "interactive": False, "buttons": [], "format": "png"}


def refusing(action: Callable) -> Callable:
    """Wrap an action so that the visitor sees the message of its `ValueError`."""

    @functools.wraps(action)
    def answer(*arguments):
        try:
            return action(*arguments)
        except ValueError as error:
            raise gr.Error(str(error), print_exception=False) from None

    return answer


class Tab:
    """
    A tab of the page. A subclass is made with its models, at least one, and raises `ValueError` for those it refuses.

    Class attributes:
        label (`str`):
            What the tab is called.
        tasks (`tuple[type[Task], ...]`):
            The tasks of its models, or their base classes.
        task_kind (`str`):
            These tasks in words, for messages.
    """

    label: ClassVar[str]
    tasks: ClassVar[tuple[type[Task], ...]]
    task_kind: ClassVar[str]

    def build(self, page: gr.Blocks):
        """Lay the tab out on `page`."""
        raise NotImplementedError(f"{type(self).__name__} must define `build`.")
