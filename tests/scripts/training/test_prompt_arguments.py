from dataclasses import fields
from typing import get_args

import pytest
import yaml

from scripts.training.lm_arguments import LMArguments
from scripts.training.prompt_arguments import Arguments, parse_arguments


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


def test_a_set_has_a_position_per_point():
    assert parsed("--example_order", "set").config.n_positions == 11
    assert parsed("--example_order", "set", "--n_positions", "30").config.n_positions == 30
    assert parsed("--example_order", "set").stream.as_sets
    assert not parsed().stream.as_sets


def parsed(*flags, **fields):
    return parse_arguments([*(f"--{name}={value}" for name, value in (GOOD | fields).items()), *flags])


def test_mappings_of_a_recipe_and_of_the_command_line_are_the_same(write_recipe):
    settings = {"noise_std": 0.5}
    schedules = {"n_points": {"start": 3, "interval": 7}, "n_loops": {"start": 2, "interval": 9, "hold": 1}}
    task = {"task": "noisy_linear_regression"}
    arguments = parse_arguments(
        ["--recipe", write_recipe(GOOD | task | {"task_settings": settings, "schedules": schedules})]
    )
    flags = parsed("--schedules", "{n_points: {start: 3, interval: 7}, n_loops: {start: 2, interval: 9, hold: 1}}")
    assert flags.task.schedules == arguments.task.schedules
    assert parsed(**task, task_settings="{noise_std: 5e-1}", schedules=yaml.safe_dump(schedules)) == arguments
    assert Arguments.from_dict(arguments.as_dict()) == arguments
    assert Arguments.from_dict(yaml.safe_load(yaml.safe_dump(arguments.as_dict()))) == arguments
    assert arguments.stream.task.noise_std == 0.5
    assert [arguments.n_loops_schedule.at(step) for step in (0, 9, 10, 19)] == [2, 2, 3, 4]


def test_a_schedule_is_what_the_fields_of_its_size_make():
    fields = {"n_points_start": 3, "n_points_interval": 7, "n_dims_start": 2, "n_dims_interval": 9}
    by_fields = parsed(**fields, curriculum_hold=4, n_loops_start=3, n_loops_interval=5)
    growth = "n_points: {start: 3, increment: 2, interval: 7, hold: 4}, n_loops: {start: 3, increment: 2, interval: 5}"
    by_schedules = parsed(schedules=f"{{n_dims_active: {{start: 2, interval: 9, hold: 4}}, {growth}}}")
    for step in range(100):
        assert by_fields.stream.sizes_at(step) == by_schedules.stream.sizes_at(step)
        assert by_fields.n_loops_schedule.at(step) == by_schedules.n_loops_schedule.at(step)


def test_sizes_of_a_task_are_recorded_in_one_way():
    by_settings = parse_arguments(["--task=decision_tree", "--task_settings={depth: 2, n_dims: 6}", *RUN])
    by_fields = parse_arguments(["--task=decision_tree", "--task_settings={depth: 2}", "--n_dims=6", *RUN])
    assert by_settings == by_fields
    recorded = by_settings.as_dict()
    assert (recorded["n_dims"], recorded["n_points"], recorded["task_settings"]) == (6, 41, {"depth": 2})


def test_components_of_a_mixture_are_settings_of_a_task():
    components = "{components: {linear_regression: 2, noisy_linear_regression: {weight: 1, noise_std: 0.5}}}"
    task = parsed(task="mixture", task_settings=components).stream.task
    assert task.components["noisy_linear_regression"].noise_std == 0.5
    assert [component.n_dims for component in task.components.values()] == [5, 5]


@pytest.mark.parametrize(
    ("task", "loop_rate", "n_loops", "saved"),
    [("parity", 1.0, 2, 9), ("parity", 1.0, 30, 30), ("addition", 0.5, 2, 5), ("sum_of_bits", 1.0, 1, 12)],
)
def test_a_model_of_rows_with_own_loops_runs_by_default_those_of_the_longest_question(task, loop_rate, n_loops, saved):
    rows = {"task": task, "task_settings": {"max_length": 9}, "loop_surplus": 2, "loop_rate": loop_rate}
    run = {"n_loops": n_loops, "max_steps": 10, "output_dir": "out"}
    assert Arguments.from_dict(rows | run).config.n_loops == saved


