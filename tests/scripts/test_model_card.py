import copy
import functools
import json
import operator
import re
import shutil
import sys
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from modeling_looped_gpt2 import LoopedGPT2Config, LoopedGPT2ForInContextRegression
from scripts import evaluate, model_card, plot


REPO = "ana/looped"
ROOT = Path(__file__).parents[2]


def test_the_whole_card_is_as_expected(evaluated):
    expected = (Path(__file__).parent / "expected_card.md").read_text()
    assert model_card.render_card(evaluated, REPO) == expected


def test_the_hub_accepts_the_card_and_reads_its_results(evaluated, hub):
    card = ModelCard(model_card.render_card(evaluated, REPO))
    card.validate()
    metrics = json.loads((evaluated / "metrics.json").read_text())
    values = [result.metric_value for result in card.data.eval_results]
    errors = metrics["error_by_example"]["model"]["error"]
    assert values == [errors[-1], errors[2], sum(errors) / 5]


def leaves(content, path=()):
    """Paths of all that is no dict and no list, and their values."""
    for key, value in content.items() if isinstance(content, dict) else enumerate(content):
        if isinstance(value, dict | list):
            yield from leaves(value, (*path, key))
        else:
            yield (*path, key), value


def replaced(content, paths, change):
    """A copy in which `change` was applied to what is at the paths."""
    content = copy.deepcopy(content)
    for *groups, key in paths:
        inner = functools.reduce(operator.getitem, groups, content)
        inner[key] = change(inner[key])
    return content


def one_at_a_time(record):
    """Records in which one thing is another: a float, a version, a whole number under its name, or the examples."""
    for path, value in leaves(record):
        if isinstance(value, float):
            yield replaced(record, [path], lambda value: 1.05 * value)  # little enough to leave the best the best
            yield replaced(record, [path], lambda value: 2 * value)
        elif isinstance(value, str):
            yield replaced(record, [path], lambda value: re.sub(r"\d", "9", value))
    whole = [path for path, value in leaves(record) if type(value) is int]
    for name in {path[-1] for path in whole}:
        yield replaced(record, [path for path in whole if path[-1] == name], lambda value: value + 1)
    curves = [path[:-1] for path, _ in leaves(record) if "error_by_example" in path and path[-1] == 0]
    yield replaced(record, curves, lambda curve: [*curve, *[0.01] * 4])


def numbers(card):
    """The numbers of the card's lines, by line, but for its code."""
    prose = re.sub(r"```.*?```", "", card, flags=re.DOTALL)
    return [re.findall(r"\d[\d,]*(?:\.\d+)*(?:e[+-]?\d+)?", line) for line in prose.splitlines()]


def test_every_number_of_the_card_follows_its_record(evaluated, monkeypatch):
    record = model_card.read_record(evaluated)
    card = model_card.render_card(evaluated, REPO)
    unmoved = {(line, place) for line, found in enumerate(numbers(card)) for place in range(len(found))}
    for other in one_at_a_time(record):
        monkeypatch.setattr(model_card, "read_record", lambda folder, other=other: other)
        lines = zip(numbers(card), numbers(model_card.render_card(evaluated, REPO)), strict=True)
        for line, (before, after) in enumerate(lines):
            if len(before) == len(after):
                unmoved -= {(line, place) for place in range(len(after)) if before[place] != after[place]}
    # what is no result: Apache 2.0, GPT-2, predicting 0 has error 1, revision v1, the loops shown, the 90% interval
    unmoved = " ".join(numbers(card)[line][place] for line, place in sorted(unmoved))
    assert unmoved == "2.0 2 0 2, 2 0 1 1 1 2 3 4 0 90 0 2.0"


def test_what_the_model_started_from_is_shown_with_its_cost(evaluated, change):
    change("recipe.yaml", lambda recipe: recipe.update(initial_model="runs/first"))
    change("environment.json", lambda record: record.update(initial_model={"flops": 7.1e13, "seconds": 3000.0}))
    card = model_card.render_card(evaluated, REPO)
    assert "It started from the model `runs/first`, whose training had taken 7.1e+13 operations in 50 min." in card


