"""Write the folder of a model's release: its content for the Hub, or with links to the code in a clone."""

import os
import shutil
import tempfile
from pathlib import Path

from transformers import Pipeline, PreTrainedModel

import modeling_looped_gpt2
from modeling_looped_gpt2 import LoopedGPT2ForInContextRegression
from modeling_looped_gpt2.pipeline_looped_gpt2 import InContextRegressionPipeline
from modeling_looped_gpt2.table_pipeline_looped_gpt2 import InContextTablePipeline
from scripts.common.model_loading import load_model, weights_digest
from scripts.common.records import write_atomically
from scripts.release.card import render_card
from scripts.release.files import CARD_FILE, claim_release, release_files, replacing
from scripts.release.record import read_record
from tasks import Task


def stage_release(folder: Path, repo_id: str, output_dir: Path):
    """
    Write all files of the repository for the model in `folder`, with the model's code.

    Args:
        folder (`Path`):
            Folder of a trained and evaluated model.
        repo_id (`str`):
            The repository that the card names.
        output_dir (`Path`):
            An empty folder.

    Raises:
        `ValueError`: a record is missing, damaged or was measured on other weights. Nothing is written then.
    """
    card = render_card(folder, repo_id)
    model = load_checked(folder)
    with_pipeline(model, read_record(folder).task).save_pretrained(output_dir)
    for name in release_files(folder):
        if not (output_dir / name).exists():  # configuration and weights are written by the model itself
            shutil.copyfile(folder / name, output_dir / name)
    (output_dir / CARD_FILE).write_text(card, encoding="utf-8")


def write_content(folder: Path, repo_id: str, output_dir: Path) -> list[str]:
    """
    Write the files of [`stage_release`] into a new or empty folder; returns their names.

    Raises:
        `ValueError`: as there, or `output_dir` holds something. Nothing is written then.
    """
    if output_dir.exists() and any(output_dir.iterdir()):
        raise ValueError(f"`--dry_run` {output_dir} must be a new or empty folder.")
    with tempfile.TemporaryDirectory() as staging:
        stage_release(folder, repo_id, Path(staging))
        with replacing(output_dir.resolve()) as new:
            for path in Path(staging).iterdir():
                shutil.copyfile(path, new / path.name)
    return sorted(path.name for path in output_dir.iterdir())


def write_release(folder: Path, repo_id: str, output_dir: Path):
    """
    Write the release of the model in `folder` for the repository `repo_id`, with links to the code.

    Args:
        folder (`Path`):
            Folder of a trained and evaluated model.
        repo_id (`str`):
            The repository that the card names.
        output_dir (`Path`):
            A new folder; that of an earlier release of the same model to the same repository, which is replaced as a
            whole; or `folder` itself, which gets the files that it lacks.

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
    Make `path` a link, relative to `folder`, to this project's file of the same name.

    A file that is there already stays. Where `folder` holds code that is not linked, the file is copied instead, so
    that the folder works anywhere.
    """
    if path.exists():
        return
    source = Path(modeling_looped_gpt2.__file__).with_name(path.name)
    if any(not other.is_symlink() for other in folder.glob("*.py")):
        shutil.copyfile(source, path)
        return
    path.unlink(missing_ok=True)  # a link whose target is gone
    path.symlink_to(os.path.relpath(source, folder))


def with_pipeline(model: PreTrainedModel, task: Task) -> PreTrainedModel | Pipeline:
    """The model in the pipeline that it is saved with, or the model itself where there is none for it."""
    if task.has_queries:
        return InContextTablePipeline(model)
    if isinstance(model, LoopedGPT2ForInContextRegression) and model.config.n_outputs == 1:
        return InContextRegressionPipeline(model)
    return model


def load_checked(folder: Path) -> PreTrainedModel:
    """Load the model in `folder`; raises `ValueError` where it is incomplete or not the one that was evaluated."""
    record = read_record(folder)
    model = load_model(folder, record.objective.model_class)
    if record.metrics.settings.weights_sha256 != weights_digest(model):
        raise ValueError(
            f"metrics.json in {folder} was measured on other weights than model.safetensors holds (`weights_sha256`): "
            "run scripts/evaluate.py again."
        )
    return model
