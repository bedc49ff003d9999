"""What a card shows of a model of sequences: how it is asked, and what is right by length and what ends its loops."""

import itertools
import json
from dataclasses import asdict, replace
from statistics import fmean
from typing import Any

import torch

from modeling_looped_gpt2.positions_looped_gpt2 import POSITION_EMBEDDINGS
from scripts.evaluation.metrics_record import NEEDED_LOOPS, Settings, StoppedErrors
from scripts.evaluation.own_loops import THRESHOLDS, own_loops_of
from scripts.release.markdown import Markdown, table
from scripts.release.record import Record
from tasks.published import published
from tasks.sequences.common import SequenceTask


N_SYMBOLS = 6  # of the length of the question that is shown
STOP = "exit_confidence"  # the rule that is recommended
NEAR = 0.02  # more wrong answers than with the needed loops, up to which it is
RIGHT = 0.99  # the share of right answers up to which a model is said to reach


def percent(share: float) -> str:
    """A share in percent."""
    return f"{100 * share:.3g}%"


def question_values(record: Record) -> dict[str, Any]:
    """A question as it is written and as tensors, the loops it needs, and the code that makes the task as measured."""
    task, n_longest = record.task, record.metrics.settings.place_numbers[-1]
    length = min(max(N_SYMBOLS, task.min_length), task.max_length)
    asked = replace(task, min_length=length, max_length=length, max_offset=0)
    prompt = asked.sample(1, torch.Generator().manual_seed(0))
    tokens = prompt["input_ids"][0].tolist()
    space = " " if len(task.letters[-1]) > 1 else ""
    settings = asdict(task) | {"max_length": n_longest, "max_offset": 0}
    defaults = asdict(type(task)())
    # switches say how questions of training are drawn
    own = {name: value for name, value in settings.items() if value != defaults[name] and type(value) is not bool}
    arguments = [f"{name}={json.dumps(value)}" for name, value in own.items()]
    return {
        "text": Markdown(space.join(task.symbols[token] for token in tokens if token != task.slot)),
        "answer": Markdown(task.say(prompt["labels"], prompt)[0]),
        "columns": {name: Markdown(prompt[name].tolist()) for name in ("input_ids", "position_ids") if name in prompt},
        "slot": task.slot,
        "symbols": task.symbols,
        "n_steps": int(task.needed_loops(prompt)),
        "n_loops": own_loops_of(task, [prompt], record.recipe).item(),
        "make": Markdown(f"make_task({', '.join([json.dumps(task.name), *arguments])})"),
    }


def longest_of(task: SequenceTask, config: dict[str, Any]) -> int | None:
    """The longest question that the model has positions for; `None` where any length fits."""
    task, n_positions = replace(task, max_offset=0), config["n_positions"]
    is_limited = POSITION_EMBEDDINGS[config["position_embedding"]].is_limited
    if not is_limited or task.n_positions(max_length=10**9) <= n_positions:
        return None
    return max(length for length in range(n_positions + 1) if task.n_positions(max_length=length) <= n_positions)


def reach_of(errors: list[float], settings: Settings) -> int | None:
    """The last length up to which 99% of the answers are right at every one; `None` where fewer are at the first."""
    right = itertools.takewhile(lambda place: place[0] <= 1 - RIGHT, zip(errors, settings.place_numbers, strict=True))
    return max((number for _, number in right), default=None)


def reach_in_words(errors: list[float], settings: Settings) -> str:
    """That length, or a dash."""
    return str(reach_of(errors, settings) or "-")


def stop_of(stops: dict[str, StoppedErrors]) -> Markdown | None:
    """The argument that ends loops about as well as knowing their number does; `None` where there is no such."""
    (threshold,) = THRESHOLDS[STOP]
    rule, needed = stops.get(f"{STOP} {threshold}"), stops[NEEDED_LOOPS]
    if rule is None or fmean(rule.errors.error) > fmean(needed.errors.error) + NEAR:
        return None
    return Markdown(f"`{STOP}={threshold}`")


def rule_table(stops: dict[str, StoppedErrors], settings: Settings, trained: int) -> Markdown:
    """Right answers and mean loops at some lengths, by what ends the loops of a prompt, and how far each reaches."""
    numbers, last = settings.place_numbers, settings.n_points - 1
    places = {0, last // 4, last // 2, 3 * last // 4, last} | {n for n in range(last) if numbers[n] == trained}
    places = sorted(places)
    rows = {
        rule: [
            *(f"{percent(1 - stopped.errors.error[n])} ({stopped.mean_loops[n]:.3g})" for n in places),
            reach_in_words(stopped.errors.error, settings),
        ]
        for rule, stopped in stops.items()
    }
    return table([*(numbers[n] for n in places), f"{percent(RIGHT)} right up to"], settings.places, rows)


def seed_table(record: Record) -> Markdown | None:
    """Right answers at the last length and how far each seed reaches, by rule; `None` without other seeds."""
    if not record.seeds:
        return None
    stops, settings = record.metrics.stops, record.metrics.settings
    by_seed = {other["recipe"]["seed"]: other["errors"] for other in record.seeds}
    own = record.recipe["seed"]
    by_seed[own] = {rule: stopped.errors.error for rule, stopped in stops.items()}
    rows = {}
    for seed in sorted(by_seed):
        errors = by_seed[seed]
        cells = [f"{percent(1 - errors[rule][-1])} ({reach_in_words(errors[rule], settings)})" for rule in stops]
        rows[Markdown(f"**{seed}**") if seed == own else seed] = cells
    return table(list(stops), "seed", rows)


def published_table(record: Record) -> Markdown | None:
    """How far models of papers reach, beside this one; `None` where there is nothing of the task."""
    entry = published()["lengths"]["tasks"].get(record.metrics.settings.task)
    if entry is None:
        return None
    settings, needed = record.metrics.settings, record.metrics.stops[NEEDED_LOOPS].errors.error
    rows = {
        Markdown("**this model**"): (record.task.max_length, reach_in_words(needed, settings)),
        published()["lengths"]["name"]: (entry["trained"], entry["right"]),
    }
    return table(["trained up to", "right up to"], "", rows)


def sequence_values(record: Record) -> dict[str, Any]:
    """The variables of model_cards/tasks/sequences.md."""
    task, metrics = record.task, record.metrics
    needed = metrics.stops[NEEDED_LOOPS]
    return {
        "question": question_values(record),
        "trained": task.max_length,
        "loop_surplus": record.recipe.get("loop_surplus"),
        "stop": stop_of(metrics.stops),
        "n_longest": longest_of(task, record.config),
        "right": {
            name: percent(1 - value)
            for name, value in (
                ("mean", needed.errors.error[-1]),
                ("low", needed.errors.high[-1]),
                ("high", needed.errors.low[-1]),
            )
        },
        "reach": reach_of(needed.errors.error, metrics.settings),
        "rules": rule_table(metrics.stops, metrics.settings, task.max_length),
        "published": published_table(record),
        "published_source": published()["lengths"]["source"],
        "seeds": seed_table(record),
        "n_seeds": 1 + len(record.seeds),
    }
