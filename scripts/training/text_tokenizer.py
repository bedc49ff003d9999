"""The tokenizer of a language model: made here or loaded, and never one that makes control tokens of text."""

from pathlib import Path

from transformers import AutoTokenizer, ByT5Tokenizer, GPT2Tokenizer, PreTrainedConfig, PreTrainedTokenizerBase

from modeling_looped_gpt2 import LoopedGPT2Config
from scripts.common.model_loading import check_name
from scripts.training.text_file import TextFile


AS_TEXT = {"add_special_tokens": False, "split_special_tokens": True}  # of a call: what is written stays text


def build_tokenizer(name: str, file: TextFile) -> PreTrainedTokenizerBase:
    """
    Make or load a tokenizer.

    Args:
        name (`str`):
            `"bytes"`; `"bpe:N"`, GPT-2's kind with N tokens, trained on `file`; or a folder or Hub repository.

    Raises:
        `ValueError`: there is no such tokenizer.
    """
    if name == "bytes":
        return ByT5Tokenizer(extra_ids=0, split_special_tokens=True)
    kind, _, size = name.partition(":")
    if kind != "bpe":
        return load_tokenizer(name)
    if not size.isdecimal() or not 257 <= int(size) < 2**31:
        raise ValueError(f"`tokenizer` must be bytes, bpe:N with N >= 257, a folder or a repository, got {name!r}.")
    texts = filter(None, file.texts())
    return GPT2Tokenizer(split_special_tokens=True).train_new_from_iterator(texts, vocab_size=int(size))


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """
    Load the tokenizer of a folder or Hub repository.

    Raises:
        `ValueError`: there is none, it has no vocabulary, or it makes control tokens of text.
    """
    try:
        if not Path(name).exists() and Path(name).parts != (name,):  # a repository such as gpt2 has no owner
            check_name(name)
        content, _ = PreTrainedConfig.get_config_dict(name)
        # a looped model has a stock tokenizer: the code that its folder holds is not asked for
        config = LoopedGPT2Config() if content.get("model_type") == LoopedGPT2Config.model_type else None
        tokenizer = AutoTokenizer.from_pretrained(name, config=config, trust_remote_code=False)
        reads = bool(tokenizer("text", **AS_TEXT)["input_ids"])
    except Exception as error:  # transformers and tokenizers raise any kind where files are missing or damaged
        raise ValueError(f"`tokenizer` {name} cannot be loaded: {' '.join(str(error).split())}") from None
    if not reads:
        raise ValueError(f"`tokenizer` {name} has no vocabulary: name another one.")
    control = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id} | {tokenizer.eos_token_id}
    for token in tokenizer.all_special_tokens:
        if control.intersection(tokenizer(f"a {token} a", **AS_TEXT)["input_ids"]):
            raise ValueError(f"`tokenizer` {name} makes a control token of {token} in a text: name another one.")
    return tokenizer
