"""What the model learns: function classes, their streams and curriculum, baselines and metrics."""

from .common import Task
from .decision_tree import DecisionTree
from .linear_regression import LinearRegression, NoisyLinearRegression
from .relu_2nn_regression import Relu2nnRegression
from .sparse_linear_regression import SparseLinearRegression


TASKS: dict[str, type[Task]] = {
    task.name: task
    for task in (LinearRegression, NoisyLinearRegression, SparseLinearRegression, DecisionTree, Relu2nnRegression)
}


def make_task(name: str, n_dims: int) -> Task:
    """
    Build the function class `name` of `n_dims` dimensions with the paper's other settings.

    Raises:
        `ValueError`: there is no class of that name, or it cannot have so few dimensions.
    """
    if name not in TASKS:
        raise ValueError(f"`task` must be one of {', '.join(TASKS)}, got {name!r}.")
    return TASKS[name](n_dims=n_dims)


__all__ = ["TASKS", "Task", "make_task"]
