"""The tokens of a text as an endless stream of blocks, read piece by piece: nothing is held whole."""

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain, count, islice

import torch
from torch.utils.data import IterableDataset
from transformers import PreTrainedTokenizerBase

from scripts.training.text_file import TextFile
from scripts.training.text_tokenizer import AS_TEXT


BATCH = 2**18  # characters that are tokenised in one call
SHUFFLE_BUFFER = 1000  # blocks


@dataclass
class TextStream:
    """
    Batches of blocks of `n_tokens` tokens; batch i depends on the text, the settings, the seed and i alone.

    The blocks of a pass are the tokens of the whole file cut every `n_tokens`, without the rest at its end. What is
    written in the text is text: no token with a meaning for the model comes out of it, but for the end-of-sequence
    token that is put after every document of JSON lines.

    Args:
        file ([`TextFile`]):
            The text.
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]):
            Turns it into tokens.
        n_tokens (`int`), batch_size (`int`):
            Size of a block and of a batch over all processes, >= 1.
        seed (`int`):
            Seed of the order of the blocks; `None` reads them as they stand in the file.
    """

    file: TextFile
    tokenizer: PreTrainedTokenizerBase
    n_tokens: int
    batch_size: int
    seed: int | None
    rows_without_text: int = field(default=0, init=False)  # that were read so far and left out

    def __post_init__(self):
        if self.file.has_rows and self.tokenizer.eos_token_id is None:
            raise ValueError("`tokenizer` must have an end-of-sequence token to put after documents, got one without.")

    def check(self):
        """Raise `ValueError` unless the beginning of the file makes one block."""
        next(self._blocks_in_order())

    def blocks(self, epoch: int = 0) -> Iterator[list[int]]:
        """Blocks of one pass through the file; raises `ValueError` when it holds none."""
        blocks = self._blocks_in_order()
        return blocks if self.seed is None else _shuffled(blocks, random.Random(f"{self.seed} {epoch}"))

    def iterable(self, start: int = 0, rank: int = 0, world_size: int = 1) -> IterableDataset:
        """
        Return the batches from `start` on without end, to be read with `DataLoader(..., batch_size=None)`.

        Every process reads the whole stream and keeps its rows, so a batch is the same for any number of processes;
        a start in the middle reads all that lies before it.
        """
        return _Batches(self, start, rank, world_size)

    def _blocks_in_order(self) -> Iterator[list[int]]:
        tokens = chain.from_iterable(self._tokens())
        block, n_blocks = list(islice(tokens, self.n_tokens)), 0
        while len(block) == self.n_tokens:
            yield block
            block, n_blocks = list(islice(tokens, self.n_tokens)), n_blocks + 1
        if not n_blocks:
            raise ValueError(
                f"{self.file.path} must hold at least {self.n_tokens} tokens, one block of `n_positions`, got "
                f"{len(block)}: give more text or fewer positions."
            )

    def _tokens(self) -> Iterator[list[int]]:
        settings = AS_TEXT | {"return_attention_mask": False, "verbose": False}
        end = [self.tokenizer.eos_token_id] if self.file.has_rows else []
        for texts in _batched(self._texts()):
            for ids in self.tokenizer(texts, **settings)["input_ids"]:
                yield ids + end

    def _texts(self) -> Iterator[str]:
        left_out = 0
        for text in self.file.texts():
            if text is None:
                left_out += 1
                self.rows_without_text = max(self.rows_without_text, left_out)  # later passes meet the same rows
            else:
                yield text


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


def _batched(texts: Iterable[str]) -> Iterator[list[str]]:
    batch, size = [], 0
    for text in texts:
        batch.append(text)
        size += len(text) + 1
        if size >= BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _shuffled(blocks: Iterable[list[int]], generator: random.Random) -> Iterator[list[int]]:
    buffer = []
    for block in blocks:
        if len(buffer) < SHUFFLE_BUFFER:
            buffer.append(block)
        else:
            place = generator.randrange(SHUFFLE_BUFFER)
            buffer[place], block = block, buffer[place]
            yield block
    generator.shuffle(buffer)
    yield from buffer
