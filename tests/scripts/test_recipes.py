from pathlib import Path

import pytest
import torch
import yaml

from scripts.training.prompt_arguments import parse_arguments


SCRIPTS = Path(__file__).parents[2] / "scripts"
RECIPES = sorted(SCRIPTS.glob("recipes/*.yaml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_builds_and_says_where_it_comes_from(path):
    assert path.read_text().startswith("# ")
    arguments = parse_arguments(["--recipe", str(path), "--output_dir", "out"])
    config, model_class, stream = arguments.config, arguments.objective.model_class, arguments.stream
    with torch.device("meta"):
        model = model_class(config)
    assert model.num_parameters() < 948_000
    last = arguments.optimization.max_steps - 1
    assert stream.sizes_at(last) == stream.task.sizes
    assert stream.task.sizes.get("n_points") == arguments.task.n_points
    assert arguments.n_loops_schedule.at(last) == arguments.model.n_loops


# b, T and points of Yang et al. (2024), section 5 and appendix
PAPER = {
    "linear_regression": (20, 15, 41),
    "sparse_linear_regression": (20, 10, 41),
    "relu_2nn_regression": (12, 5, 101),
    "decision_tree": (70, 15, 101),
}


@pytest.mark.parametrize("task", PAPER)
def test_a_recipe_of_the_paper_has_its_settings(task):
    recipe = yaml.safe_load((SCRIPTS / "recipes" / f"{task}_paper.yaml").read_text())
    n_loops, loop_window, n_points = PAPER[task]
    sizes = {"task": task, "n_loops": n_loops, "loop_window": loop_window, "n_points": n_points, "n_dims": 20}
    training = {"max_steps": 500_000, "learning_rate": "1e-4", "n_loops_interval": 500, "n_dims_interval": 5000}
    assert recipe.items() >= (sizes | training).items()


@pytest.mark.parametrize("path", sorted(SCRIPTS.glob("accelerate_configs/*.yaml")), ids=lambda path: path.stem)
def test_every_accelerate_config_is_one(path):
    from accelerate.commands.config.config_args import load_config_from_file

    config = load_config_from_file(str(path))
    assert config.num_processes >= 1
    assert config.mixed_precision == "no"
