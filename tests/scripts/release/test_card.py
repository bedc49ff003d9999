import copy
import functools
import itertools
import json
import operator
import re
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt

from modeling_looped_gpt2 import LoopedGPT2Config
from scripts.evaluation.metrics_record import Metrics
from scripts.release.card import CONFIG_DEFAULTS, CONFIG_WORDS, RECIPE_ROWS, TEMPLATES, render_card
from scripts.release.markdown import escape
from scripts.release.record import Record, read_record


REPO = "ana/looped"


def test_the_whole_card_is_as_expected(evaluated):
    expected = (Path(__file__).parents[1] / "expected_card.md").read_text()
    assert render_card(evaluated, REPO) == expected


def test_the_hub_accepts_the_card_and_reads_its_results(evaluated, hub):
    card = ModelCard(render_card(evaluated, REPO))
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


def record_of(content):
    """The record of what `asdict` makes of one."""
    return Record(**(content | {"metrics": Metrics.from_dict(content["metrics"])}))


def one_at_a_time(record):
    """Records in which one thing is another: a float, a version, a whole number under its name, or the examples."""
    for path, value in leaves(record):
        if isinstance(value, float):
            yield replaced(record, [path], lambda value: 1.05 * value)  # little enough to leave the best the best
            yield replaced(record, [path], lambda value: 2 * value)
        elif isinstance(value, str):
            yield replaced(record, [path], lambda value: re.sub(r"\d", "9", value))
    whole = [path for path, value in leaves(record) if type(value) is int]
    for name in {path[-1] for path in whole} - {"n_points", "adapter_rank"}:
        yield replaced(record, [path for path in whole if path[-1] == name], lambda value: value + 1)
    curves = [path[:-1] for path, _ in leaves(record) if "error_by_example" in path and path[-1] == 0]
    longer = replaced(record, curves, lambda curve: [*curve, *[0.01] * 4])
    yield replaced(longer, [path for path in whole if path[-1] == "n_points"], lambda value: value + 4)


def numbers(text):
    """The numbers of a card's lines, by line, but for its code and for fields, whose row is there or not."""
    prose = re.sub(r"```.*?```|^\| `\w+` \| [^|]* \| [^|]* \|$\n", "", text, flags=re.DOTALL | re.MULTILINE)
    return [re.findall(r"\d[\d,]*(?:\.\d+)*(?:e[+-]?\d+)?", line) for line in prose.splitlines()]


def test_every_number_of_the_card_follows_its_record(evaluated, monkeypatch):
    record = asdict(read_record(evaluated))
    first = numbers(render_card(evaluated, REPO))
    unmoved = {(line, place) for line, found in enumerate(first) for place in range(len(found))}
    for other in one_at_a_time(record):
        monkeypatch.setattr("scripts.release.card.read_record", lambda folder, other=other: record_of(other))
        found = numbers(render_card(evaluated, REPO))
        if len(found) != len(first):  # vectors are called another way
            assert other["config"]["n_outputs"] > 1
            continue
        for line, (before, after) in enumerate(zip(first, found, strict=True)):
            if len(before) == len(after):
                unmoved -= {(line, place) for place in range(len(after)) if before[place] != after[place]}
    # what is no result: Apache 2.0, GPT-2, the 90% intervals, predicting 0 has error 1, revision v1, the loops shown
    unmoved = " ".join(first[line][place] for line, place in sorted(unmoved))
    assert unmoved == "2.0 2 2, 2 90 0 1 1 1 4 90 2.0"


# of the architecture

FIELDS = {  # that are not at their default, and what the card then says
    "blocks": ({"n_layer": 2, "block_loops": [2, 1]}, "run 2, 1 times in a row in every loop, applied 2 times with"),
    "parts": ({"n_prelude": 1, "n_coda": 2}, "of their own weights around them, 1 before and 2 after; 3,553"),
    "adapters": (
        {"adapter_rank": 4, "n_adapters": 2, "adapter_beyond": "none"},
        "applied 2 times with the same weights but for adapters of rank 4 in the first 2 loops; ",
    ),
    "encoding": ({"loop_encoding": "share"}, "with the same weights but for factors that tell the share of a loop; "),
    "beyond": (
        {"adapter_rank": 4, "n_adapters": 3},
        "Loops after the first 3 have the adapters of the last of these.",
    ),
    "set": ({"example_order": "set"}, "10 positions, one per example: more than 9 examples and a query are refused"),
    "no positions": ({"position_embedding": "none"}, "It reads any number of examples (x, y)"),
    "no limit": ({"position_embedding": "none"}, "takes any number of examples, but was trained and measured with up"),
}


@pytest.mark.parametrize(("fields", "text"), FIELDS.values(), ids=FIELDS)
def test_the_card_tells_what_the_model_is_made_of(fields, text, evaluated, change):
    plain = render_card(evaluated, REPO)
    change("config.json", lambda config: config.update(fields))
    card = render_card(evaluated, REPO)
    assert text in card
    assert text not in plain
    for name, value in fields.items():
        assert f"| `{name}` | {escape(value)} | {escape(CONFIG_WORDS[name])} |" in card
        assert f"| `{name}` |" not in plain