RUN = ("--max_steps=10", "--output_dir=out")
TREE = {"task": "decision_tree"}
ROWS = {"task": "parity", "n_dims": None, "n_points": None, "loop_surplus": 2}
BAD_MAPPINGS = {
    "misspelt setting": (TREE | {"task_settings": {"dept": 3}}, "got `dept`, did you mean `depth`?"),
    "setting of another task": ({"task_settings": {"depth": 3}}, "`task_settings`: the settings of linear_regression"),
    "setting of another type": (TREE | {"task_settings": {"depth": "deep"}}, "`depth` must be a number, got 'deep'"),
    "setting out of range": (TREE | {"task_settings": {"depth": 0}}, "`depth` must be an integer >= 1, got 0"),
    "no mapping": ({"task_settings": "3"}, "`task_settings` must hold a mapping of names to values"),
    "list": ({"schedules": [1]}, "`schedules` must hold a mapping of names to values, got list"),
    "setting given twice": ({"task_settings": {"n_dims": 4}}, "`n_dims` is given by itself and in `task_settings`"),
    "component": (
        {"task": "mixture", "task_settings": "{components: {noisy_linear_regression: {weight: 1, noise_std: loud}}}"},
        "`task_settings` hold a value of another type",
    ),
    "size given twice": (
        {"schedules": {"n_points": {"start": 3}}, "n_points_interval": 7},
        "`n_points_interval` is of `n_points`: they grow by `schedules` too, so leave it out",
    ),
    "loops given twice": (
        {"schedules": {"n_loops": {"start": 3}}, "n_loops_start": 7},
        "`n_loops_start` is of `n_loops`: they grow by `schedules` too, so leave it out",
    ),
    "hold of nothing": (
        {"schedules": {"n_points": {"start": 3}, "n_dims_active": {"start": 3}}, "curriculum_hold": 7},
        "`curriculum_hold` is of n_dims_active, n_points alone: leave it out",
    ),
    "unknown size": (
        {"schedules": {"n_point": {"start": 3}}},
        "`schedules` must be of n_points, n_dims_active, n_loops, got `n_point`, did you mean `n_points`?",
    ),
    "unknown part": (
        {"schedules": {"n_points": {"start": 3, "intervall": 3}}},
        "`schedules`: `n_points` has start, increment, interval, hold, got `intervall`, did you mean `interval`?",
    ),
    "no start": ({"schedules": {"n_points": {"interval": 3}}}, "`n_points` must be a mapping with a `start`"),
    "number as a schedule": ({"schedules": {"n_points": 3}}, "`n_points` must be a mapping with a `start`, got 3"),
    "part of another type": ({"schedules": {"n_points": {"start": 2.5}}}, "`start` of `n_points` must be an integer"),
    "start above the end": ({"schedules": {"n_points": {"start": 12}}}, "`schedules`: `n_points`: "),
    "loops of rows of a task without": (
        {"loop_surplus": 3},
        "`loop_surplus` is nothing for linear_regression, which does not know the loops it needs",
    ),
    "negative surplus": (ROWS | {"loop_surplus": -1}, "`loop_surplus` must be >= 0, got -1"),
    "rate": (ROWS | {"loop_rate": 0}, "`loop_rate` must be a finite number > 0, got 0.0"),
    "doubt": (ROWS | {"doubt_weight": -0.5}, "`doubt_weight` must be a finite number >= 0, got -0.5"),
    "rate of nothing": ({"loop_rate": 2.0}, "`loop_rate` is of rows with loops of their own: leave it out, or give"),
    "window of rows": (ROWS | {"loop_window": 2}, "`loop_window` is of all rows of a step, whose loops are their own"),
    "loops of rows that grow": (ROWS | {"n_loops_start": 2}, "`n_loops_start` is of all rows of a step"),
    "gate of rows": (ROWS | {"exit_gate": True}, "leave out `exit_gate`, got True"),
    "solver of rows": (ROWS | {"solver": "damped"}, "leave out `solver`, got damped"),
    "no length": (ROWS | {"task_settings": {"max_length": 0}}, "`max_length` must be an integer >= 1, got 0"),
    "length beyond positions": (
        ROWS | {"n_positions": 20},
        "`n_positions` must be >= 21, those of a prompt of parity",
    ),
    "positions": (ROWS | {"task_settings": {"positions": "sine"}}, "`positions` must be one of order, alternate"),
    "loops above the end": ({"schedules": {"n_loops": {"start": 30}}}, "`schedules`: `n_loops`: "),
}
BAD_FIELDS = {
    **BAD_MAPPINGS,
    "misspelt": ({"n_lops": 3}, "unknown field `n_lops`, did you mean `n_loops`?"),
    "wrong type": ({"n_loops": "many"}, "`n_loops` must be of type int, got 'many'"),
    "float for int": ({"batch_size": 2.5}, "`batch_size` must be of type int, got '2.5'"),
    "list": ({"n_dims": [1, 2]}, "must give `n_dims` one value, got a list"),
    "mapping": ({"output_dir": {"a": 1}}, "must give `output_dir` one value, got a dict"),
    "unknown task": ({"task": "linear"}, "`task` must be one of"),
    "model": ({"n_loops": 0}, "`n_loops` must be an integer >= 1, got 0"),
    "heads": ({"n_head": 7}, "`n_embd` must be a multiple of `n_head`, got 256 and 7"),
    "window": ({"loop_window": 21}, "`loop_window` must be in 1 ... `n_loops` = 20, got 21"),
    "window of a solver": (
        {"solver": "damped", "loop_window": 3},
        "`loop_window` must be 1 or left out with `solver: d",
    ),
    "window without injection": ({"input_injection": "none", "loop_window": 3}, "`loop_window` must be left out"),
    "drawn loops": ({"n_loops_start": 4, "n_loops_min": 5}, "`n_loops_min` must be in 1 ... the first loop count 4"),
    "points": ({"n_points_start": 12}, "`n_points_start` to `n_points`"),
    "positions": (
        {"n_positions": 20},
        "`n_positions` must be >= 21, those of a prompt",
    ),
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
    "order": ({"example_order": "sets"}, "example_order"),
    "hints of a set": ({"task": "decision_tree", "example_order": "set", "hint_weight": 1}, "sets have no hints"),
    "no set": (
        {"task": "pointer_chains", "n_dims": None, "n_points": None, "example_order": "set"},
        "pointer_chains has no points that could be a set: leave out `example_order`",
    ),
    "class without hints": (
        {"task": "relu_2nn_regression", "hint_weight": 1},
        "the task relu_2nn_regression has no hints: leave out `hint_weight`",
    ),
    "prior": (
        {"exit_gate": True, "exit_prior_weight": -1},
        "`exit_prior_weight` must be a finite number >= 0, got -1",
    ),
    "rate of exits": ({"exit_gate": True, "exit_prior_rate": 1}, "`exit_prior_rate` must be in [0, 1), got 1"),
    "prior of no gate": ({"exit_prior_rate": 0.2}, "`exit_prior_rate` is of a gate: leave it out, or train a model"),
    "gate and balance": (
        {"exit_gate": True, "loss_balance": 0.5},
        "`loss_balance` weighs the loops, as `exit_gate` does: leave one of them out, got 0.5",
    ),
    "gate of one scored loop": (
        {"exit_gate": True, "loop_window": 1},
        "`exit_gate` learns which of the loops that are scored to stop after",
    ),
    "gate and solver": (
        {"exit_gate": True, "solver": "damped", "loop_window": None},
        "`exit_gate` learns which of the loops that are scored to stop after",
    ),
    "gate and coda": ({"exit_gate": True, "n_coda": 1}, "`exit_gate` judges the state after every loop"),
    "average": ({"average_decay": 1.0}, "`average_decay` must be in (0, 1), got 1.0"),
    "seed": ({"seed": -1}, "`seed` must be >= 0"),
    "large seed": ({"seed": 2**32}, "`seed` must be <= 4294967295, got 4294967296"),
    "many steps": ({"max_steps": 10**9}, "`max_steps` must be <= 999999999"),
    "no positions": ({"n_positions": 0}, "`n_positions` must be an integer >= 1, got 0"),
    "no points": ({"n_points": -3}, "`n_points` must be >= 1, got -3"),
    "growth": ({"n_loops_increment": 0}, "`n_loops_increment` must be >= 1, got 0"),
    "hold": ({"curriculum_hold": -1}, "`curriculum_hold` must be >= 0, got -1"),
    "no name": ({"output_dir": ""}, "`output_dir` must be printable text, got ''"),
    "two lines": ({"initial_model": "a\nb"}, "`initial_model` must be printable text"),
    "bits": ({"n_dims": 2**63}, "`n_dims` must be an integer of 64 bits"),
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
        ("- a\n- b\n", "must hold a mapping"),
        ("a: [", "recipe.yaml is not valid YAML: "),
        ("", "must hold a mapping"),
        ("seed: 1\ntask: linear_regression\nseed: 2\n", "`seed` is given 2 times, keep one of them"),
    ],
)
def test_a_recipe_that_is_no_clear_mapping_is_refused(content, message, write_recipe, capsys):
    with pytest.raises(SystemExit):
        parse_arguments(["--recipe", write_recipe(content)])
    assert message in capsys.readouterr().err


