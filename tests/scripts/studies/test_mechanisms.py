from pathlib import Path

import pytest

from scripts.studies.grid import scaled
from scripts.studies.mechanisms import BASE, MECHANISMS, PROBLEMS, MechanismGrid
from scripts.training.cost import training_flops


@pytest.fixture(scope="module")
def grid():
    return MechanismGrid(Path("out"), full=False, max_steps=1000, more=["--n_embd", "32"])


@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("problem", PROBLEMS)
def test_every_mechanism_takes_the_operations_of_the_base_model(grid, problem, mechanism):
    base, run = (grid.run(f"{problem}/{name}/1").arguments for name in (BASE, mechanism))
    assert training_flops(run) == pytest.approx(training_flops(base), rel=0.03)
    changed = {name for name, value in run.as_dict().items() if base.as_dict()[name] != value}
    assert bool(changed - {"output_dir"}) == (mechanism != BASE)
    assert (run.optimization.seed, run.config.n_embd) == (1, 32)
    assert run.run.output_dir == f"out/{problem}/{mechanism}/1"


@pytest.mark.parametrize("mechanism", [name for name in MECHANISMS if name != "one_block"])
def test_every_mechanism_runs_as_many_blocks_as_the_base_model(grid, mechanism):
    base, run = (grid.run(f"linear/{name}/0") for name in (BASE, mechanism))
    assert run.arguments.config.num_hidden_layers == base.arguments.config.num_hidden_layers == 6


def test_the_size_for_a_gpu_is_larger():
    for problem in PROBLEMS:
        small, full = (
            MechanismGrid(Path("out"), size, 200, []).run(f"{problem}/add/0").arguments for size in (False, True)
        )
        assert training_flops(full) > 20 * training_flops(small)
        assert full.config.n_positions > small.config.n_positions


def test_a_field_that_a_mechanism_changes_is_the_mechanisms():
    grid = MechanismGrid(
        Path("out"), False, None, ["--input_injection", "multiply", "--n_loops", "12", "--n_loops_min", "2"]
    )
    names = ("none", "two_blocks", "untied")
    fields = {name: grid.run(f"linear/{name}/0").arguments.as_dict() for name in names}
    assert fields["none"]["input_injection"] == "none"
    assert fields["untied"]["input_injection"] == "multiply"
    assert [fields[name]["n_loops"] for name in names] == [12, 6, 1]
    assert fields["untied"]["n_layer"] == 12
    assert [fields[name]["n_loops_min"] for name in names] == [6, 3, None]


def test_all_that_is_counted_in_steps_is_scaled():
    fields = {"max_steps": "100", "warmup_steps": "10", "decay_steps": 50, "learning_rate": "1e-3"}
    fields["schedules"] = {"max_hops": {"start": "1", "interval": "8", "hold": 20}}
    half = scaled(fields, 50)
    assert half == fields | {
        "max_steps": 50,
        "warmup_steps": 5,
        "decay_steps": 25,
        "schedules": {"max_hops": {"start": "1", "interval": 4, "hold": 10}},
    }
    one = scaled(fields, 1)
    assert (one["warmup_steps"], one["decay_steps"], one["schedules"]["max_hops"]["interval"]) == (0, 0, 1)


@pytest.mark.parametrize("max_steps", [1, 3, 300])
@pytest.mark.parametrize("problem", PROBLEMS)
def test_any_number_of_steps_can_be_trained(problem, max_steps):
    run = MechanismGrid(Path("out"), False, max_steps, []).run(f"{problem}/add/0")
    assert run.arguments.optimization.max_steps == max_steps
    if max_steps == 300:
        assert run.arguments.stream.sizes_at(max_steps - 1) == run.task.sizes
