import copy
import functools
import itertools
import json
import operator
import re
import shutil
import sys
from collections import Counter
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt

from modeling_looped_gpt2 import LoopedGPT2Config, LoopedGPT2ForInContextRegression
from scripts import evaluate, plot
from scripts import model_card as model_card_program
from scripts.release import card as model_card
from scripts.release import files as release


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
    # what is no result: Apache 2.0, GPT-2, the 90% intervals, predicting 0 has error 1, revision v1, the loops shown
    unmoved = " ".join(numbers(card)[line][place] for line, place in sorted(unmoved))
    assert unmoved == "2.0 2 0 2, 2 90 0 1 1 1 4 0 90 0 2.0"


def test_what_the_model_started_from_is_shown_with_its_cost(evaluated, change):
    change("recipe.yaml", lambda recipe: recipe.update(initial_model="runs/first"))
    change("environment.json", lambda record: record.update(initial_model={"flops": 7.1e13, "seconds": 3000.0}))
    card = model_card.render_card(evaluated, REPO)
    assert "It started from the model runs/first, whose training had taken 7.1e+13 operations in 50 min." in card


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
    model_card_program.main()


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
    assert "It took 12 steps of 8 prompts" in card
    assert (tmp_path / "card" / "error.svg").exists()


def test_the_folder_loads_in_place_by_links_to_the_code(evaluated, tmp_path, monkeypatch, run_isolated):
    target = tmp_path / "model_cards" / "linear_regression"
    run(monkeypatch, "--model", evaluated, "--repo_id", REPO, "--output_dir", target)
    code = {path for path in target.iterdir() if path.suffix == ".py"}
    assert {path.name for path in set(target.iterdir()) - code} == {*release.SOURCES, "README.md"}
    for path in code:
        assert not path.readlink().is_absolute()
        assert path.resolve() == ROOT / "modeling_looped_gpt2" / path.name
    assert (target / "model.safetensors").read_bytes() == (evaluated / "model.safetensors").read_bytes()
    assert (target / "README.md").read_text() == model_card.render_card(evaluated, REPO)
    assert (target / "error.png").stat().st_mode == (evaluated / "error.png").stat().st_mode
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
    assert not any(path.is_symlink() for path in evaluated.iterdir())  # a copy of the folder works anywhere
    code = evaluated / "modeling_looped_gpt2.py"
    assert not code.is_symlink()
    assert code.read_text() == "raise AssertionError"


@pytest.mark.parametrize("name", release.SOURCES)
def test_a_missing_record_is_named_with_the_program_that_writes_it(name, evaluated):
    (evaluated / name).unlink()
    with pytest.raises(ValueError, match=rf"no {name}: run {release.SOURCES[name]} first"):
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
    "unknown class": ("config.json", lambda config: config.update(architectures=["GPT2Model"]), "got GPT2Model"),
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
    with pytest.raises(ValueError, match=r"the weights in .* are not those of its config"):
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
        card = folder / "README.md"
        assert card.read_text() == model_card.render_card(folder, release.repository_of(card)), folder.name


# what a record holds is shown and never obeyed

HOSTILE = (
    "<script>alert(1)</script>",
    "<!-- hidden",
    "a | b || c |",
    "\\",
    "\\|",
    "`code` ``` two",
    "*a* **b** _c_ __d__ ~~e~~",
    "[x](javascript:alert(1)) ![y](https://example.org/z.png)",
    "](",
    "<https://example.org>",
    "&lt;b&gt; &amp;",
    "$$x$$",
    "---\nlicense: mit\n---\n",
    "\n\n# Title\n\n- item\n\n    code\n\n```\nfence",
    "\r\n| a | b |\r\n",
    "# Title",
    "- item",
    "1. item",
    "===",
    "***",
    "    code",
    "line\u2028and\x85next",
    "a: [1, 2] # ! &anchor *alias !!python/object:os.system",
    "'\"%@{{ 7 * 7 }}{% if %}",
)


def hostile(record, text):
    """The record with a text in the place of every text and setting that a card shows."""
    record = copy.deepcopy(record)
    record["recipe"] |= dict.fromkeys(model_card.RECIPE_ROWS, text) | {"mixed_precision": text}
    record["recipe"]["n_loops"] = 2
    record["environment"] |= {
        "device": text,
        "processes": text,
        text: text,
        "initial_model": {"flops": 1.0, "seconds": 1},
    }
    metrics = record["metrics"]
    curve = metrics["error_by_example"]["zero"]
    metrics["settings"] |= {"task": text, "limit": text, "seed": text, "n_shift_prompts": text}
    metrics["error_by_example"] |= {text: curve}
    metrics |= {"limit": curve, "excess_over_limit": curve, "published": {text: curve}, "versions": {text: text}}
    metrics["shifts"] = {text: {"model": curve, text: curve}}
    return record


