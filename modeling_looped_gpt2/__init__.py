"""The looped GPT-2 for transformers: configuration, backbone and in-context regression head."""

from .configuration_looped_gpt2 import LoopedGPT2Config
from .modeling_looped_gpt2 import (
    LoopedGPT2ForInContextRegression,
    LoopedGPT2Model,
    LoopedGPT2PreTrainedModel,
)
from .modeling_looped_gpt2_classification import LoopedGPT2ForInContextClassification


# `save_pretrained` writes the model's code and the `auto_map` that finds it beside the weights, so every saved folder
# loads through `AutoModel.from_pretrained(folder, trust_remote_code=True)` where this package is not installed. The
# classes are not registered with `AutoModel` itself: it keeps one model a configuration class, and here the checkpoint
# decides whether that is the backbone or a head.
LoopedGPT2Config.register_for_auto_class()
LoopedGPT2Model.register_for_auto_class("AutoModel")
LoopedGPT2ForInContextRegression.register_for_auto_class("AutoModel")
LoopedGPT2ForInContextClassification.register_for_auto_class("AutoModel")

__all__ = [
    "LoopedGPT2Config",
    "LoopedGPT2ForInContextClassification",
    "LoopedGPT2ForInContextRegression",
    "LoopedGPT2Model",
    "LoopedGPT2PreTrainedModel",
]
