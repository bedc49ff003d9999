"""The task that the page asks of a model."""

import pytest
import yaml

from modeling_looped_gpt2 import LoopedGPT2Config
from scripts.demo_page.shown_model import find_model


MIXTURE = {"components": {"decision_tree": {"weight": 1, "depth": 2}, "linear_regression": 3}}


@pytest.fixture
def folder(tmp_path):
    LoopedGPT2Config().save_pretrained(tmp_path)
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump({"task": "mixture", "task_settings": MIXTURE}))
    return str(tmp_path)


def test_of_a_mixture_it_is_the_component_of_most_weight_or_the_one_that_is_asked_for(folder):
    assert find_model(folder).task_name == "linear_regression"
    assert find_model(folder, "decision_tree").task_name == "decision_tree"
    assert find_model(folder).settings == {}
