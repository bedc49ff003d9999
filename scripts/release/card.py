"""The card of a model, rendered from its records alone, and the folder that is its release."""

import os
import re
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jinja2
from huggingface_hub import EvalResult, ModelCardData
from huggingface_hub.utils import validate_repo_id
from transformers import PreTrainedModel

import modeling_looped_gpt2
from modeling_looped_gpt2.pipeline_looped_gpt2 import InContextRegressionPipeline
from scripts.common.model_loading import load_model, weights_digest
from scripts.common.records import (
    STAGES_FILE,
    RecordError,
    read_json,
    read_json_lines,
    read_json_list,
    read_metrics,
    read_yaml,
    write_atomically,
)
from scripts.release.files import CARD_FILE, ReleaseError, claim_release, release_files, replacing
from scripts.release.stages import prompts_of, stage_table
from scripts.training.cost import total_flops, training_seconds
from tasks import TASKS


TEMPLATE = Path(__file__).parents[2] / "model_cards" / "template.md"
OWNER = "looped-gpt2"  # of the releases in model_cards/
# what means something in a line of Markdown; an underscore within a word does not
SPECIAL = re.compile(r"[\\`*\[\]<>#|~$&]|(?<![^\W_])_|_(?![^\W_])")
OPTIONAL_CURVES = {"limit": "limit", "excess_over_limit": "excess over the limit"}
RECIPE_ROWS = (
    *("task", "n_dims", "n_points", "n_loops", "n_loops_start", "n_loops_min", "loop_window", "input_injection"),
    *("max_steps", "batch_size", "optimizer", "learning_rate", "muon_learning_rate", "weight_decay"),
    *("warmup_steps", "decay_steps", "loss_balance", "hint_weight", "average_decay", "initial_model", "seed"),
)


class Markdown(str):
    """Text that is Markdown already and goes into the card as it stands; all other text is shown, not obeyed."""


def escape(value: Any) -> Markdown:
    """What shows a value in one line of Markdown, whatever it holds."""
    if isinstance(value, Markdown):
        return value
    return Markdown(SPECIAL.sub(r"\\\g<0>", one_line(str(value))))


def one_line(text: str) -> str:
    """Text without line breaks or other runs of white space."""
    return " ".join(text.split())


def table_row(cells: Iterable[Any], name: Any) -> Markdown:
    """A row of a table; `name` is its first cell."""
    return Markdown("| " + " | ".join(map(escape, (name, *cells))) + " |")


def table_header(cells: Iterable[Any], name: Any) -> Markdown:
    """The first row of a table, and the line below it."""
    cells = list(cells)
    return Markdown(f"{table_row(cells, name)}\n| ---{' | ---' * len(cells)} |")


def number(value: float) -> str:
    """Three significant digits."""
    return f"{value:.3g}"


def interval(point: dict[str, float]) -> str:
    """An error, and its interval where there is one; a dash where nothing was published."""
    if not point:
        return "-"
    if "low" not in point:
        return number(point["error"])
    return Markdown(f"{number(point['error'])} [{number(point['low'])}, {number(point['high'])}]")


