"""What a model learns: tasks, their streams and schedules, baselines, limits and metrics."""

from dataclasses import fields
from typing import Any

from .common import FunctionClass, Task
from .functions.decision_tree import DecisionTree
from .functions.linear_regression import LinearRegression, NoisyLinearRegression
from .functions.relu_2nn_regression import Relu2nnRegression
from .functions.sparse_linear_regression import SparseLinearRegression


TASKS: dict[str, type[Task]] = {
    task.name: task
    for task in (LinearRegression, NoisyLinearRegression, SparseLinearRegression, DecisionTree, Relu2nnRegression)
}


def make_task(name: str, **settings: Any) -> Task:
    """
    Build the task `name`, an entry of [`TASKS`].

    Args:
        name (`str`):
            Its name.
        settings:
            Its fields; those that are left out are the paper's.

    Raises:
        `ValueError`: there is no task of that name, it has no such field, or a value is out of its range.
    """
    if name not in TASKS:
        raise ValueError(f"`task` must be one of {', '.join(TASKS)}, got {name!r}.")
    known = [field.name for field in fields(TASKS[name])]
    for setting in settings:
        if setting not in known:
            raise ValueError(f"the settings of {name} are {', '.join(known)}, got `{setting}`.")
    return TASKS[name](**settings)


__all__ = ["TASKS", "FunctionClass", "Task", "make_task"]
