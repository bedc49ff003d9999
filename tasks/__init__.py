"""What a model learns: tasks, their streams and schedules, baselines, limits and metrics."""

from .common import FunctionClass, Task
from .functions.decision_tree import DecisionTree
from .functions.endogenous_linear_regression import EndogenousLinearRegression
from .functions.fourier_regression import FourierRegression
from .functions.linear_autoregression import LinearAutoregression
from .functions.linear_regression import LinearRegression, NoisyLinearRegression
from .functions.outlier_regression import ManyOutlierRegression, OrthogonalOutlierRegression
from .functions.quadratic_regression import QuadraticRegression
from .functions.relu_2nn_regression import Relu2nnRegression
from .functions.relu_chain import ReluChain
from .functions.representation_regression import RepresentationRegression
from .functions.sparse_linear_regression import SparseLinearRegression
from .functions.sparse_parity import SparseParity
from .functions.unscaled_linear_regression import UnscaledLinearRegression
from .functions.vector_retrieval import VectorRetrieval
from .mixture import Mixture
from .registry import TASKS, make_task, task_fields
from .sequences.addition import Addition
from .sequences.copy import Copy
from .sequences.edit_distance import EditDistance
from .sequences.group_words import GroupWords
from .sequences.modular_sum import ModularSum
from .sequences.p_hop import PHop
from .sequences.parity import Parity
from .sequences.pointer_chains import PointerChains
from .sequences.sum_of_bits import SumOfBits
from .sequences.unique_set import UniqueSet
from .tables.random_tables import RandomTables
from .tables.real_tables import RealTables
from .tables.table_prior import TablePrior


TASKS.update(
    (task.name, task)
    for task in (
        LinearRegression,
        NoisyLinearRegression,
        UnscaledLinearRegression,
        SparseLinearRegression,
        DecisionTree,
        Relu2nnRegression,
        QuadraticRegression,
        FourierRegression,
        RepresentationRegression,
        ManyOutlierRegression,
        OrthogonalOutlierRegression,
        EndogenousLinearRegression,
        LinearAutoregression,
        VectorRetrieval,
        ReluChain,
        SparseParity,
        PointerChains,
        Parity,
        Copy,
        Addition,
        SumOfBits,
        UniqueSet,
        GroupWords,
        PHop,
        ModularSum,
        EditDistance,
        RandomTables,
        RealTables,
        TablePrior,
        Mixture,
    )
)


__all__ = ["TASKS", "FunctionClass", "Task", "make_task", "task_fields"]
