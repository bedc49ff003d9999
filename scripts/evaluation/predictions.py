"""What a model predicts: at every point, by loop, and at queries that are not the next point."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from transformers.utils import cached_file

from scripts.common.model_loading import weights_digest
from scripts.common.records import RECIPE_FILE, RecordError, read_yaml
from tasks.prediction_cache import code_digest


def recipe_of(name: str, revision: str | None = None) -> dict[str, Any]:
    """
    The recipe that lies beside a model, that of its training; empty where there is none.

    Raises:
        [`RecordError`]: it is damaged.
    """
    try:
        path = Path(cached_file(name, RECIPE_FILE, revision=revision))
    except OSError:
        return {}
    recipe = read_yaml(path)
    task, n_points = recipe.get("task"), recipe.get("n_points")
    if not isinstance(task, str | None):
        raise RecordError(f"`task` in {path} must be a name, got {task!r}.")
    if n_points is not None and (type(n_points) is not int or n_points < 1):
        raise RecordError(f"`n_points` in {path} must be an integer >= 1, got {n_points!r}.")
    return recipe


def describe(model: torch.nn.Module) -> list[Any]:
    """All that a model's predictions depend on besides the prompts, as `json` can write it."""
    settings = model.config.to_dict() | {"attention": model.config._attn_implementation}
    code = [code_digest(type(model)), transformers.__version__]
    return [weights_digest(model), settings, code, str(model.device)]


@torch.inference_mode()
def predict_points(
    model: torch.nn.Module, prompts: dict[str, torch.Tensor], n_loops: int, batch_size: int
) -> np.ndarray:
    """Predictions `(n_prompts, n_points)` after `n_loops` loops."""
    batches = zip(prompts["xs"].split(batch_size), prompts["ys"].split(batch_size), strict=True)
    predictions = [
        model(xs.to(model.device), ys.to(model.device), n_loops=n_loops).predictions.cpu() for xs, ys in batches
    ]
    return torch.cat(predictions).numpy()


@torch.inference_mode()
def predict_by_loop(
    model: torch.nn.Module, prompts: dict[str, torch.Tensor], n_loops: int, batch_size: int
) -> np.ndarray:
    """Predictions `(n_prompts, n_loops, n_points)` after every one of `n_loops` loops."""
    predictions = []
    for start in range(0, len(prompts["xs"]), batch_size):
        xs, ys = (prompts[name][start : start + batch_size].to(model.device) for name in ("xs", "ys"))
        predictions.append(model(xs, ys, n_loops=n_loops, output_loop_predictions=True).loop_predictions.cpu())
    return torch.cat(predictions).numpy()


@torch.inference_mode()
def predict_at_queries(
    model: torch.nn.Module, prompts: dict[str, torch.Tensor], n_loops: int, batch_size: int
) -> np.ndarray:
    """
    Predictions `(n_prompts, n_points)`, each asked at `prompts["queries"]` after the points before it.

    All queries go behind the prompt at once: each takes the position of the x whose place it has and attends to the
    examples before it and to itself, which is what it would see alone at the end of a shorter prompt.
    """
    n_points = prompts["xs"].shape[1]
    example = torch.arange(n_points, device=model.device)
    context = example.repeat_interleave(2)[:-1]  # whose token it is: x_0 y_0 x_1 y_1 ... x_last
    position = torch.cat((torch.arange(len(context), device=model.device), 2 * example))
    before = torch.arange(len(context), device=model.device) < 2 * example.unsqueeze(1)
    visible = torch.zeros(len(position), len(position), dtype=torch.bool, device=model.device)
    visible[: len(context), : len(context)] = torch.ones_like(visible[: len(context), : len(context)]).tril()
    visible[len(context) :, : len(context)] = before
    visible[len(context) :, len(context) :] = torch.eye(n_points, dtype=torch.bool, device=model.device)
    mask = torch.zeros(visible.shape, device=model.device).masked_fill(~visible, torch.finfo(torch.float32).min)

    predictions = []
    for start in range(0, len(prompts["xs"]), batch_size):
        batch = {name: values[start : start + batch_size].to(model.device) for name, values in prompts.items()}
        ys = torch.nn.functional.pad(batch["ys"].unsqueeze(2), (0, batch["xs"].shape[2] - 1))
        tokens = torch.stack((batch["xs"], ys), dim=2).flatten(1, 2)[:, :-1]
        embeds = model.read_in(torch.cat((tokens, batch["queries"]), dim=1))
        state = model.transformer(
            inputs_embeds=embeds,
            attention_mask=mask.expand(len(embeds), 1, -1, -1),
            position_ids=position.unsqueeze(0),
            use_cache=False,
            n_loops=n_loops,
        ).last_hidden_state
        predictions.append(model.read_out(state[:, -n_points:]).squeeze(2).cpu())
    return torch.cat(predictions).numpy()
