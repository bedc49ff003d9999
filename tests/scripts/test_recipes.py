from pathlib import Path

import pytest
import torch
import yaml

from modeling_looped_gpt2 import LoopedGPT2ForInContextRegression
from scripts.arguments import parse_arguments


SCRIPTS = Path(__file__).parents[2] / "scripts"
RECIPES = sorted(SCRIPTS.glob("recipes/*.yaml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_builds_and_says_where_it_comes_from(path):
    assert path.read_text().startswith("# ")
    arguments = parse_arguments(["--recipe", str(path), "--output_dir", "out"])
    with torch.device("meta"):
        model = LoopedGPT2ForInContextRegression(arguments.config)
    assert model.num_parameters() < 948_000
    last = arguments.optimization.max_steps - 1
    stream = arguments.stream
    assert (stream.n_dims_active.at(last), stream.n_points.at(last)) == (
        arguments.task.n_dims,
        arguments.task.n_points,
    )
    assert arguments.n_loops_schedule.at(last) == arguments.model.n_loops


def test_the_papers_recipe_has_the_papers_settings():
    recipe = yaml.safe_load((SCRIPTS / "recipes" / "linear_regression_paper.yaml").read_text())
    paper = {"n_loops": 20, "loop_window": 15, "max_steps": 500_000, "learning_rate": "1e-4", "n_loops_interval": 500}
    assert recipe.items() >= paper.items()


@pytest.mark.parametrize("path", sorted(SCRIPTS.glob("accelerate_configs/*.yaml")), ids=lambda path: path.stem)
def test_every_accelerate_config_is_one(path):
    from accelerate.commands.config.config_args import load_config_from_file

    config = load_config_from_file(str(path))
    assert config.num_processes >= 1
    assert config.mixed_precision == "no"
