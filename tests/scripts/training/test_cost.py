import pytest
import yaml
from torch.utils.flop_counter import FlopCounterMode

from modeling_looped_gpt2 import LoopedGPT2ForInContextRegression
from scripts.training.cost import training_flops
from scripts.training.objectives.own_loops import OwnLoops
from scripts.training.prompt_arguments import Arguments, TaskArguments, parse_arguments
from tasks import TASKS
from tests.scripts.toy_tasks import Tables


FLAGS = [
    [],
    ["--n_layer", "2", "--seed", "1"],
    ["--n_prelude", "1", "--n_coda", "2"],
    ["--n_layer", "2", "--block_loops", "[2, 1]", "--input_injection", "concat"],
    ["--example_order", "set"],
    ["--example_order", "cells", "--position_embedding", "none", "--n_layer", "2", "--n_coda", "1"],
]


@pytest.mark.parametrize("flags", FLAGS)
def test_operations_are_those_that_torch_counts(recipe, flags):
    sizes = ["--n_embd", "128", "--n_head", "2", "--n_points_start", "5", "--max_steps", "1", "--decay_steps", "0"]
    schedule = ["--n_loops", "4", "--n_loops_start", "4", "--n_loops_min", "4", "--warmup_steps", "0"]
    schedule += ["--hint_weight", "0"]  # hints go to their readers, not to the model
    arguments = parse_arguments(["--recipe", str(recipe), "--output_dir", "x", *sizes, *schedule, *flags])
    model = LoopedGPT2ForInContextRegression(arguments.config)
    model.set_attn_implementation("eager")
    batch = next(iter(arguments.stream.iterable()))
    with FlopCounterMode(display=False) as counter:
        model(**batch, n_loops=4, loop_window=2).loss.backward()
    assert training_flops(arguments) == pytest.approx(counter.get_total_flops(), rel=0.02)


def test_operations_of_tables_are_those_that_torch_counts(monkeypatch):
    monkeypatch.setitem(TASKS, "tables", Tables)
    monkeypatch.setitem(TaskArguments.__annotations__, "task", str)
    settings = {"task": "tables", "n_embd": 128, "n_head": 2, "n_loops": 3, "loop_window": 2, "max_steps": 7}
    settings |= {"example_order": "cells", "position_embedding": "none", "n_layer": 2, "batch_size": 4}
    arguments = Arguments.from_dict(settings | {"output_dir": "x"})
    model = LoopedGPT2ForInContextRegression(arguments.config)
    model.set_attn_implementation("eager")
    with FlopCounterMode(display=False) as counter:
        for step in range(7):
            model(**arguments.stream.batch(step), loop_window=2).loss.backward()
    assert training_flops(arguments) == pytest.approx(counter.get_total_flops(), rel=0.02)


@pytest.mark.parametrize("solver", ["implicit", "damped"])
def test_a_solver_pulls_the_gradient_through_the_last_loop(recipe, solver):
    sizes = ["--n_embd", "128", "--n_head", "2", "--n_points_start", "5", "--max_steps", "1", "--decay_steps", "0"]
    loops = ["--n_loops", "4", "--n_loops_start", "4", "--n_loops_min", "4", "--loop_window", "1"]
    flags = [*sizes, *loops, "--warmup_steps", "0", "--hint_weight", "0", "--n_coda", "1"]
    flags += ["--solver", solver, "--solver_steps", "3"]
    arguments = parse_arguments(["--recipe", str(recipe), "--output_dir", "x", *flags])
    model = LoopedGPT2ForInContextRegression(arguments.config)
    model.set_attn_implementation("eager")
    with FlopCounterMode(display=False) as counter:
        model(**next(iter(arguments.stream.iterable())), n_loops=4).loss.backward()
    assert training_flops(arguments) == pytest.approx(counter.get_total_flops(), rel=0.02)


def test_rows_with_loops_of_their_own_run_those_of_the_row_with_the_most():
    flags = "--task parity --output_dir x --max_steps 1 --n_embd 64 --n_head 2 --loop_surplus 3 --batch_size 8"
    arguments = parse_arguments(flags.split())
    model = arguments.objective.model_class(arguments.config)
    model.set_attn_implementation("eager")
    batch = arguments.stream.batch(0)
    assert len(set(batch["n_loops"].tolist())) > 1
    with FlopCounterMode(display=False) as counter:
        OwnLoops(arguments.objective, 0.0)(model, batch, {})[0].backward()
    assert training_flops(arguments) == pytest.approx(counter.get_total_flops(), rel=0.02)


def test_operations_follow_the_schedules(recipe):
    def flops(*flags):
        return training_flops(parse_arguments(["--recipe", str(recipe), "--output_dir", "x", *flags]))

    assert flops("--n_points_start", "5") > flops() > flops("--loop_window", "1")
    assert flops("--batch_size", "16") == 2 * flops()
    constant = ("--n_points_start", "5", "--n_loops_start", "4", "--n_loops_min", "4")
    assert flops(*constant, "--max_steps", "12") == 2 * flops(*constant, "--max_steps", "6", "--decay_steps", "0")


def long_run(recipe, **fields):
    fields = {"max_steps": 3000, "n_loops": 12, "n_loops_interval": 70, "curriculum_hold": 30, **fields}
    return Arguments.from_dict(yaml.safe_load(recipe.read_text()) | fields | {"output_dir": "x"})


def sum_of_all_steps(arguments):
    total, stream, final = 0, arguments.stream, arguments.config.n_loops
    for step in range(arguments.optimization.max_steps):
        n_loops, window = arguments.loops.at(step, final, arguments.optimization.seed)
        n_tokens = 2 * stream.sizes_at(step)["n_points"] - 1
        total += 8 * n_tokens * (24 * 16**2 + 4 * n_tokens * 16) * (n_loops + 2 * (window or n_loops))
    return total


@pytest.mark.parametrize("loop_window", [None, 5])
def test_operations_are_the_sum_of_all_steps(recipe, loop_window):
    arguments = long_run(recipe, n_loops_min=None, loop_window=loop_window)
    assert training_flops(arguments) == sum_of_all_steps(arguments)


@pytest.mark.parametrize("loop_window", [None, 5])
@pytest.mark.parametrize("n_loops_start", [3, 12])
def test_operations_of_drawn_loops_are_nearly_the_sum_of_all_steps(recipe, n_loops_start, loop_window):
    arguments = long_run(recipe, n_loops_start=n_loops_start, loop_window=loop_window)
    assert training_flops(arguments) == pytest.approx(sum_of_all_steps(arguments), rel=0.02)


def test_a_drawn_step_counts_as_the_mean_of_what_it_may_draw(recipe):
    def flops(n_loops, n_loops_min, max_steps):
        return training_flops(
            long_run(
                recipe,
                n_loops=n_loops,
                n_loops_start=n_loops,
                n_loops_min=n_loops_min,
                max_steps=max_steps,
                warmup_steps=0,
                decay_steps=0,
                loop_window=2,
                n_points_start=5,
            )
        )

    assert flops(5, 2, max_steps=4) == sum(flops(n_loops, n_loops, max_steps=1) for n_loops in (2, 3, 4, 5))


@pytest.mark.parametrize("n_loops_min", [None, 2])
def test_a_run_without_end_is_counted_before_it_begins(recipe, n_loops_min):
    assert training_flops(long_run(recipe, n_loops_min=n_loops_min, max_steps=10**9 - 1)) > 10**15