def duration(seconds: float) -> str:
    """Hours and minutes, or minutes, or seconds."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def describe(task: str) -> str:
    """What the task of that name learns; a task that is not of this project is called by its name."""
    return TASKS[task].description if task in TASKS else task.replace("_", " ")


def read_record(folder: Path) -> dict[str, Any]:
    """
    Read what is recorded of a model.

    Raises:
        `ValueError`: a file is missing or is not what its program writes, or the records are of different models.
    """
    release_files(folder)  # before anything is read: what is no file may have no end
    stages = folder / STAGES_FILE
    record = {
        "config": read_json(folder / "config.json"),
        "metrics": read_metrics(folder / "metrics.json"),
        "environment": read_json(folder / "environment.json"),
        "recipe": read_yaml(folder / "recipe.yaml"),
        "log": read_json_lines(folder / "log.jsonl"),
        "stages": read_json_list(stages) if stages.exists() else [],
    }
    settings, config, recipe = record["metrics"]["settings"], record["config"], record["recipe"]
    for name, first, second in (
        ("n_dims", settings["n_dims"], config["n_dims"]),
        ("task", settings["task"], recipe["task"]),
        ("n_loops", config["n_loops"], recipe["n_loops"]),
    ):
        if first != second:
            raise ValueError(f"they are of different models: `{name}` is {first} and {second}")
    if any(stage["prompts"] != prompts_of(settings) for stage in record["stages"]):
        raise ValueError(f"{STAGES_FILE} is of other prompts than metrics.json: run scripts/stages.py again")
    return record


def error_rows(metrics: dict[str, Any], examples: list[int]) -> list[dict[str, Any]]:
    """The rows of the table of results: model, limit, baselines and published values, at some numbers of examples."""
    curves = {Markdown("**this model**"): metrics["error_by_example"]["model"]}
    curves |= {Markdown(f"*{kind}*"): metrics[key] for key, kind in OPTIONAL_CURVES.items() if key in metrics}
    curves |= {name: curve for name, curve in metrics["error_by_example"].items() if name != "model"}
    curves |= {f"{name} (published)": curve for name, curve in metrics["published"].items()}
    return [
        {
            "name": name,
            # a published curve may end earlier
            "points": [{part: values[n] for part, values in curve.items() if n < len(values)} for n in examples],
        }
        for name, curve in curves.items()
    ]


def shift_rows(metrics: dict[str, Any]) -> tuple[list[str], list[dict[str, Any]]]:
    """Columns and rows of the table of shifts: the last error of every predictor on every kind of prompt."""
    shifts = metrics["shifts"]
    columns = list(next(iter(shifts.values()))) if shifts else []
    rows = [
        {"name": name.replace("_", " "), "errors": [curves[column]["error"][-1] for column in columns]}
        for name, curves in shifts.items()
    ]
    return columns, rows


def operations_cell(needed: float | None, taken: float) -> str:
    """Operations that an error needs; no power law is followed beyond a hundred times those that were taken."""
    if needed is None:
        return "-"
    if needed <= taken:
        return "reached"
    return f"{needed:.1e}" if needed <= 100 * taken else f"beyond {100 * taken:.1e}"


def card_metadata(record: dict[str, Any], repo_id: str) -> ModelCardData:
    """The card's metadata with the results as a `model-index`."""
    settings, errors = record["metrics"]["settings"], record["metrics"]["error_by_example"]["model"]["error"]
    task = one_line(settings["task"])
    last = len(errors) - 1
    results = {
        f"normalised squared error, {last} examples": errors[-1],
        f"normalised squared error, {last // 2} examples": errors[last // 2],
        f"normalised squared error, mean over 0 to {last} examples": sum(errors) / len(errors),
    }
    return ModelCardData(
        license="apache-2.0",
        library_name="transformers",
        pipeline_tag="tabular-regression",
        tags=["looped-gpt2", "looped-transformer", "in-context-learning", "weight-tying", "custom_code", "synthetic"],
        model_name=repo_id,
        eval_results=[
            EvalResult(
                task_type="tabular-regression",
                task_name="in-context regression",
                dataset_type=task,
                dataset_name=f"{task}, {settings['n_dims']} dimensions, {settings['n_prompts']} prompts",
                metric_type="normalised_squared_error",
                metric_name=name,
                metric_value=value,
            )
            for name, value in results.items()
        ],
    )


def card_values(record: dict[str, Any], repo_id: str) -> dict[str, Any]:
    """What the template shows, all of it taken or computed from the record."""
    config, metrics, recipe, environment = (record[name] for name in ("config", "metrics", "recipe", "environment"))
    settings, by_loop = metrics["settings"], metrics["error_by_loop"]["last_point"]
    owner, name = repo_id.split("/")
    errors = {name: curve["error"] for name, curve in metrics["error_by_example"].items()}
    last = len(errors["model"]) - 1
    best = min((name for name in errors if name != "model"), key=lambda name: errors[name][-1])
    trained = settings["n_loops"]
    loops = sorted({1, max(1, trained // 2), trained, min(2 * trained, len(by_loop)), len(by_loop)})
    examples = sorted({0, last // 4, last // 2, 3 * last // 4, last})
    shift_columns, shifts = shift_rows(metrics)
    stages = stage_table(
        {"flops": total_flops(environment), "error": errors["model"]}, record["stages"], metrics["published"]
    )
    for row in stages["rows"]:
        row["name"] = Markdown(f"**{number(row['flops'])}**") if row["is_model"] else number(row["flops"])
    return {
        "title": f"Looped GPT-2, {settings['task'].replace('_', ' ')}",
        "class_description": describe(settings["task"]),
        "repo_id": Markdown(repo_id),
        "name": Markdown(name),
        "clone_folder": Markdown(f"model_cards/{name.replace('-', '_')}") if owner == OWNER else None,
        "config": config,
        "settings": settings,
        "n_parameters": f"{settings['n_parameters']:,}",
        "max_examples": (config["n_positions"] + 1) // 2 - 1,
        "last": last,
        "model_last": {part: values[-1] for part, values in metrics["error_by_example"]["model"].items()},
        "best_baseline": {"name": best, "error": errors[best][-1]},
        "n_loop_prompts": settings.get("n_loop_prompts", settings["n_prompts"]),
        "loops": loops,
        "by_loop": {name: [metrics["error_by_loop"][name][n - 1] for n in loops] for name in ("last_point", "mean")},
        "error_trained_loops": by_loop[trained - 1],
        "error_max_loops": by_loop[-1],
        "ratio_max_loops": by_loop[-1] / by_loop[trained - 1],
        "examples": examples,
        "by_example": error_rows(metrics, examples),
        "excess": "excess_over_limit" in metrics,
        "shift_columns": ["this model" if name == "model" else name for name in shift_columns],
        "shifts": shifts,
        "stages": stages,
        "recipe": recipe,
        "recipe_rows": [(Markdown(f"`{name}`"), recipe[name]) for name in RECIPE_ROWS if recipe.get(name) is not None],
        "environment": environment,
        "cost": duration(training_seconds(record["log"])),
        "initial": environment.get("initial_model"),
        "training_versions": _versions(environment),
        "evaluation_versions": _versions(metrics["versions"]),
    }


def _versions(versions: dict[str, Any]) -> str:
    others = ("device", "threads", "processes", "flops", "initial_model", "earlier")
    return ", ".join(f"{name} {versions[name]}" for name in versions if name not in others)


def render_card(folder: Path, repo_id: str) -> str:
    """
    Render the card of the model in `folder` for the repository `repo_id`.

    Raises:
        `ValueError`: a record is missing, damaged or of another model, or `repo_id` cannot be a repository's name.
    """
    check_repo_id(repo_id)
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined,
        finalize=escape,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "number": number,
        "interval": interval,
        "duration": duration,
        "operations": operations_cell,
        "row": table_row,
        "header": table_header,
    }
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    try:
        record = read_record(folder)
        metadata = Markdown(card_metadata(record, repo_id).to_yaml().strip())
        return template.render(card_data=metadata, **card_values(record, repo_id))
    except (ReleaseError, RecordError):
        raise
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, jinja2.UndefinedError) as error:
        raise ValueError(
            f"no card can be made of the records in {folder} ({error!r}): train or evaluate again."
        ) from None


def stage_release(folder: Path, repo_id: str, output_dir: Path):
    """
    Write all that the repository of the model in `folder` holds, the model's code included.

    Args:
        folder (`Path`):
            Folder of a trained and evaluated model.
        repo_id (`str`):
            The repository that the card speaks of.
        output_dir (`Path`):
            An empty folder.

    Raises:
        `ValueError`: a record is missing, damaged or was measured on other weights. Nothing is written then.
    """
    card = render_card(folder, repo_id)
    InContextRegressionPipeline(load_checked(folder)).save_pretrained(output_dir)
    for name in release_files(folder):
        if not (output_dir / name).exists():  # configuration and weights are written by the model itself
            shutil.copyfile(folder / name, output_dir / name)
    (output_dir / CARD_FILE).write_text(card, encoding="utf-8")


def write_release(folder: Path, repo_id: str, output_dir: Path):
    """
    Write the release of the model in `folder` for the repository `repo_id`, with links to the code.

    Args:
        folder (`Path`):
            Folder of a trained and evaluated model.
        repo_id (`str`):
            The repository that the card speaks of.
        output_dir (`Path`):
            A new folder, that of an earlier release of the same model to the same repository, which is replaced as a
            whole, or `folder` itself, which is completed.

    Raises:
        `ValueError`: as [`stage_release`], or `output_dir` holds something else. Nothing is written then.
    """
    output_dir = output_dir.resolve()
    in_place = output_dir == folder.resolve()
    with tempfile.TemporaryDirectory() as temporary:
        staged = Path(temporary)
        stage_release(folder, repo_id, staged)
        claim_release(output_dir, staged, in_place)
        if in_place:
            for path in staged.glob("*.py"):
                link_code(output_dir / path.name, output_dir)
            for name in ("config.json", CARD_FILE):
                write_atomically(output_dir / name, (staged / name).read_text(encoding="utf-8"))
            return
        with replacing(output_dir) as new:
            for path in staged.iterdir():
                if path.suffix == ".py":
                    link_code(new / path.name, output_dir)
                else:
                    shutil.copyfile(path, new / path.name)


def link_code(path: Path, folder: Path):
    """
    Link to this project's file of the same name, as seen from `folder`.

    Code that a run left there stays, and what it lacks is copied beside it, so that the folder works anywhere.
    """
    if path.exists():
        return
    source = Path(modeling_looped_gpt2.__file__).with_name(path.name)
    if any(not other.is_symlink() for other in folder.glob("*.py")):
        shutil.copyfile(source, path)
        return
    path.unlink(missing_ok=True)  # a link whose target has moved
    path.symlink_to(os.path.relpath(source, folder))


def load_checked(folder: Path) -> PreTrainedModel:
    """Load the model in `folder`; raises `ValueError` when it is not whole or was not the one evaluated."""
    model = load_model(folder, dtype="auto")
    recorded = read_metrics(folder / "metrics.json")["settings"].get("weights_sha256")
    if recorded != weights_digest(model):
        raise ValueError(
            f"metrics.json in {folder} was measured on other weights than model.safetensors holds (`weights_sha256`): "
            "run scripts/evaluate.py again."
        )
    return model


def check_repo_id(repo_id: str):
    """Raise `ValueError` unless `repo_id` can be the name of a Hub repository with its owner."""
    validate_repo_id(repo_id)
    if "/" not in repo_id:
        raise ValueError(f"`repo_id` must be ORG/NAME, got {repo_id!r}.")
