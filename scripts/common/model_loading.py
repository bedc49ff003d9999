"""Load a trained model from a folder or the Hub; refuse one that is incomplete or of another class."""

import argparse
import hashlib
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub.errors import HFValidationError, StrictDataclassError
from safetensors import SafetensorError
from transformers import PreTrainedModel

from modeling_looped_gpt2 import LoopedGPT2Config, LoopedGPT2ForInContextRegression
from scripts.common.devices import fastest_attention


OWN_FOLDERS = ("runs", "model_cards")  # where this project's commands write: not taken for an owner on the Hub
# what transformers raises where files are missing, damaged, or of another model
LOADING_ERRORS = (OSError, ValueError, RuntimeError, LookupError, TypeError, AttributeError)
LOADING_ERRORS += (SafetensorError, StrictDataclassError, HFValidationError)


class ModelError(ValueError):
    """A model cannot be loaded; the message says which and why."""


def load_model(
    name: str | Path,
    model_class: type[PreTrainedModel] = LoopedGPT2ForInContextRegression,
    auto_class: str = "AutoModel",
    revision: str | None = None,
    trust_remote_code: bool = False,
    **settings: Any,
) -> PreTrainedModel:
    """
    Load a model of this project in float32 for evaluation, by the project's own classes.

    Args:
        name (`str` or `Path`):
            A folder, or a repository of the Hub. The Hub is not asked where only a folder can be meant.
        model_class (`type`, defaults to [`LoopedGPT2ForInContextRegression`]):
            The class that the model must have.
        auto_class (`str`, defaults to `"AutoModel"`):
            The class of transformers that loads it with the code beside the weights.
        revision (`str`, *optional*):
            Branch, tag or commit of a repository; a folder has none.
        trust_remote_code (`bool`, defaults to `False`):
            Run the code that lies beside the weights instead of the project's.
        settings:
            Further arguments of `from_pretrained`, e.g. `attn_implementation`.

    Raises:
        [`ModelError`]: there is no such model, it is of another class, or weights of it are missing, too many, of
            other sizes or not finite.
    """
    check_name(name)
    if revision and Path(name).is_dir():
        raise ModelError(f"`revision` is of a repository of the Hub, and {name} is a folder: leave it out.")
    transformers.logging.disable_progress_bar()
    source = {"revision": revision} if revision else {}
    # mismatched sizes are reported below, in one line instead of a table
    settings |= {"dtype": torch.float32, "output_loading_info": True, "ignore_mismatched_sizes": True} | source
    errors = (Exception,) if trust_remote_code else LOADING_ERRORS  # code of others may raise anything
    try:
        content, _ = LoopedGPT2Config.get_config_dict(name, **source)
        check_architecture(name, content, model_class)
        if trust_remote_code:
            model, report = getattr(transformers, auto_class).from_pretrained(name, trust_remote_code=True, **settings)
        else:
            model, report = model_class.from_pretrained(name, **settings)
    except ModelError:
        raise
    except errors as error:
        cause = " ".join(str(error.__cause__ or error).split())
        raise ModelError(f"{name} cannot be loaded as a {model_class.__name__}: {cause}") from None
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if report[kind]:
            names = ", ".join(sorted(map(str, report[kind]))[:3])
            raise ModelError(
                f"the weights in {name} are not those of its config.json: {kind.replace('_', ' ')} {names}."
            )
    if not all(weight.isfinite().all() for weight in model.state_dict().values()):
        raise ModelError(f"the weights in {name} must be finite, got NaN or infinity: its training has diverged.")
    return model.eval()


def add_model_arguments(parser: argparse.ArgumentParser, required: bool = True):
    """Add `--model`, `--revision` and `--trust_remote_code` to a program that measures a model."""
    parser.add_argument("--model", required=required, help="Folder or Hub repository of the model.")
    parser.add_argument("--revision", help="Branch, tag or commit of the repository. Default: main.")
    parser.add_argument(
        "--trust_remote_code",
        action="store_true",
        help="Run the code that lies beside the weights. Default: the classes of this project.",
    )


def load_chosen(
    arguments: argparse.Namespace,
    device: torch.device,
    model_class: type[PreTrainedModel] = LoopedGPT2ForInContextRegression,
    auto_class: str = "AutoModel",
) -> PreTrainedModel:
    """Load the model that the flags of [`add_model_arguments`] name onto the device; raises as [`load_model`]."""
    model = load_model(
        arguments.model,
        model_class,
        auto_class,
        revision=arguments.revision,
        trust_remote_code=arguments.trust_remote_code,
        attn_implementation=fastest_attention(device),
    )
    return model.to(device)


def check_name(name: str | Path):
    """Raise [`ModelError`] unless `name` is the folder of a model or can be the name of a repository."""
    path = Path(name)
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ModelError(f"{name} holds no config.json: give the folder of a finished run, or of a saved model.")
        return
    if path.exists():
        raise ModelError(f"{name} is a file: give the folder that it lies in.")
    is_path = str(name).startswith((".", "~")) or path.is_absolute() or len(path.parts) != 2
    if is_path or path.parent.is_dir() or path.parts[0] in OWN_FOLDERS:
        raise ModelError(f"there is no folder {name}; a repository of the Hub is named owner/model.")


def check_architecture(name: str | Path, content: dict[str, Any], model_class: type[PreTrainedModel]):
    """Raise [`ModelError`] unless `content`, that of the config.json of `name`, is for a `model_class`."""
    architectures = content.get("architectures") or [content.get("model_type")]
    if content.get("model_type") != LoopedGPT2Config.model_type or architectures != [model_class.__name__]:
        raise ModelError(f"{name} must hold a {model_class.__name__}, got {', '.join(map(str, architectures))}.")


def weights_digest(model: PreTrainedModel) -> str:
    """SHA-256 of a model's weights in float32: the same for equal weights, whatever file or device they came from."""
    # tied weights are in a file only once
    tied = model.all_tied_weights_keys
    return state_digest({name: weight for name, weight in model.state_dict().items() if name not in tied})


def state_digest(state: dict[str, torch.Tensor]) -> str:
    """As [`weights_digest`], from the weights by name."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(name.encode())
        digest.update(tensor.float().cpu().numpy().tobytes())
    return digest.hexdigest()
