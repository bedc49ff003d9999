"""Any task is trained by its objective and judged by its score."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
import yaml

from modeling_looped_gpt2 import LoopedGPT2Config, LoopedGPT2ForInContextRegression
from scripts.training.objectives import OBJECTIVES
from scripts.training.prompt_arguments import TaskArguments
from tasks import TASKS, FunctionClass, Task, make_task
from tasks.streams import make_generator
from tests.scripts.toy_tasks import Tables


SMALL = {"n_embd": 16, "n_head": 2, "n_loops": 2, "n_prelude": 1, "batch_size": 8, "mixed_precision": "no"}
SMALL |= {"log_every": 4, "eval_every": 6, "save_every": 6, "n_eval_prompts": 12, "max_steps": 12}


@dataclass(frozen=True)
class Repeating(Task):
    """Tokens, and at each place but the first what came before it."""

    name = "repeating"
    objective = "answer_slots"
    place_name = "tokens before"

    length: int = 7

    @property
    def sizes(self):
        return {"length": self.length}

    @property
    def model_fields(self):
        return {"vocab_size": 5, "n_positions": self.length}

    def check_sizes(self, length=1):
        assert 1 <= length <= self.length

    def sample(self, n_prompts, generator, with_hints=False, length=None):
        ids = torch.randint(5, (n_prompts, length or self.length), generator=generator)
        return {"input_ids": ids, "labels": torch.cat((torch.full_like(ids[:, :1], -100), ids[:, :-1]), dim=1)}

    def score(self, answers, prompts):
        labels = prompts["labels"].numpy()
        return np.where(labels == -100, np.nan, answers != labels)


@dataclass(frozen=True)
class Signs(Task):
    """Whether a coordinate that is the same throughout a prompt is positive."""

    name = "signs"
    objective = "classification"
    place_name = "in-context examples"

    n_dims: int = 2
    n_points: int = 6

    @property
    def sizes(self):
        return {"n_points": self.n_points}

    @property
    def model_fields(self):
        return {"n_dims": self.n_dims, "n_positions": 2 * self.n_points, "num_labels": 2}

    def check_sizes(self, n_points=1):
        assert n_points >= 1

    def n_tokens(self, n_points):
        return 2 * n_points - 1

    def sample(self, n_prompts, generator, with_hints=False, n_points=None):
        xs = torch.randn(n_prompts, n_points or self.n_points, self.n_dims, generator=generator)
        classes = (xs[..., 0] > 0).long()
        return {"xs": xs, "ys": classes, "labels": classes}

    def score(self, answers, prompts):
        return (answers != prompts["labels"].numpy()).astype(float)


@pytest.fixture(autouse=True)
def _toys(monkeypatch):
    for task in (Repeating, Signs, Tables):
        monkeypatch.setitem(TASKS, task.name, task)
    monkeypatch.setitem(TaskArguments.__annotations__, "task", str)  # any name


def flags(task, **changes):
    return [f"--{name}={value}" for name, value in ({"task": task} | SMALL | changes).items()]


MIXTURE = "{components: {linear_regression: 1, decision_tree: {weight: 2, depth: 2}}}"
SETTINGS = {name: {"n_points": 7} for name, kind in TASKS.items() if issubclass(kind, FunctionClass)} | {
    "mixture": {"task_settings": MIXTURE, "n_dims": 3, "n_points": 4},
    "table_prior": {"task_settings": "{n_columns: 3, n_dims: 3, n_points: 12}", "example_order": "set"},
}


@pytest.mark.parametrize("name", [*TASKS, "repeating", "signs"])
def test_every_task_is_trained_judged_and_left_as_what_its_objective_says(name, train_here, log_of, tmp_path):
    assert train_here(tmp_path / "run", *flags(name, **SETTINGS.get(name, {})), recipe=None) == 0
    lines = log_of(tmp_path / "run")
    recipe = yaml.safe_load((tmp_path / "run" / "recipe.yaml").read_text())
    own = {field: recipe[field] for field in ("n_dims", "n_points") if recipe[field] is not None}
    task = make_task(name, **recipe["task_settings"], **own)
    kind = OBJECTIVES[task.objective]
    sizes = set(task.sizes)
    for line in lines:
        if "loss" in line:
            assert line.keys() >= {"step", "loss", "grad_norm", "learning_rate", "n_loops"} | sizes
        else:
            assert line.keys() >= {"step", "eval_error", "eval_error_at_last_point"}
    model = kind.model_class.from_pretrained(tmp_path / "run")
    assert model.config.auto_map[kind.auto_class].endswith(f".{kind.model_class.__name__}")
    assert model.config.n_prelude == 1
    prompts = task.sample(12, make_generator("validation", 42))
    scores = task.score(kind().answers(model.eval(), prompts).numpy(), prompts)
    at_place = [np.mean([score for score in place if not np.isnan(score)]) for place in scores.T if (place >= 0).any()]
    assert lines[-1]["eval_error"] == pytest.approx(np.mean(at_place), rel=1e-5)
    assert lines[-1]["eval_error_at_last_point"] == pytest.approx(at_place[-1], rel=1e-5)


@pytest.mark.parametrize("name", ["repeating", "signs"])
def test_a_task_of_any_objective_goes_on_and_starts_another(name, train_here, assert_same_bits, tmp_path, capsys):
    settings = flags(name, average_decay=0.5, schedules="{n_loops: {start: 1, interval: 3}}")
    assert train_here(tmp_path / "whole", *settings, recipe=None) == 0
    assert train_here(tmp_path / "stopped", *settings, recipe=None, stop_at=5) == 143
    assert train_here(tmp_path / "stopped", *settings, recipe=None) == 0
    assert_same_bits(tmp_path / "whole", tmp_path / "stopped")
    still = flags(name, max_steps=1, learning_rate=0, muon_learning_rate=0, initial_model=tmp_path / "whole")
    assert train_here(tmp_path / "next", *still, recipe=None) == 0
    assert_same_bits(tmp_path / "whole", tmp_path / "next")
    other = flags("linear_regression", n_dims=2, n_points=6, initial_model=tmp_path / "whole")
    assert train_here(tmp_path / "other", *other, recipe=None) == 1
    assert "`initial_model` cannot be the start of this run" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


def test_tokens_are_learned(train_here, log_of, tmp_path):
    settings = flags("repeating", max_steps=150, batch_size=32, learning_rate=1e-2, log_every=50, eval_every=150)
    assert train_here(tmp_path / "run", *settings, "--initializer_range=0.1", recipe=None) == 0
    *reports, evaluation = log_of(tmp_path / "run")
    assert reports[0]["error_rate"] > 0.3 > 0.1 > reports[-1]["error_rate"]
    assert evaluation["eval_error"] < 0.1


def test_a_mixture_is_judged_by_its_components_too(train_here, log_of, tmp_path):
    settings = flags("mixture", **SETTINGS["mixture"])
    assert train_here(tmp_path / "run", *settings, recipe=None) == 0
    evaluation = log_of(tmp_path / "run")[-1]
    model = LoopedGPT2ForInContextRegression.from_pretrained(tmp_path / "run").eval()
    for name, component in {"linear_regression": {}, "decision_tree": {"depth": 2}}.items():
        task = make_task(name, n_dims=3, n_points=4, **component)
        prompts = task.sample(12, make_generator("validation", 42))
        with torch.no_grad():
            errors = (model(prompts["xs"], prompts["ys"]).predictions - prompts["labels"]).square() / task.normaliser
        assert evaluation[f"eval_error_{name}"] == pytest.approx(errors.mean().item(), rel=1e-5)


CELLS = {"example_order": "cells", "position_embedding": "none", "n_layer": 2, "n_prelude": 0}


@pytest.mark.parametrize(("kind", "n_quantiles"), [("regression", 0), ("regression", 3), ("classification", 0)])
def test_tables_are_learned_as_cells(kind, n_quantiles, train_here, log_of, tmp_path):
    settings = flags("tables", **CELLS, max_steps=100, log_every=50, eval_every=100, learning_rate=1e-2)
    settings += [f"--task_settings={{kind: {kind}}}", f"--n_quantiles={n_quantiles}"]
    assert train_here(tmp_path / "run", *settings, recipe=None) == 0
    *reports, evaluation = log_of(tmp_path / "run")
    assert reports[-1]["loss"] < 0.8 * reports[0]["loss"]
    model = OBJECTIVES[kind].model_class.from_pretrained(tmp_path / "run").eval()
    task = Tables(kind)
    prompts = task.sample(12, make_generator("validation", 42))
    found = model(prompts["xs"], prompts["ys"])
    answers = found.predictions.detach() if kind == "regression" else found.logits.argmax(dim=-1)
    scores = task.score(answers.numpy(), prompts)
    assert evaluation["eval_error"] == pytest.approx(scores.mean(), rel=1e-5)


REFUSED = {
    "order of tables": ("tables", {}, "`example_order` must be 'cells' for tables, whose prompts are tables"),
    "dims of tokens": ("repeating", {"n_dims": 3}, "`n_dims` is no setting of repeating: leave it out, got 3"),
    "dims that grow": ("repeating", {"n_dims_start": 1}, "`n_dims_start` is of `n_dims_active`: repeating has none"),
    "hold": ("repeating", {"curriculum_hold": 1}, "`curriculum_hold` is of n_dims_active, n_points alone"),
    "balance": ("signs", {"loss_balance": 0.5}, "`loss_balance` is nothing for classification, which signs is"),
    "hints": ("signs", {"hint_weight": 0.5}, "the task signs has no hints: leave out `hint_weight`"),
    "size": (
        "repeating",
        {"schedules": "{n_points: {start: 1}}"},
        "`schedules` must be of length, n_loops, got",
    ),
    "positions": ("repeating", {"n_positions": 6}, "`n_positions` must be >= 7, those of a prompt of repeating"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_task_has_not_is_refused_by_name(name, train_here, tmp_path, capsys):
    task, changes, message = REFUSED[name]
    assert train_here(tmp_path / "run", *flags(task, **changes), recipe=None) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert message in error
    assert not (tmp_path / "run").exists()


def test_prompts_that_cannot_be_drawn_are_refused_before_anything_is_written(train_here, tmp_path, capsys):
    settings = {"n_dims": 3, "task_settings": "{hidden_size: 1000000000000}"}
    assert train_here(tmp_path / "run", *flags("relu_2nn_regression", **settings), recipe=None) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert "prompts of relu_2nn_regression with these settings cannot be drawn" in error
    assert not (tmp_path / "run").exists()


def test_a_model_of_other_classes_is_no_start(train_here, tmp_path, capsys):
    config = LoopedGPT2Config(n_embd=16, n_head=2, n_loops=2, n_prelude=1, n_dims=2, n_positions=12, num_labels=3)
    OBJECTIVES["classification"].model_class(config).save_pretrained(tmp_path / "start")
    assert train_here(tmp_path / "run", *flags("signs", initial_model=tmp_path / "start"), recipe=None) == 1
    assert "it differs (`num_labels` 3 -> 2)" in capsys.readouterr().err
