import shutil
from dataclasses import dataclass

import pytest

from modeling_looped_gpt2 import LoopedGPT2Config
from scripts.common.model_loading import weights_digest
from scripts.training.objectives import OBJECTIVES
from tasks import TASKS, Task


@pytest.fixture
def evaluated_as(untouched_evaluated, change, monkeypatch, tmp_path):
    """Make a folder of an untrained model of another objective, with records of a task of that."""

    def evaluated_as(objective_name, **sizes):
        folder = shutil.copytree(untouched_evaluated, tmp_path / objective_name)

        @dataclass(frozen=True)
        class Toy(Task):
            name, description, objective = "toy_problems", "toy problems", objective_name
            score_name, place_name = "share of wrong answers", "steps to take"

        monkeypatch.setitem(TASKS, Toy.name, Toy)
        config = LoopedGPT2Config(n_embd=16, n_head=2, n_positions=10, n_loops=2, **sizes)
        model = OBJECTIVES[objective_name].model_class(config)
        model.save_pretrained(folder)

        def measure(metrics):
            settings = metrics["settings"]
            del settings["n_dims"], settings["normaliser"]
            settings |= {"task": Toy.name, "score": Toy.score_name, "place": Toy.place_name}
            settings |= {"n_parameters": model.num_parameters(), "weights_sha256": weights_digest(model)}
            metrics["error_by_example"]["guessing"] = metrics["error_by_example"].pop("zero")

        change("metrics.json", measure, folder)
        change("recipe.yaml", lambda recipe: [recipe.update(task=Toy.name), recipe.pop("n_dims")], folder)
        return folder

    return evaluated_as
