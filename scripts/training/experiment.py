"""What differs between one kind of training and another: the data, the model, how it is judged and what is logged."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

from torch.utils.data import IterableDataset
from transformers import PreTrainedModel
from transformers.utils import PushToHubMixin

from scripts.common.fields import FieldGroups
from scripts.training.objectives import Objective
from scripts.training.objectives.exit_gate import ExitGate
from scripts.training.run_folder import RunFolder


class Experiment(ABC):
    """
    All that a [`~scripts.training.trainer.Trainer`] is told about what it trains.

    Args:
        arguments ([`FieldGroups`]):
            The run, as its folder records it.
        folder ([`RunFolder`]):
            Its folder, claimed.
    """

    # what the progress bar shows of a report besides the means
    shown: ClassVar[tuple[str, ...]] = ()
    # what is saved beside the model, by `save_pretrained`
    saved: tuple[PushToHubMixin, ...] = ()

    def __init__(self, arguments: FieldGroups, folder: RunFolder):
        self.arguments, self.folder = arguments, folder

    @staticmethod
    @abstractmethod
    def prepare(arguments: FieldGroups, folder: RunFolder) -> Callable[[], None]:
        """
        Check all that a run begins with, before anything is written, in the main process alone.

        Returns what writes the rest of it into the folder once that is claimed.

        Raises:
            `ValueError` or `RunError`: something is missing or does not fit.
        """

    @abstractmethod
    def batches(self, start: int, rank: int, world_size: int) -> IterableDataset:
        """Batches `start`, `start + 1`, ... without end: the rows of process `rank` of `world_size`."""

    @abstractmethod
    def build_model(self) -> PreTrainedModel:
        """The model at the start of the run."""

    @abstractmethod
    def build_objective(self) -> Objective:
        """What it is trained by; called after `build_model`, with random numbers that go on from there."""

    @abstractmethod
    def report(self, index: int, means: dict[str, float], seconds: float) -> dict[str, float]:
        """What is logged beside the means, or in the place of one, after step `index` (from 0) of `seconds`."""

    @abstractmethod
    def evaluate(self, model: PreTrainedModel, objective: Objective) -> dict[str, float]:
        """What a model has on held-out data, for the log; nothing where there are none."""

    def cost(self) -> dict[str, Any]:
        """What the run takes, for its record."""
        return {}

    def gated(self, objective: Objective) -> Objective:
        """The objective, by which the gate of the model is trained too where it has one."""
        if not self.arguments.model.exit_gate:
            return objective
        loops = self.arguments.loops
        return ExitGate(objective, loops.exit_prior_weight, loops.exit_prior_rate)
