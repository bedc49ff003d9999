"""How a model is trained on prompts: what its loss is, and what it answers."""

from scripts.training.objectives.answer_slots import AnswerSlots
from scripts.training.objectives.classification import Classification
from scripts.training.objectives.common import Objective
from scripts.training.objectives.next_token import NextToken
from scripts.training.objectives.regression import Regression


OBJECTIVES: dict[str, type[Objective]] = {
    "regression": Regression,
    "classification": Classification,
    "next_token": NextToken,
    "answer_slots": AnswerSlots,
}

__all__ = ["OBJECTIVES", "AnswerSlots", "Classification", "NextToken", "Objective", "Regression"]