def parsed(card):
    """The card's metadata, the tokens of its text by type, and the texts of the cells of every table, row by row."""
    _, metadata, text = card.split("---\n", 2)
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(text)
    inline = [child for token in tokens for child in token.children or ()]
    rows, table = [], []
    for token, following in itertools.pairwise(tokens):
        if token.type == "tr_open":
            rows.append([])
        elif token.type in ("th_open", "td_open"):
            rows[-1].append("".join(child.content for child in following.children))
        elif token.type == "table_close":
            table.append(rows)
            rows = []
    return yaml.safe_load(metadata), Counter(token.type for token in (*tokens, *inline)), table


@pytest.mark.parametrize("text", HOSTILE)
def test_whatever_a_record_holds_is_shown_as_it_is(text, evaluated, monkeypatch):
    record, shown = model_card.read_record(evaluated), " ".join(text.split())
    cards = []
    for value in ("harmless", text):
        monkeypatch.setattr(model_card, "read_record", lambda folder, value=value: hostile(record, value))
        cards.append(model_card.render_card(evaluated, REPO))
    (_, harmless, harmless_tables), (metadata, types, tables) = map(parsed, cards)
    assert set(metadata) == {"library_name", "license", "pipeline_tag", "tags", "model-index"}
    (result, *_) = metadata["model-index"][0]["results"]
    assert result["dataset"] == {"type": shown, "name": f"{shown}, 3 dimensions, 40 prompts"}
    ModelCard(cards[1])
    # no token but those of the template: no tag, link, picture, heading, list, code or emphasis more
    differing = ("text", "text_special")
    assert {kind: n for kind, n in types.items() if kind not in differing} == {
        kind: n for kind, n in harmless.items() if kind not in differing
    }
    assert [[len(row) for row in table] for table in tables] == [
        [len(row) for row in table] for table in harmless_tables
    ]
    assert len({len(row) for row in tables[0]}) == 1
    cells = [cell for table in tables for row in table for cell in row]
    assert cells.count(shown) >= len(model_card.RECIPE_ROWS)
    assert f"{shown} (published)" in cells


@pytest.mark.parametrize("repo_id", ['a/b")', "a/b\n---", "a/<b>", "a/b`", "a/b|c"])
def test_a_repository_name_cannot_be_anything_else(repo_id, evaluated):
    with pytest.raises(ValueError, match=r"(?i)repo.?id"):
        model_card.render_card(evaluated, repo_id)


# records of older versions, and records that hold what no division or power can take


def test_what_older_versions_did_not_record_is_left_out(evaluated, change):
    card = model_card.render_card(evaluated, REPO)
    change("recipe.yaml", lambda recipe: [recipe.pop(name) for name in ("optimizer", "warmup_steps", "seed")])
    change("environment.json", lambda record: record.pop("threads"))
    change("metrics.json", lambda metrics: metrics["settings"].pop("n_loop_prompts"))
    older = model_card.render_card(evaluated, REPO)
    assert "in 4 min on 1 × x86_64, mixed precision no." in older
    assert "| `optimizer` |" in card
    assert "| `optimizer` |" not in older
    assert "These are errors on 20 of the 40 prompts" in card
    assert "These are errors on" not in older


def no_flops(record):
    del record["flops"]


UNFIT = {
    "no operations": ("environment.json", no_flops),
    "operations in words": ("environment.json", lambda record: record.update(flops="many")),
    "operations beyond numbers": ("environment.json", lambda record: record.update(flops=10**400)),
    "an error of zero": ("metrics.json", lambda m: m["error_by_loop"]["last_point"].__setitem__(1, 0.0)),
    "no baseline": ("metrics.json", lambda m: m["error_by_example"].pop("zero")),
    "no seed": ("metrics.json", lambda m: m["settings"].pop("seed")),
    "threads in words": ("environment.json", lambda record: record.update(threads="two")),
    "no task": ("recipe.yaml", lambda recipe: recipe.pop("task")),
    "an older model": ("environment.json", lambda record: record.update(initial_model="runs/first")),
    "an error beyond numbers": (
        "metrics.json",
        lambda m: m["error_by_example"]["zero"]["error"].__setitem__(0, 10**400),
    ),
}


@pytest.mark.parametrize("kind", UNFIT)
def test_records_that_make_no_card_are_refused_in_one_line(kind, evaluated, change, tmp_path, monkeypatch):
    change(*UNFIT[kind])
    with pytest.raises(SystemExit, match=str(evaluated)) as refused:
        run(monkeypatch, "--model", evaluated, "--repo_id", REPO, "--output_dir", tmp_path / "new")
    assert len(str(refused.value).splitlines()) == 1
    assert not (tmp_path / "new").exists()
