"""The programs that measure, draw and tell: whatever they are given, the answer is one line and nothing is lost."""

import json
import random
import shutil
import sys

import pytest
import yaml

from modeling_looped_gpt2 import LoopedGPT2LMHeadModel
from scripts import (
    benchmark,
    benchmark_lm,
    benchmark_stops,
    chain_experiment,
    compare_specialists,
    evaluate,
    headline,
    plot,
    probe,
    report,
    stages,
    study,
    superposition,
    tables,
)
from tests.programs import run_program


# programs that write beside a model, with the function that does their work
BESIDE = {evaluate: "measure", probe: "probe_states", plot: "plot_metrics", report: "render_page"}
BESIDE |= {compare_specialists: "measure_contests", superposition: "measure_superposition"}
OWN = {
    tables: "train",
    chain_experiment: "train",
    study: "train",
    benchmark: "matmul_peak",
    benchmark_lm: "cases",
    benchmark_stops: "benchmark_stop_rules",
}
RECORD = {
    tables: "tables.json",
    chain_experiment: "metrics.json",
    study: "study.json",
    benchmark: "benchmark.json",
    benchmark_lm: "benchmark_lm.json",
    benchmark_stops: "benchmark_stops.json",
}
ALL = [*BESIDE, *OWN, stages, headline]
by_name = pytest.mark.parametrize("program", ALL, ids=lambda program: program.__name__.split(".")[1])


def flags_of(program, model, output_dir):
    """Flags that the program takes."""
    flags = {
        plot: {"--metrics": model / "metrics.json"},
        report: {"--metrics": model / "metrics.json"},
        stages: {"--model": model, "--others": model},
        headline: {"--model_cards": model.parent},
    }
    flags |= {evaluate: {"--model": model}, probe: {"--model": model}}
    flags |= {superposition: {"--model": model, "--tasks": ("linear_regression", "decision_tree")}}
    flags |= {benchmark_stops: {"--model": model, "--task": "linear_regression"}}
    flags |= {compare_specialists: {"--model": model, "--specialists": model}}
    flags = flags.get(program, {})
    if program is evaluate:
        flags |= {"--task": "linear_regression"}
    if program in (evaluate, compare_specialists):
        flags |= {"--cache_dir": output_dir.with_name("cache")}
    return flags if program in (stages, headline) else flags | {"--output_dir": output_dir}


@pytest.fixture
def refused(monkeypatch, tmp_path, capsys):
    """Call a program in this process: it must end before its work, with one line, and leave every byte as it was."""
    for program, work in (BESIDE | OWN).items():
        monkeypatch.setattr(program, work, lambda *_, **__: pytest.fail("the work has begun"))

    def call(program, flags, *more):
        name = program.__name__.split(".")[1]
        words = [name + ".py", *(["injection"] if program is study else [])]
        for flag, value in flags.items():
            words += [flag, *map(str, value if isinstance(value, tuple) else (value,))]
        words += map(str, more)
        monkeypatch.setattr(sys, "argv", words)
        before = listing(tmp_path)
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit:
            program.main()
        assert listing(tmp_path) == before
        assert exit.value.code not in (0, None)
        printed = capsys.readouterr()
        # argparse prints its usage first, and ends with status 2
        message = printed.err.splitlines()[-1] if exit.value.code == 2 else exit.value.code
        assert "\n" not in message
        assert "Traceback" not in printed.err
        assert f"{name}.py: error: " in message
        return message

    return call


def listing(folder):
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


@pytest.fixture
def occupied(evaluated, make_model, make_config, tmp_path):
    """Paths that a program must leave alone, and an evaluated model."""
    places = {name: tmp_path / name for name in ("file", "another_model", "language_model", "unfinished", "foreign")}
    places |= {name: tmp_path / name for name in ("another_metrics", "weights_alone", "results", "pickle")}
    places["file"].write_text("a file")
    places["below_a_file"] = places["file"] / "below"
    shutil.copytree(evaluated, places["another_model"])
    make_model(n_dims=2).save_pretrained(places["another_model"])
    LoopedGPT2LMHeadModel(make_config(vocab_size=9)).save_pretrained(places["language_model"])
    for name in ("unfinished", "foreign", "another_metrics", "weights_alone", "results", "pickle"):
        places[name].mkdir()
    (places["unfinished"] / "recipe.yaml").write_text("task: linear_regression\n")
    (places["unfinished"] / "log.jsonl").write_text('{"step": 1}\n')
    for name in ("notes.txt", "error.png", "tables.json.txt"):
        (places["foreign"] / name).write_text("somebody's")
    metrics = json.loads((evaluated / "metrics.json").read_text())
    metrics["settings"]["weights_sha256"] = "0" * 64
    (places["another_metrics"] / "metrics.json").write_text(json.dumps(metrics))
    shutil.copy(places["another_model"] / "model.safetensors", places["weights_alone"])
    (places["pickle"] / "pytorch_model.bin").write_text("weights")
    for name in RECORD.values():
        (places["results"] / name).write_text(json.dumps({"settings": {"seed": -7, "n_loops": -7, "study": "other"}}))
    return places


