"""The card of a model, rendered from its records alone."""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jinja2
from huggingface_hub import EvalResult, ModelCardData
from huggingface_hub.utils import validate_repo_id

from modeling_looped_gpt2 import LoopedGPT2Config
from modeling_looped_gpt2.example_orders_looped_gpt2 import EXAMPLE_ORDERS
from modeling_looped_gpt2.positions_looped_gpt2 import POSITION_EMBEDDINGS
from scripts.common.records import RecordError
from scripts.evaluation.metrics_record import NEEDED_LOOPS, Curve, Interval, Metrics
from scripts.release.files import ReleaseError
from scripts.release.markdown import FILTERS, Markdown, error_at, escape, number, one_line, table
from scripts.release.mixture_values import mixture_values
from scripts.release.record import Record, read_record
from scripts.release.sequence_values import sequence_values
from scripts.release.stages import stage_table
from scripts.release.table_values import table_values
from scripts.training.prompt_arguments import PromptModelArguments, TaskArguments
from scripts.training.recorded_cost import total_flops, training_seconds
from tasks import Task
from tasks.mixture import Mixture
from tasks.sequences.common import SequenceTask
from tasks.tables.table_prior import TablePrior


TEMPLATES = Path(__file__).parents[2] / "model_cards"  # template.md, and in objectives/ and tasks/ its extensions
OWNER = "looped-gpt2"  # of the releases in model_cards/
# by objective: the Hub's name of such a task, and ours
HUB_TASKS = {
    "regression": ("tabular-regression", "in-context regression"),
    "classification": ("tabular-classification", "in-context classification"),
    "answer_slots": ("token-classification", "answers at some positions"),
}
# families of tasks with a page of their own, an extension of their objective's, and what makes its variables
PAGES = {
    SequenceTask: ("tasks/sequences.md", sequence_values),
    TablePrior: ("tasks/tables.md", table_values),
    Mixture: ("tasks/mixture.md", mixture_values),
}
RECIPE_ROWS = (
    *("task", "task_settings", "schedules", "n_dims", "n_points"),
    *("n_loops", "n_loops_start", "n_loops_min", "loop_window", "loop_surplus", "doubt_weight", "input_injection"),
    *("max_steps", "batch_size", "optimizer", "learning_rate", "muon_learning_rate"),
    *("weight_decay", "warmup_steps", "decay_steps", "loss_balance", "hint_weight", "average_decay"),
    *("initial_model", "seed"),
)
# the fields of a configuration that are ours or have defaults of ours, and those defaults
CONFIG_DEFAULTS = {
    item.name: item.default
    for item in dataclasses.fields(LoopedGPT2Config)
    if item.name in LoopedGPT2Config.__annotations__ and not item.name.endswith("_token_id")
}
# what they mean: the words of --help, and of those that no run has as a field
CONFIG_WORDS = {
    "vocab_size": "Tokens of the vocabulary.",
    "activation_function": "Activation of the MLPs.",
    "resid_pdrop": "Dropout of what blocks add, in training.",
    "embd_pdrop": "Dropout of embeddings, in training.",
    "attn_pdrop": "Dropout of attention, in training.",
    "n_outputs": "Numbers in a value y.",
} | {
    item.name: item.metadata["help"].split(" Default: ")[0]
    for group in (TaskArguments, PromptModelArguments)
    for item in dataclasses.fields(group)
    if item.name in CONFIG_DEFAULTS
}
# entries of environment.json that are not versions
MACHINE = ("device", "threads", "processes", "flops", "initial_model", "earlier")


def own_curve(metrics: Metrics) -> Curve:
    """The errors of the model at every place, of prompts that need loops of their own with those."""
    return metrics.stops[NEEDED_LOOPS].errors if metrics.stops else metrics.error_by_example["model"]