def test_all_machines_of_a_run_that_went_on_elsewhere_are_told(evaluated, change):
    earlier = {"python": "3.12.3", "torch": "2.11.0", "device": "NVIDIA H200", "threads": 1, "processes": 8}
    change("environment.json", lambda record: record.update(earlier=[earlier]))
    card = model_card.render_card(evaluated, REPO)
    assert "in 4 min on 8 × NVIDIA H200, 1 thread, then 1 × x86_64, 2 threads, mixed precision no." in card


def test_training_with_hints_is_told(evaluated, change):
    assert "linear maps" not in model_card.render_card(evaluated, REPO)
    change("recipe.yaml", lambda recipe: recipe.update(hint_weight=0.25))
    assert "scored, with weight 0.25, on what linear maps read in its states" in model_card.render_card(
        evaluated, REPO
    )


def test_no_number_of_the_results_is_in_the_template():
    template = model_card.TEMPLATE.read_text()
    typed = re.findall(r"\d+(?:\.\d+)?", re.sub(r"\{[{%].*?[%}]\}|```.*?```", "", template, flags=re.DOTALL))
    # GPT-2; predicting 0 has error 1; revision="v1"; 90% interval; fewer than 0; Apache 2.0
    assert set(typed) <= {"2", "0", "1", "90", "2.0"}


def test_what_a_full_evaluation_adds_is_shown(evaluated, change):
    curve = {"error": [0.9, 0.4, 0.2, 0.0123, 0.0456]}

    def add(metrics):
        metrics["settings"] |= {"limit": "the best there is", "n_shift_prompts": 17}
        metrics["limit"] = metrics["excess_over_limit"] = curve
        metrics["published"] = {"Looped Transformer": curve, "Lasso": {"error": [0.9]}}
        metrics["shifts"] = {"half_subspace": {"model": curve, "least squares": {"error": [3.21]}}}

    change("metrics.json", add)
    card = model_card.render_card(evaluated, REPO)
    for row in ("*limit*", "*excess over the limit*", "Looped Transformer (published)"):
        assert f"| {row} | 0.9 | 0.4 | 0.2 | 0.0123 | 0.0456 |" in card
    assert "| Lasso (published) | 0.9 | - | - | - | - |" in card
    assert "The limit is the best there is," in card
    assert "on 17 prompts of each kind" in card
    assert "| prompts | this model | least squares |\n| --- | --- | --- |\n| half subspace | 0.0456 | 3.21 |" in card


def run(monkeypatch, *flags):
    monkeypatch.setattr(sys, "argv", ["model_card.py", *map(str, flags)])
    model_card.main()


def test_a_trained_run_that_was_evaluated_and_drawn_has_a_card(finished, tmp_path, monkeypatch):
    folder = shutil.copytree(finished, tmp_path / "run")
    evaluation = ("--model", folder, "--task", "noisy_linear_regression", "--n_prompts", "20", "--output_dir", folder)
    for script, flags in (
        (evaluate, evaluation),
        (plot, ("--metrics", folder / "metrics.json", "--output_dir", folder)),
    ):
        monkeypatch.setattr(sys, "argv", [script.__name__, *map(str, flags)])
        script.main()
    run(monkeypatch, "--model", folder, "--repo_id", REPO, "--output_dir", tmp_path / "card")
    metrics = json.loads((folder / "metrics.json").read_text())
    card = (tmp_path / "card" / "README.md").read_text()
    assert f"its error on fresh functions of the class is **{metrics['error_by_loop']['last_point'][3]:.3g}**" in card
    assert "12 steps of 8 prompts" in card
    assert (tmp_path / "card" / "error.svg").exists()


def test_the_folder_loads_in_place_by_links_to_the_code(evaluated, tmp_path, monkeypatch, run_isolated):
    target = tmp_path / "model_cards" / "linear_regression"
    run(monkeypatch, "--model", evaluated, "--repo_id", REPO, "--output_dir", target)
    code = {path for path in target.iterdir() if path.suffix == ".py"}
    assert {path.name for path in set(target.iterdir()) - code} == {*model_card.SOURCES, "README.md"}
    for path in code:
        assert not path.readlink().is_absolute()
        assert path.resolve() == ROOT / "modeling_looped_gpt2" / path.name
    assert (target / "model.safetensors").read_bytes() == (evaluated / "model.safetensors").read_bytes()
    assert (target / "README.md").read_text() == model_card.render_card(evaluated, REPO)
    run_isolated(f"""
from transformers import AutoModel
model = AutoModel.from_pretrained({str(target)!r}, trust_remote_code=True)
assert type(model).__name__ == "LoopedGPT2ForInContextRegression"
""")
    # once more from its own result, in place, after the project was moved
    before = {path.name: path.read_bytes() for path in target.iterdir()}
    broken = target / "modeling_looped_gpt2.py"
    broken.unlink()
    broken.symlink_to("nowhere.py")
    run(monkeypatch, "--model", target, "--repo_id", REPO, "--output_dir", target)
    assert {path.name: path.read_bytes() for path in target.iterdir()} == before