@pytest.mark.parametrize("program", [*BESIDE, *OWN], ids=lambda program: program.__name__.split(".")[1])
def test_no_program_writes_where_something_else_lies(program, evaluated, occupied, refused):
    for place in occupied.values():
        message = refused(program, flags_of(program, evaluated, place))
        assert "`output_dir`" in message
        assert str(place) in message
    if program in OWN:
        refused(program, flags_of(program, evaluated, evaluated))
        only = occupied["results"].with_name("only")
        only.mkdir()
        shutil.copy(occupied["results"] / RECORD[program], only)
        assert "results of other settings" in refused(program, flags_of(program, evaluated, only))


BAD_NUMBERS = ("-1", "1.5", "x", "", "nan", "0x", "1e3")
MAY_BE_ZERO = {("evaluate", "n_shift_prompts"), ("evaluate", "seed"), ("chain_experiment", "seed")}
MAY_BE_ZERO |= {("compare_specialists", "seed"), ("superposition", "seed")}
NUMBERS = {
    evaluate: "n_prompts n_points n_loops max_loops n_loop_prompts n_shift_prompts n_turns seed batch_size",
    probe: "n_loops n_prompts n_steps n_prefixes",
    compare_specialists: "n_prompts n_draws seed batch_size",
    superposition: "n_loops n_prompts seed",
    tables: "n_steps n_tuning_steps n_points n_dims n_loops n_embd n_prompts seed",
    chain_experiment: "max_steps batch_size max_hops n_prompts blocks seed",
    benchmark: "batch_size n_dims n_points n_embd n_loops loop_window n_queries repeats",
    benchmark_lm: "n_tokens n_loops n_embd vocab_size batch_size repeats",
    benchmark_stops: "max_loops n_prompts batch_size seed",
    study: "n_loops max_steps batch_size n_embd n_head n_dims n_points",
}


@pytest.mark.parametrize("program", NUMBERS, ids=lambda program: program.__name__.split(".")[1])
def test_a_number_out_of_range_is_refused_by_name(program, evaluated, tmp_path, refused):
    flags = flags_of(program, evaluated, tmp_path / "out")
    name = program.__name__.split(".")[1]
    for field in NUMBERS[program].split():
        for value in (*BAD_NUMBERS, *(() if (name, field) in MAY_BE_ZERO else ("0",))):
            assert field in refused(program, flags, f"--{field}={value}")


@by_name
def test_an_unknown_a_missing_and_an_abbreviated_flag_are_refused(program, evaluated, tmp_path, refused):
    flags = flags_of(program, evaluated, tmp_path / "out")
    assert "--no_such_flag" in refused(program, flags, "--no_such_flag", "3").replace("`no_such", "--no_such")
    for name in flags:
        if name not in ("--cache_dir", "--model_cards", "--specialists"):
            assert name in refused(program, {other: value for other, value in flags.items() if other != name})


DAMAGED = (
    b"",
    b"\xff\xfe\x00\x01",
    b"{",
    b"[]",
    b"null",
    b'"text"',
    b"{}",
    b"{" * 3000,
    b"a: [",
    b"3",
    b"settings: 3",
)


@pytest.mark.parametrize("program", [plot, report, stages, headline], ids=lambda p: p.__name__.split(".")[1])
def test_damaged_metrics_are_refused_by_name(program, evaluated, tmp_path, refused):
    flags = flags_of(program, evaluated, tmp_path / "out")
    path = evaluated / "metrics.json"
    if program is headline:
        evaluated.rename(tmp_path / "linear_regression")
        path = tmp_path / "linear_regression" / "metrics.json"
    whole = path.read_text()
    for content in DAMAGED:
        path.write_bytes(content)
        assert "metrics.json" in refused(program, flags)
    for size in random.Random(0).sample(range(len(whole)), 20):
        path.write_text(whole[:size])
        assert "metrics.json" in refused(program, flags)
    path.unlink()
    assert "metrics.json" in refused(program, flags)
    path.mkdir()
    assert "metrics.json" in refused(program, flags)


