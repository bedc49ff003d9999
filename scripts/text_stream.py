"""Text or JSON lines as an endless stream of token blocks, read through `datasets` without loading them whole."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain, count, islice
from pathlib import Path

import datasets
import torch
from torch.utils.data import IterableDataset
from transformers import AutoTokenizer, ByT5Tokenizer, GPT2Tokenizer, PreTrainedTokenizerBase


SHUFFLE_BUFFER = 1000  # blocks


@dataclass(frozen=True)
class TextStream:
    """
    Batches of blocks of `n_tokens` tokens; batch i depends on the file, the settings, the seed and i alone.

    Args:
        file (`Path`):
            Plain text, read as one document, or JSON lines (`.json`, `.jsonl`), one document a line.
        column (`str`):
            Field of the JSON lines that holds the text.
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]):
            Its end-of-sequence token is put after every document.
        n_tokens (`int`), batch_size (`int`):
            Size of a block and of a batch over all processes, >= 1.
        seed (`int`):
            Seed of the order of the blocks; `None` reads them as they stand in the file.
    """

    file: Path
    column: str
    tokenizer: PreTrainedTokenizerBase
    n_tokens: int
    batch_size: int
    seed: int | None

    def blocks(self, epoch: int = 0) -> Iterator[list[int]]:
        """Blocks of one pass through the file; raises `ValueError` when it holds none."""
        blocks = open_text(self.file, self.column).map(
            partial(_to_blocks, self), batched=True, remove_columns=["text"]
        )
        if self.seed is not None:
            blocks = blocks.shuffle(seed=self.seed, buffer_size=SHUFFLE_BUFFER)
            blocks.set_epoch(epoch)
        block = None
        for block in blocks:
            yield block["input_ids"]
        if block is None:
            raise ValueError(f"{self.file} must hold at least {self.n_tokens} tokens, the size of one block.")

    def iterable(self, start: int = 0, rank: int = 0, world_size: int = 1) -> IterableDataset:
        """
        Return the batches from `start` on without end, to be read with `DataLoader(..., batch_size=None)`.

        Every process reads the whole stream and keeps its rows, so a batch is the same for any number of processes;
        a start in the middle reads all that lies before it.
        """
        return _Batches(self, start, rank, world_size)


class _Batches(IterableDataset):
    def __init__(self, stream: TextStream, start: int, rank: int, world_size: int):
        self.stream, self.start = stream, start
        self.rows = slice(rank * stream.batch_size // world_size, (rank + 1) * stream.batch_size // world_size)

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        size = self.stream.batch_size
        blocks = islice(chain.from_iterable(map(self.stream.blocks, count())), self.start * size, None)
        while True:
            ids = torch.tensor(list(islice(blocks, size))[self.rows])
            yield {"input_ids": ids, "labels": ids}


def open_text(file: Path, column: str) -> datasets.IterableDataset:
    """Stream the documents of a file as a column `text`; raises `ValueError` where there is no such file or column."""
    if not file.is_file():
        raise ValueError(f"{file} must be a file of text or JSON lines, and there is none.")
    if file.suffix not in (".json", ".jsonl"):
        return datasets.load_dataset("text", data_files=str(file), split="train", streaming=True, keep_linebreaks=True)
    documents = datasets.load_dataset("json", data_files=str(file), split="train", streaming=True)
    columns = list(next(iter(documents), {}))
    if column not in columns:
        raise ValueError(f"`text_column` must be a field of {file}, one of {columns}, got {column!r}.")
    return documents.map(lambda document: {"text": document[column]}, remove_columns=columns)


def build_tokenizer(name: str, file: Path, column: str) -> PreTrainedTokenizerBase:
    """
    Make or load a tokenizer.

    Args:
        name (`str`):
            `"bytes"`; `"bpe:N"`, GPT-2's kind with N tokens, trained on `file`; or a folder or Hub repository.
    """
    if name == "bytes":
        return ByT5Tokenizer(extra_ids=0)
    kind, _, size = name.partition(":")
    if kind != "bpe":
        return AutoTokenizer.from_pretrained(name)
    if not size.isdecimal() or int(size) < 257:
        raise ValueError(f"`tokenizer` must be bytes, bpe:N with N >= 257, a folder or a repository, got {name!r}.")
    texts = (document["text"] for document in open_text(file, column))
    return GPT2Tokenizer().train_new_from_iterator(texts, vocab_size=int(size))


def _to_blocks(stream: TextStream, batch: dict[str, list[str]]) -> dict[str, list[list[int]]]:
    texts, tokenizer = batch["text"], stream.tokenizer
    if stream.file.suffix in (".json", ".jsonl"):
        texts = [text + tokenizer.eos_token for text in texts]
    # lines of one document, and documents with their end marked, are one string of tokens
    ids = list(chain.from_iterable(tokenizer(texts, add_special_tokens=False)["input_ids"]))
    starts = range(0, len(ids) - stream.n_tokens + 1, stream.n_tokens)
    return {"input_ids": [ids[start : start + stream.n_tokens] for start in starts]}