def test_the_code_that_a_run_left_stays(evaluated, monkeypatch):
    run(monkeypatch, "--model", evaluated, "--repo_id", REPO, "--output_dir", evaluated)
    code = evaluated / "modeling_looped_gpt2.py"
    assert not code.is_symlink()
    assert code.read_text() == "raise AssertionError"


@pytest.mark.parametrize("name", model_card.SOURCES)
def test_a_missing_record_is_named_with_the_program_that_writes_it(name, evaluated):
    (evaluated / name).unlink()
    with pytest.raises(ValueError, match=rf"no {name}: run {model_card.SOURCES[name]} first"):
        model_card.render_card(evaluated, REPO)


@pytest.mark.parametrize("name", ["metrics.json", "environment.json", "log.jsonl", "recipe.yaml"])
@pytest.mark.parametrize("content", ["{", "", "[1]"])
def test_a_damaged_record_is_refused(name, content, evaluated):
    if (name, content) == ("log.jsonl", ""):
        content = "not json"
    (evaluated / name).write_text(content)
    with pytest.raises(ValueError, match=re.escape(str(evaluated))):
        model_card.render_card(evaluated, REPO)


BAD_RECORDS = {
    "another task": ("recipe.yaml", lambda recipe: recipe.update(task="decision_tree"), "different models: `task`"),
    "other dimensions": ("metrics.json", lambda m: m["settings"].update(n_dims=4), "`n_dims` is 4 and 3"),
    "other weights": (
        "metrics.json",
        lambda metrics: metrics["settings"].update(weights_sha256="0" * 64),
        "measured on other weights",
    ),
    "weights unknown": ("metrics.json", lambda m: m["settings"].pop("weights_sha256"), "measured on other weights"),
    "unknown class": ("config.json", lambda config: config.update(architectures=["GPT2Model"]), "`architectures`"),
}


@pytest.mark.parametrize("name", BAD_RECORDS)
def test_records_of_another_model_are_refused_and_nothing_is_written(name, evaluated, change, tmp_path, monkeypatch):
    change(*BAD_RECORDS[name][:2])
    with pytest.raises(SystemExit, match=BAD_RECORDS[name][2]):
        run(monkeypatch, "--model", evaluated, "--repo_id", REPO, "--output_dir", tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.filterwarnings("ignore")  # the report on missing weights
def test_weights_of_another_architecture_are_refused(evaluated):
    config = LoopedGPT2Config(n_embd=16, n_head=2, n_dims=3, n_positions=10, n_layer=2)
    LoopedGPT2ForInContextRegression(config).save_pretrained(evaluated / "deeper")
    (evaluated / "deeper" / "model.safetensors").rename(evaluated / "model.safetensors")
    with pytest.raises(ValueError, match="are not those of a LoopedGPT2ForInContextRegression"):
        model_card.load_checked(evaluated)


@pytest.mark.parametrize("repo_id", ["looped", "ana/bea/looped", "ana/lo--oped", "ana/looped.git", "ana/"])
def test_a_name_that_no_repository_can_have_is_refused(repo_id, evaluated, monkeypatch, tmp_path):
    with pytest.raises(SystemExit, match=r"(?i)repo.?id"):
        run(monkeypatch, "--model", evaluated, "--repo_id", repo_id, "--output_dir", tmp_path / "new")


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0 s"), (119, "119 s"), (3000, "50 min"), (7500, "2 h 5 min")])
def test_durations_are_readable(seconds, text):
    assert model_card.duration(seconds) == text


def test_every_released_card_is_what_its_records_say():
    for folder in (path for path in (ROOT / "model_cards").iterdir() if path.is_dir()):
        card = (folder / "README.md").read_text()
        repo_id = re.search(r'from_pretrained\("([^"]+)"', card)[1]
        assert card == model_card.render_card(folder, repo_id), folder.name
