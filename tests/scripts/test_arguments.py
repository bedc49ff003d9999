import pytest
import yaml

from scripts.arguments import Arguments, parse_arguments


GOOD = {"task": "linear_regression", "n_dims": 5, "n_points": 11, "max_steps": 100, "output_dir": "out"}


@pytest.fixture
def write_recipe(tmp_path):
    def write(content) -> str:
        path = tmp_path / "recipe.yaml"
        path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
        return str(path)

    return write


def test_flags_win_over_the_recipe(write_recipe):
    recipe = write_recipe("task: linear_regression\nn_dims: 5\nmax_steps: 100\nlearning_rate: 3e-4\noutput_dir: out\n")
    arguments = parse_arguments(["--recipe", recipe, "--n_dims", "7", "--compile", "default"])
    assert arguments.task.n_dims == 7
    assert arguments.optimization.learning_rate == 3e-4
    assert arguments.optimization.compile == "default"
    assert arguments.config.n_dims == 7
    assert arguments.config.n_positions == 82


def test_the_mapping_rebuilds_the_arguments(write_recipe):
    arguments = parse_arguments(["--recipe", write_recipe(GOOD | {"n_loops_min": 3})])
    assert Arguments.from_dict(arguments.as_dict()) == arguments


BAD_FIELDS = {
    "misspelt": ({"n_lops": 3}, "unknown field `n_lops`, did you mean `n_loops`?"),
    "wrong type": ({"n_loops": "many"}, "--n_loops"),
    "float for int": ({"batch_size": 2.5}, "--batch_size"),
    "list": ({"n_dims": [1, 2]}, "--n_dims"),
    "unknown task": ({"task": "linear"}, "--task"),
    "model": ({"n_loops": 0}, "`n_loops` must be an integer >= 1, got 0"),
    "heads": ({"n_head": 7}, "`n_embd` must be a multiple of `n_head`, got 256 and 7"),
    "window": ({"loop_window": 21}, "`loop_window` must be in 1 ... `n_loops` = 20, got 21"),
    "window without injection": ({"input_injection": "none", "loop_window": 3}, "`loop_window` must be left out"),
    "drawn loops": ({"n_loops_start": 4, "n_loops_min": 5}, "`n_loops_min` must be in 1 ... the first loop count 4"),
    "points": ({"n_points_start": 12}, "`n_points_start` to `n_points`"),
    "positions": ({"n_positions": 20}, "`n_positions` must be >= 2 * `n_points` - 1 = 21, got 20"),
    "steps": ({"max_steps": 0}, "`max_steps` must be >= 1, got 0"),
    "rate": ({"learning_rate": -1}, "`learning_rate` must be a finite number >= 0"),
    "warm-up": (
        {"warmup_steps": 60, "decay_steps": 41},
        "`warmup_steps` + `decay_steps` must be <= `max_steps` = 100",
    ),
    "balance": ({"loss_balance": 1.5}, "`loss_balance` must be in [0, 1], got 1.5"),
    "balance of parts": (
        {"loss_balance": 0.5, "gradient_accumulation_steps": 2},
        "`loss_balance` looks at all prompts of a step at once",
    ),
    "hints": ({"hint_weight": -1}, "`hint_weight` must be a finite number >= 0, got -1.0"),
    "class without hints": (
        {"task": "relu_2nn_regression", "hint_weight": 1},
        "the function class relu_2nn_regression has no hints: leave out `hint_weight`",
    ),
    "average": ({"average_decay": 1.0}, "`average_decay` must be in (0, 1), got 1.0"),
    "seed": ({"seed": -1}, "`seed` must be >= 0"),
    "log": ({"log_every": 0}, "`log_every` must be >= 1, got 0"),
    "sparse": ({"task": "sparse_linear_regression", "n_dims_start": 2}, "`sparsity`"),
}


@pytest.mark.parametrize("name", BAD_FIELDS)
def test_a_bad_field_is_refused_by_name(name, write_recipe, capsys):
    changes, message = BAD_FIELDS[name]
    with pytest.raises(SystemExit) as exit:
        parse_arguments(["--recipe", write_recipe(GOOD | changes)])
    assert exit.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("flags", [["--n_loop", "3"], ["--recipe"], ["--compile", "perhaps"], ["stray"]])
def test_a_bad_flag_is_refused(flags, write_recipe, capsys):
    with pytest.raises(SystemExit) as exit:
        parse_arguments(["--recipe", write_recipe(GOOD), *flags])
    assert exit.value.code == 2
    assert flags[0].lstrip("-") in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("- a\n- b\n", "must be a mapping"),
        ("a: [", "recipe.yaml cannot be read: "),
        ("seed: 1\ntask: linear_regression\nseed: 2\n", "gives `seed` 2 times"),
    ],
)
def test_a_recipe_that_is_no_clear_mapping_is_refused(content, message, write_recipe, capsys):
    with pytest.raises(SystemExit):
        parse_arguments(["--recipe", write_recipe(content)])
    assert message in capsys.readouterr().err


def test_required_fields_and_missing_files_are_named(capsys):
    with pytest.raises(SystemExit):
        parse_arguments(["--recipe", "nowhere.yaml"])
    assert "nowhere.yaml" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        parse_arguments([])
    assert "--task" in capsys.readouterr().err
