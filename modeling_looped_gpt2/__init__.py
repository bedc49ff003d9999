"""The looped GPT-2 for transformers: configuration, backbone, language model and in-context heads."""

from importlib import import_module
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from .configuration_looped_gpt2 import LoopedGPT2Config as LoopedGPT2Config
    from .modeling_looped_gpt2 import LoopedGPT2Model as LoopedGPT2Model
    from .modeling_looped_gpt2 import LoopedGPT2PreTrainedModel as LoopedGPT2PreTrainedModel
    from .modeling_looped_gpt2_causal_lm import LoopedGPT2LMHeadModel as LoopedGPT2LMHeadModel
    from .modeling_looped_gpt2_classification import (
        LoopedGPT2ForInContextClassification as LoopedGPT2ForInContextClassification,
    )
    from .modeling_looped_gpt2_regression import LoopedGPT2ForInContextRegression as LoopedGPT2ForInContextRegression

__version__ = "0.13.0"

# class: (file, the auto class that finds it in a saved folder)
_CLASSES = {
    "LoopedGPT2Config": ("configuration_looped_gpt2", "AutoConfig"),
    "LoopedGPT2PreTrainedModel": ("modeling_looped_gpt2", None),
    "LoopedGPT2Model": ("modeling_looped_gpt2", "AutoModel"),
    "LoopedGPT2LMHeadModel": ("modeling_looped_gpt2_causal_lm", "AutoModelForCausalLM"),
    "LoopedGPT2ForInContextRegression": ("modeling_looped_gpt2_regression", "AutoModel"),
    "LoopedGPT2ForInContextClassification": ("modeling_looped_gpt2_classification", "AutoModel"),
}
__all__ = list(_CLASSES)


def __getattr__(name: str):
    """
    Import the model at the first use of a class: the GPT-2 of transformers takes seconds to import.

    `save_pretrained` then writes the model's code and the `auto_map` that finds it beside the weights, so every saved
    folder loads through `AutoModel.from_pretrained(folder, trust_remote_code=True)` where this package is not
    installed. The classes are not registered with `AutoModel` itself: it knows one model per configuration class, and
    here the checkpoint decides whether that is the backbone or a head.
    """
    if name not in _CLASSES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    for class_name, (file, auto_class) in _CLASSES.items():
        cls = globals()[class_name] = getattr(import_module(f".{file}", __name__), class_name)
        if auto_class:
            cls.register_for_auto_class(auto_class)
    return globals()[name]


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