def test_damaged_records_of_the_training_are_refused_by_name(evaluated, tmp_path, refused, monkeypatch):
    monkeypatch.setattr("scripts.release.headline.error_cells", lambda *_: [])
    folder = evaluated.rename(tmp_path / "linear_regression")
    flags = flags_of(headline, evaluated, tmp_path / "out")
    for name in ("environment.json", "log.jsonl"):
        whole = (folder / name).read_text()
        for content in (*DAMAGED, b'{"flops": "many"}', b'{"flops": null}', b'{"seconds_per_step": "x", "step": 1}'):
            (folder / name).write_bytes(content)
            assert name in refused(headline, flags)
        (folder / name).unlink()
        assert name in refused(headline, flags)
        (folder / name).write_text(whole)


@pytest.mark.parametrize(
    "program", [evaluate, probe, superposition, benchmark, benchmark_stops], ids=lambda p: p.__name__.split(".")[1]
)
def test_what_is_no_whole_model_is_refused(program, evaluated, occupied, tmp_path, refused):
    flags = flags_of(program, evaluated, tmp_path / "out")
    names = [occupied[name] for name in ("file", "language_model", "unfinished", "foreign", "weights_alone", "pickle")]
    for name in (*names, tmp_path / "nowhere", "scripts/evaluat", "./x", "a/b/c", "no model", ""):
        assert str(name) in refused(program, flags | {"--model": name})
    for name in ("config.json", "model.safetensors"):
        whole = (evaluated / name).read_bytes()
        for content in (*DAMAGED, whole[: len(whole) // 2]):
            (evaluated / name).write_bytes(content)
            assert str(evaluated) in refused(program, flags | {"--model": evaluated})
        (evaluated / name).write_bytes(whole)
    assert "`revision`" in refused(program, flags | {"--model": evaluated}, "--revision", "main")


@pytest.mark.parametrize("content", [content for content in DAMAGED if content != b"{}"])
def test_a_damaged_recipe_is_refused(content, evaluated, tmp_path, refused):
    (evaluated / "recipe.yaml").write_bytes(content)
    if isinstance(yaml_of(content), dict):
        return  # a recipe, of whatever fields
    assert "recipe.yaml" in refused(evaluate, flags_of(evaluate, evaluated, tmp_path / "out"))


def yaml_of(content):
    try:
        return yaml.safe_load(content)
    except (yaml.YAMLError, RecursionError):
        return None


def test_other_sizes_that_fit_nothing_are_refused(evaluated, tmp_path, refused):
    own = {program: flags_of(program, evaluated, tmp_path / "out") for program in ALL}
    assert "multiple" in refused(benchmark_lm, own[benchmark_lm], "--n_embd", "200")
    assert "multiple" in refused(tables, own[tables], "--n_embd", "10")
    assert "multiple" in refused(benchmark, own[benchmark], "--n_embd", "100")
    assert "`seed`" in refused(tables, own[tables], "--seed", 10**25)
    assert "n_prompts" in refused(evaluate, own[evaluate], "--n_prompts", 10**15)
    assert "n_prompts" in refused(benchmark_stops, own[benchmark_stops], "--n_prompts", 10**15)
    assert "n_embd" in refused(study, own[study], "--n_embd", "10")
    assert "invalid choice" in refused(evaluate, own[evaluate] | {"--task": "linear"})


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("plot.py --metrics setup.cfg --output_dir runs/none", "setup.cfg is not valid JSON"),
        ("evaluate.py --model runs/quickstrat --task decision_tree --output_dir x", "there is no folder runs/quickst"),
        ("headline.py --model_cards setup.cfg", "`model_cards` must be a folder, got setup.cfg"),
    ],
)
def test_a_process_of_its_own_ends_with_a_status_and_one_line(command, message):
    program, *flags = command.split()
    result = run_program([f"scripts/{program}", *flags])
    assert result.returncode == 1
    assert result.stdout == ""
    assert message in result.stderr
    assert result.stderr.startswith(f"{program}: error: ")
    assert result.stderr.count("\n") == 1


def test_help_is_help(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["headline.py", "--help"])
    with pytest.raises(SystemExit) as exit:
        headline.main()
    assert exit.value.code == 0
    printed = capsys.readouterr().out
    assert "--model_cards" in printed
    assert "| --- |" not in printed