def test_a_recipe_means_what_it_says_not_what_yaml_makes_of_it(write_recipe):
    """`no` is no truth value, 1e-3 a number, 0o17 and 1:30 none, and a name stays a name."""
    recipe = "task: linear_regression\nmax_steps: 100\ncompile: no\nmixed_precision: no\nlearning_rate: 1e-3\n"
    names = "output_dir: 2024-01-01\ninitial_model: yes\nlog_with: null\nn_loops_start: ~\nloop_window:\n"
    arguments = parse_arguments(["--recipe", write_recipe(recipe + names)])
    assert (arguments.optimization.compile, arguments.optimization.mixed_precision) == ("no", "no")
    assert (arguments.run.output_dir, arguments.model.initial_model) == ("2024-01-01", "yes")
    assert arguments.run.log_with is arguments.loops.n_loops_start is arguments.loops.loop_window is None


@pytest.mark.parametrize("line", ["n_loops: yes", "n_loops: 1:30", "n_loops: 0o17", "seed: 2024-01-01", "seed: .inf"])
def test_a_value_of_another_type_is_refused(line, write_recipe, capsys):
    with pytest.raises(SystemExit):
        parse_arguments(["--recipe", write_recipe(yaml.safe_dump(GOOD) + line)])
    assert line.partition(":")[0] in capsys.readouterr().err