def error_table(metrics: Metrics) -> Markdown:
    """A table of errors at the first place, the quarters and the last: of model, limit, baselines and papers."""
    curves: dict[str, Curve | None] = {
        Markdown("**this model**"): metrics.error_by_example["model"],
        Markdown("*limit*"): metrics.limit,
        Markdown("*excess over the limit*"): metrics.excess_over_limit,
    }
    curves |= {name: curve for name, curve in metrics.error_by_example.items() if name != "model"}
    curves |= {f"{name} (published)": curve for name, curve in metrics.published.items()}
    last, numbers = metrics.settings.n_points - 1, metrics.settings.place_numbers
    places = sorted({0, last // 4, last // 2, 3 * last // 4, last})
    rows = {name: [error_at(place, curve) for place in places] for name, curve in curves.items() if curve}
    return table([numbers[place] for place in places], metrics.settings.places, rows)


def shift_table(metrics: Metrics) -> Markdown | None:
    """A table of every predictor's error at the last place under every shift; `None` without shifts."""
    if not metrics.shifts:
        return None
    names = list(next(iter(metrics.shifts.values())))
    rows = {
        shift.replace("_", " "): [number(curves[name].error[-1]) for name in names]
        for shift, curves in metrics.shifts.items()
    }
    return table(["this model" if name == "model" else name for name in names], "prompts", rows)


def loop_table(metrics: Metrics) -> dict[str, Any]:
    """Return errors after some numbers of loops, and the numbers that the text of the card mentions."""
    last_point, trained = metrics.error_by_loop["last_point"], metrics.settings.n_loops
    counts = sorted({1, max(1, trained // 2), trained, min(2 * trained, len(last_point)), len(last_point)})
    errors = {name: [metrics.error_by_loop[name][n - 1] for n in counts] for name in ("last_point", "mean")}
    ratio = last_point[-1] / last_point[trained - 1] if last_point[trained - 1] else None  # all answers are right
    return {"counts": counts, "trained": last_point[trained - 1], "most": last_point[-1], "ratio": ratio, **errors}


def card_metadata(record: Record, repo_id: str) -> ModelCardData:
    """Return the card's metadata, with the results as a `model-index`."""
    settings, errors = record.metrics.settings, own_curve(record.metrics).error
    hub_task, our_name = HUB_TASKS[record.task.objective]
    task, numbers, places = one_line(settings.task), settings.place_numbers, settings.places
    size = f"{settings.n_dims} dimensions, " if settings.n_dims else ""
    middle = (len(errors) - 1) // 2
    results = {
        f"{numbers[-1]} {places}": errors[-1],
        f"{numbers[middle]} {places}": errors[middle],
        f"mean over {numbers[0]} to {numbers[-1]} {places}": sum(errors) / len(errors),
    }
    return ModelCardData(
        license="apache-2.0",
        library_name="transformers",
        pipeline_tag=hub_task,
        tags=["looped-gpt2", "looped-transformer", "in-context-learning", "weight-tying", "custom_code", "synthetic"],
        model_name=repo_id,
        eval_results=[
            EvalResult(
                task_type=hub_task,
                task_name=our_name,
                dataset_type=task,
                dataset_name=f"{task}, {size}{settings.n_prompts} prompts",
                metric_type=one_line(settings.score).replace(" ", "_"),
                metric_name=one_line(f"{settings.score}, {name}"),
                metric_value=value,
            )
            for name, value in results.items()
        ],
    )


def loops_in_words(config: dict[str, Any]) -> str:
    """What the loops are made of: which blocks, how often, and what of their weights is the same in all."""
    n_layer = config["n_layer"]
    words = f"{n_layer} block{'s' if n_layer > 1 else ''} of width {config['n_embd']} with {config['n_head']} heads, "
    if config["block_loops"]:
        words += f"run {', '.join(map(str, config['block_loops']))} times in a row in every loop, "
    words += f"applied {config['n_loops']} times with the same weights"
    own = []
    if config["adapter_rank"]:
        own.append(f"adapters of rank {config['adapter_rank']} in the first {config['n_adapters']} loops")
    if config["loop_encoding"]:
        own.append(f"factors that tell the {config['loop_encoding']} of a loop")
    words += f" but for {' and '.join(own)}" if own else ""
    around = [
        f"{config[name]} {when}" for name, when in (("n_prelude", "before"), ("n_coda", "after")) if config[name]
    ]
    return words + (f", with blocks of their own weights around them, {' and '.join(around)}" if around else "")


def config_table(config: dict[str, Any]) -> Markdown:
    """A table of the configuration's fields that are not at their default, with what they mean."""
    rows = {
        Markdown(f"`{name}`"): (config[name], CONFIG_WORDS[name])
        for name, default in CONFIG_DEFAULTS.items()
        if config[name] != default
    }
    return table(("value", "meaning"), "field", rows)


def card_values(record: Record, repo_id: str) -> dict[str, Any]:
    """Return the variables of the template, all of them taken or computed from the record."""
    metrics, recipe, environment = record.metrics, record.recipe, record.environment
    settings, model = metrics.settings, own_curve(metrics)
    config = CONFIG_DEFAULTS | record.config  # of an older version it lacks some
    order = EXAMPLE_ORDERS[config["example_order"]]
    owner, name = repo_id.split("/")
    last_errors = {name: curve.error[-1] for name, curve in metrics.error_by_example.items() if name != "model"}
    best = min(last_errors, key=last_errors.__getitem__, default=None)
    own_stage = {"flops": total_flops(environment), "error": metrics.error_by_example["model"].error}
    stages = stage_table(own_stage, record.stages, metrics.published, settings)
    for row in stages["rows"]:
        row["name"] = Markdown(f"**{number(row['flops'])}**") if row["is_model"] else number(row["flops"])
    return {
        "task_name": settings.task.replace("_", " "),
        "description": record.description,
        "objective": record.task.objective,
        "repo_id": Markdown(repo_id),
        "name": Markdown(name),
        "auto_class": Markdown(record.objective.auto_class),
        "clone_folder": Markdown(f"model_cards/{name.replace('-', '_')}") if owner == OWNER else None,
        "config": config,
        "loops_in_words": loops_in_words(config),
        "config_table": config_table(config),
        "is_limited": POSITION_EMBEDDINGS[config["position_embedding"]].is_limited,
        "tokens_per_example": {1: "one", 2: "two"}[order.tokens_per_example],
        "settings": settings,
        "n_parameters": f"{settings.n_parameters:,}",
        "max_examples": order.max_examples(config["n_positions"]),
        "first": settings.place_numbers[0],
        "last": settings.place_numbers[-1],
        "model_last": Interval(model.error[-1], model.low[-1], model.high[-1]),
        "best_baseline": best and {"name": best, "error": last_errors[best]},
        "n_loop_prompts": settings.n_loop_prompts or settings.n_prompts,
        "by_loop": loop_table(metrics),
        "results": error_table(metrics),
        "components": {name.replace("_", " "): error_table(part) for name, part in metrics.components.items()},
        "excess": metrics.excess_over_limit is not None,
        "shifts": shift_table(metrics),
        "stages": stages,
        "recipe": recipe,
        "recipe_rows": {
            Markdown(f"`{name}`"): recipe[name] for name in RECIPE_ROWS if recipe.get(name) not in (None, {})
        },
        "environment": environment,
        "cost": training_seconds(record.log),
        "initial": environment.get("initial_model"),
        "training_versions": _versions(environment),
        "evaluation_versions": _versions(metrics.versions),
    }


def page_of(task: Task) -> tuple[str, Callable[[Record], dict[str, Any]]]:
    """The template of the cards of a task, and what makes the variables that only it has."""
    for family, page in PAGES.items():
        if isinstance(task, family):
            return page
    return f"objectives/{task.objective}.md", lambda record: {}


def _versions(versions: dict[str, Any]) -> str:
    return ", ".join(f"{name} {versions[name]}" for name in versions if name not in MACHINE)


@functools.cache
def _templates() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        finalize=escape,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= FILTERS
    return environment


def render_card(folder: Path, repo_id: str) -> str:
    """
    Render the card of the model in `folder` for the repository `repo_id`.

    Raises:
        `ValueError`: a record is missing, damaged or of another model, or `repo_id` cannot be a repository's name.
    """
    check_repo_id(repo_id)
    try:
        record = read_record(folder)
        page, more_values = page_of(record.task)
        template = _templates().get_template(page)
        metadata = Markdown(card_metadata(record, repo_id).to_yaml().strip())
        return template.render(card_data=metadata, **card_values(record, repo_id), **more_values(record))
    except (ReleaseError, RecordError):
        raise
    except jinja2.TemplateNotFound as error:
        raise ValueError(
            f"the objective {record.task.objective} has no card: write model_cards/{error.name}, and an entry of "
            "HUB_TASKS in scripts/release/card.py."
        ) from None
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, jinja2.UndefinedError) as error:
        raise ValueError(
            f"no card can be made of the records in {folder} ({error!r}): train or evaluate again."
        ) from None


def check_repo_id(repo_id: str):
    """Raise `ValueError` unless `repo_id` can be the name of a Hub repository with its owner."""
    validate_repo_id(repo_id)
    if "/" not in repo_id:
        raise ValueError(f"`repo_id` must be ORG/NAME, got {repo_id!r}.")
