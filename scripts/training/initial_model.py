"""The weights that a run on prompts starts from, those of another model."""

from dataclasses import fields

import torch
from transformers import PreTrainedConfig, PreTrainedModel

from modeling_looped_gpt2 import LoopedGPT2Config
from scripts.common.model_loading import ModelError, load_model
from scripts.training.run_folder import RunError


# fields of a configuration, by their endings, in which a model and the one it starts from may differ
FREE = (
    "n_loops",
    "solver",
    "solver_steps",
    "n_positions",
    "n_quantiles",
    "_range",
    "_pdrop",
    "_token_id",
    "use_cache",
)
COMMON = {item.name for item in fields(PreTrainedConfig)}
SHARED_FIELDS = [
    *(item.name for item in fields(LoopedGPT2Config) if item.name not in COMMON and not item.name.endswith(FREE)),
    "num_labels",
]


def initial_weights(
    name: str, config: LoopedGPT2Config, model_class: type[PreTrainedModel]
) -> dict[str, torch.Tensor]:
    """
    The weights of the model `name`, a folder or Hub repository, for a `model_class` of `config`.

    Positions that it lacks repeat its last x and y: a model of 41 points then still solves prompts of 101, if worse.
    A model of quantiles may start from one without: each quantile is at first what that one predicts.

    Raises:
        `RunError`: there is no such model, or one that computes something else.
    """
    try:
        model = load_model(name, model_class)
    except ModelError as error:
        raise RunError(f"`initial_model` cannot be the start of this run: {error}") from None
    own = model.config
    differing = [field for field in SHARED_FIELDS if getattr(own, field) != getattr(config, field)]
    if own.n_positions > config.n_positions:
        differing.append("n_positions")
    if own.n_quantiles not in (0, config.n_quantiles):
        differing.append("n_quantiles")
    if differing:
        pairs = "; ".join(f"`{field}` {getattr(own, field)} -> {getattr(config, field)}" for field in differing)
        raise RunError(f"`initial_model` {name} cannot be the start of this run: it differs ({pairs}).")
    weights = model.state_dict()
    positions = weights.get("transformer.wpe.weight")
    missing = config.n_positions - own.n_positions
    if missing > 0 and positions is not None:
        # an even number of positions ends with that of a y that no prediction needs, so it was never trained
        tail = positions[-3:-1].repeat(missing // 2 + 1, 1)[: missing + 1]
        weights["transformer.wpe.weight"] = torch.cat((positions[:-1], tail))
    if config.n_quantiles > own.n_quantiles:
        read_out = {name: value for name, value in weights.items() if name.startswith("read_out.")}
        weights |= {name: value.repeat_interleave(config.n_quantiles, dim=0) for name, value in read_out.items()}
    return weights