FIELDS = {item.name: item.type for group in fields(Arguments) for item in fields(group.type)}
NUMBERS = {name: kind for name, kind in FIELDS.items() if kind is not bool}
NO_NUMBER = [
    "",
    " ",
    "many",
    "nan",
    "inf",
    "-inf",
    "1e400",
    "-1",
    "-1e-9",
    "[1, 2]",
    "1 2",
    "½",
    "0x10",
    "\x00",
    "1\n2",
]
NO_INTEGER = ["2.5", "1e3", "True", "9" * 5000, str(2**63), "-" + "9" * 30]
NO_TEXT = ["", "\x00", "a\nb", "\ud800", "\u202e"]
PERHAPS = ["0", "1", "2", "7", "100", "10000000", str(2**63 - 1), "1e-300", "1e300", "é", "-", "--", "'", "a" * 300]


@pytest.mark.parametrize("name", NUMBERS)
def test_whatever_a_field_is_given_it_is_used_or_refused_by_name(name, write_recipe, capsys):
    """On the command line and in a recipe, by turns."""
    is_text = type_of(name) is str
    refused = NO_TEXT if is_text else NO_NUMBER + (NO_INTEGER if type_of(name) is not float else [])
    for turn, value in enumerate([*refused, *PERHAPS]):
        # YAML has no way to write the one, a file none to hold the other
        by_recipe = turn % 2 == 1 and not {"\x00", "\ud800"} & set(value)
        given = [f"--{field}={text}" for field, text in (GOOD | {name: value}).items()]
        try:
            arguments = parse_arguments(["--recipe", write_recipe(GOOD | {name: value})] if by_recipe else given)
        except SystemExit as exit:
            usage, *error = capsys.readouterr().err.splitlines()
            assert exit.code == 2
            assert usage.startswith("usage: ")
            assert len(error) == 1, error
            assert name in error[0], error
        else:
            assert value not in refused, value
            assert str(arguments.as_dict()[name]) in (value, str(float(value)) if not is_text else value)


