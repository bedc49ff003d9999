"""What is measured: the recipe beside a model, and the task in the sizes that the model can take."""

import pytest

from modeling_looped_gpt2 import LoopedGPT2Config
from scripts.common.records import RecordError
from scripts.evaluation.evaluated_task import build_task, recipe_of, settings_of, task_for
from tasks import make_task
from tests.loopback_hub import Repository


def test_the_recipe_of_a_model_is_read(tmp_path):
    path = tmp_path / "recipe.yaml"
    assert recipe_of(str(tmp_path)) == {}
    path.write_text("n_points: 11\ntask_settings: {noise_std: 0.5}\n")
    assert recipe_of(str(tmp_path)) == {"n_points": 11, "task_settings": {"noise_std": 0.5}}
    numbers = [f"n_points: {value}" for value in ("many", "[", "true", "0", "2.5")]
    for content in ("[]", "task: 3", "task_settings: 3", "task_settings: [a]", *numbers):
        path.write_text(content)
        with pytest.raises(RecordError, match=r"recipe\.yaml"):
            recipe_of(str(tmp_path))


def test_the_recipe_of_a_repository_is_read_at_its_revision(hub):
    looped, bare = (hub.repositories.setdefault(f"ana/{name}", Repository(False)) for name in ("looped", "bare"))
    looped.tags["v1"] = looped.commit({"recipe.yaml": b"n_points: 11\n"})
    looped.commit({"recipe.yaml": b"n_points: 21\n"})
    bare.commit({"config.json": b"{}"})
    assert recipe_of("ana/looped") == {"n_points": 21}
    assert recipe_of("ana/looped", "v1") == {"n_points": 11}
    assert recipe_of("ana/bare") == recipe_of("ana/nothing") == {}


def test_the_settings_of_the_training_hold_for_its_task_alone():
    recipe = {"task": "noisy_linear_regression", "task_settings": {"noise_std": 0.5}}
    assert settings_of(recipe, "noisy_linear_regression") == {"noise_std": 0.5}
    assert settings_of(recipe, "decision_tree") == {}
    assert settings_of({"task": "decision_tree", "task_settings": None}, "decision_tree") == settings_of({}, "x") == {}


@pytest.mark.parametrize(("n_positions", "n_points"), [(12, 6), (11, 6), (10, 5), (1, 1)])
def test_prompts_are_as_long_as_the_model_is(n_positions, n_points):
    config = LoopedGPT2Config(n_dims=3, n_positions=n_positions)
    task = task_for("noisy_linear_regression", {"noise_std": 0.5}, config)
    assert task == make_task("noisy_linear_regression", n_dims=3, n_points=n_points, noise_std=0.5)
    assert task_for("decision_tree", {}, config, n_points=1).n_points == 1
    with pytest.raises(ValueError, match=rf"`n_points` must be <= {n_points} for a model of `n_positions`"):
        task_for("decision_tree", {}, config, n_points=n_points + 1)


def test_a_set_takes_a_token_per_point():
    config = LoopedGPT2Config(n_dims=3, n_positions=12, example_order="set")
    assert task_for("decision_tree", {}, config).n_points == 12
    with pytest.raises(ValueError, match="`n_points` must be <= 12"):
        task_for("decision_tree", {}, config, n_points=13)


def test_a_mixture_has_the_sizes_of_the_model():
    config = LoopedGPT2Config(n_dims=3, n_positions=12)
    settings = {"components": {"linear_regression": 2, "sparse_linear_regression": {"weight": 1, "sparsity": 2}}}
    components = task_for("mixture", settings, config).components
    assert components["linear_regression"] == make_task("linear_regression", n_dims=3, n_points=6)
    assert components["sparse_linear_regression"].sparsity == 2


def test_settings_that_are_none_of_the_task_are_refused():
    for settings in ({"depth": 2}, {"noise_std": "much"}, {"noise_std": -1}, {3: 4}):
        with pytest.raises(ValueError):
            build_task("noisy_linear_regression", settings)
    with pytest.raises(ValueError, match="`components` of a mixture"):
        build_task("mixture", {})