def test_every_field_of_the_configuration_has_its_words_and_its_row(evaluated, change):
    config = LoopedGPT2Config(n_embd=16, n_head=2, n_dims=3, n_positions=10, n_loops=2)
    assert {name: getattr(LoopedGPT2Config(), name) for name in CONFIG_DEFAULTS} == CONFIG_DEFAULTS
    shown = {name for name, default in CONFIG_DEFAULTS.items() if getattr(config, name) != default}
    assert set(re.findall(r"^\| `(\w+)` \| .* \| .* \|$", render_card(evaluated, REPO), flags=re.MULTILINE)) == shown
    assert CONFIG_WORDS.keys() == CONFIG_DEFAULTS.keys()
    # of an older version, which did not have it
    change("config.json", lambda config: config.pop("example_order"))
    assert "`example_order`" not in render_card(evaluated, REPO)


def test_what_the_model_started_from_is_shown_with_its_cost(evaluated, change):
    change("recipe.yaml", lambda recipe: recipe.update(initial_model="runs/first"))
    change("environment.json", lambda record: record.update(initial_model={"flops": 7.1e13, "seconds": 3000.0}))
    card = render_card(evaluated, REPO)
    assert "It started from the model runs/first, whose training had taken 7.1e+13 operations in 50 min." in card


def test_all_machines_of_a_run_that_went_on_elsewhere_are_told(evaluated, change):
    earlier = {"python": "3.12.3", "torch": "2.11.0", "device": "NVIDIA H200", "threads": 1, "processes": 8}
    change("environment.json", lambda record: record.update(earlier=[earlier]))
    card = render_card(evaluated, REPO)
    assert "in 4 min on 8 × NVIDIA H200, 1 thread, then 1 × x86_64, 2 threads, mixed precision no." in card


def test_training_with_hints_is_told(evaluated, change):
    assert "linear maps" not in render_card(evaluated, REPO)
    change("recipe.yaml", lambda recipe: recipe.update(hint_weight=0.25))
    assert "scored, with weight 0.25, on what linear maps read in its states" in render_card(evaluated, REPO)


@pytest.mark.parametrize(
    "path", [*TEMPLATES.glob("*.md"), *TEMPLATES.glob("objectives/*.md")], ids=lambda path: path.stem
)
def test_no_number_of_the_results_is_in_a_template(path):
    typed = re.findall(r"\d+(?:\.\d+)?", re.sub(r"\{[{%].*?[%}]\}|```.*?```", "", path.read_text(), flags=re.DOTALL))
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
    card = render_card(evaluated, REPO)
    for row in ("*limit*", "*excess over the limit*", "Looped Transformer (published)"):
        assert f"| {row} | 0.9 | 0.4 | 0.2 | 0.0123 | 0.0456 |" in card
    assert "| Lasso (published) | 0.9 | - | - | - | - |" in card
    assert "The limit is the best there is," in card
    assert "on 17 prompts of each kind" in card
    assert "| prompts | this model | least squares |\n| --- | --- | --- |\n| half subspace | 0.0456 | 3.21 |" in card


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
    """The record with a text in the place of every text that a card shows."""
    content = copy.deepcopy(record)
    content["recipe"] |= dict.fromkeys(RECIPE_ROWS, text) | {"mixed_precision": text}
    machine = {"device": text, "processes": text, text: text, "initial_model": {"flops": 1.0, "seconds": 1}}
    content["environment"] |= machine
    metrics = content["metrics"]
    curve = metrics["error_by_example"]["zero"]
    metrics["settings"] |= dict.fromkeys(("task", "limit", "score", "place"), text)
    metrics["error_by_example"] |= {text: curve}
    metrics |= {"limit": curve, "excess_over_limit": curve, "published": {text: curve}, "versions": {text: text}}
    metrics["shifts"] = {text: {"model": curve, text: curve}}
    metrics["components"] = {text: copy.deepcopy(metrics)}
    return record_of(content)


def parsed(text):
    """A card's metadata, the tokens of its text by type, and the texts of the cells of every table, row by row."""
    _, metadata, text = text.split("---\n", 2)
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
    record, shown = asdict(read_record(evaluated)), " ".join(text.split())
    cards = []
    for value in ("harmless", text):
        monkeypatch.setattr("scripts.release.card.read_record", lambda folder, value=value: hostile(record, value))
        cards.append(render_card(evaluated, REPO))
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
    assert cells.count(shown) >= len(RECIPE_ROWS)
    assert f"{shown} (published)" in cells


@pytest.mark.parametrize("repo_id", ['a/b")', "a/b\n---", "a/<b>", "a/b`", "a/b|c"])
def test_a_repository_name_cannot_be_anything_else(repo_id, evaluated):
    with pytest.raises(ValueError, match=r"(?i)repo.?id"):
        render_card(evaluated, repo_id)


# records of older versions, and records that hold what no division or power can take


def test_a_model_without_an_error_has_a_card(evaluated, change):
    change("metrics.json", lambda metrics: metrics["error_by_loop"].update(last_point=[0.5, 0.0, 0.0, 0.0]))
    assert "At 4 loops the error with 4 examples is 0." in render_card(evaluated, REPO)


def test_what_older_versions_did_not_record_is_left_out(evaluated, change):
    card = render_card(evaluated, REPO)
    change("recipe.yaml", lambda recipe: [recipe.pop(name) for name in ("optimizer", "warmup_steps", "seed")])
    change("environment.json", lambda record: record.pop("threads"))
    change("metrics.json", lambda metrics: metrics["settings"].pop("n_loop_prompts"))
    older = render_card(evaluated, REPO)
    assert "in 4 min on 1 × x86_64, mixed precision no." in older
    assert "| `optimizer` |" in card
    assert "| `optimizer` |" not in older
    assert "These are errors on 20 of the 40 prompts" in card
    assert "These are errors on" not in older