@pytest.mark.parametrize("name", sorted(FIELDS.keys() - NUMBERS.keys()))
def test_a_truth_value_is_used_or_refused_by_name(name, write_recipe, capsys):
    given = [f"--{field}={text}" for field, text in GOOD.items()]
    assert parse_arguments([*given, f"--{name}"]).as_dict()[name] is True
    for value in (True, False):
        assert parse_arguments(["--recipe", write_recipe(GOOD | {name: value})]).as_dict()[name] is value
    with pytest.raises(SystemExit):
        parse_arguments([*given, f"--{name}=maybe"])
    assert name in capsys.readouterr().err


def type_of(name):
    """The type of a field that has a value."""
    kind = NUMBERS[name]
    return next((part for part in get_args(kind) if part is not type(None)), kind)


@pytest.mark.parametrize("kind", [Arguments, LMArguments])
def test_help_tells_every_field_once_under_a_title(kind, capsys):
    with pytest.raises(SystemExit) as exit:
        kind.parse(["--help"], "")
    assert exit.value.code == 0
    text = capsys.readouterr().out
    assert "None" not in text
    for group in fields(kind):
        assert f"\n{group.type._argument_group_name}:\n" in text
        for item in fields(group.type):
            assert text.count(f"  --{item.name} ") == item.init, item.name
    for paragraph in text.split("  --"):
        assert " ".join(paragraph.split()).count("Default:") <= 1, paragraph


def test_required_fields_and_missing_files_are_named(capsys):
    with pytest.raises(SystemExit):
        parse_arguments(["--recipe", "nowhere.yaml"])
    assert "nowhere.yaml" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        parse_arguments([])
    assert (
        "error: `task` and `max_steps` and `output_dir` must be given, by a recipe or as a flag"
        in capsys.readouterr().err
    )


MESSAGES = {  # of argparse, in the words of all other errors
    "type": ("n_loops", "x", "`n_loops` must be of type int, got 'x'"),
    "choice": (
        "position_embedding",
        "sine",
        "`position_embedding` must be one of 'learned', 'sinusoidal', 'fourier', 'none', got 'sine'",
    ),
    "truth": ("exit_gate", "maybe", "`exit_gate` must be true or false, got 'maybe'"),
}


@pytest.mark.parametrize(("name", "value", "message"), MESSAGES.values(), ids=MESSAGES)
def test_a_value_of_another_kind_is_refused_by_name(name, value, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        Arguments.from_dict({"task": "linear_regression", "max_steps": 9, "output_dir": "run", name: value})


def test_a_flag_without_a_value_is_refused_by_name(capsys):
    with pytest.raises(SystemExit):
        parse_arguments(["--n_loops", "--task", "linear_regression"])
    assert "error: `n_loops` must have a value, got none" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["input_injection", "position_embedding"])
def test_null_is_not_the_word_none(name, write_recipe, capsys):
    """It would be the default."""
    recipe = {"task": "linear_regression", "max_steps": 9, "output_dir": "run"}
    assert getattr(Arguments.from_dict(recipe | {name: "none"}).config, name) == "none"
    with pytest.raises(SystemExit):
        parse_arguments(["--recipe", write_recipe(f"{name}: null\n")])
    assert f"must give `{name}` a value, got null: write `none`, or leave it out" in capsys.readouterr().err
    with pytest.raises(ValueError, match=f"must give `{name}` a value, got null"):
        LMArguments.from_dict({"train_file": "text", "max_steps": 9, "output_dir": "run", name: None})


def test_a_list_means_the_same_in_a_recipe_as_a_flag_and_in_a_run_of_before(write_recipe):
    needed = ["--max_steps", "10", "--output_dir", "run"]
    recipe = write_recipe("task: linear_regression\nn_layer: 2\nblock_loops: [2, 1]\n")
    arguments = parse_arguments(["--recipe", recipe, *needed])
    assert arguments.model.block_loops == [2, 1]
    given = ["--task", "linear_regression", "--n_layer", "2", "--block_loops", "[2, 1]", *needed]
    assert parse_arguments(given).as_dict() == arguments.as_dict()
    again = {name: value for name, value in arguments.as_dict().items() if name not in ("recipe", "output_dir")}
    assert parse_arguments(["--recipe", write_recipe(again), *needed]).as_dict() == arguments.as_dict()
