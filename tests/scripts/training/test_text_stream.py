"""scripts/training/text_stream.py: no token of a text is lost, none comes twice, and batch i is always the same."""

import json
import random
import re
from collections import Counter
from itertools import chain, islice

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from scripts.training import text_stream
from scripts.training.text_file import TextFile
from scripts.training.text_stream import TextStream
from scripts.training.text_tokenizer import AS_TEXT, build_tokenizer


WORDS = st.sampled_from(
    ["a", "the cat", "Zwölf", "</s>", "<|endoftext|>", "don't", "2024", " ", "  ", "\n", "\r\n", "."]
)
LINES = st.lists(WORDS, max_size=12).map("".join)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("texts")
    (folder / "c.txt").write_text("the cat and the dog, don't they? The end, 2024.\n  Zwölf\n\n" * 9)
    return folder


@pytest.fixture(scope="module")
def tokenizers(folder):
    return [build_tokenizer(name, TextFile(folder / "c.txt", "text")) for name in ("bytes", "bpe:300")]


def write_plain(folder, lines):
    path = folder / "plain.txt"
    path.write_bytes("\n".join(lines).encode())
    return path


def write_rows(folder, lines):
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps({"text": line}) + "\n" for line in lines))
    return path


def tokens_of(tokenizer, lines, has_rows):
    if not has_rows:
        return tokenizer("\n".join(lines), **AS_TEXT)["input_ids"]
    ends = [tokenizer.eos_token_id]
    return [token for line in lines for token in tokenizer(line, **AS_TEXT)["input_ids"] + ends]


@settings(max_examples=150, deadline=None, database=None)
@given(
    lines=st.lists(LINES, min_size=1, max_size=30),
    has_rows=st.booleans(),
    n_tokens=st.integers(1, 40),
    piece=st.integers(1, 200),
    batch=st.integers(1, 300),
    buffer=st.integers(1, 8),
)
def test_blocks_are_the_tokens_of_the_whole_text(folder, tokenizers, lines, has_rows, n_tokens, piece, batch, buffer):
    # a word or a gap that is longer than a piece is cut somewhere
    assume(has_rows or all(len(run) < piece for run in re.findall(r"\s+|\S+", "\n".join(lines))))
    file = TextFile((write_rows if has_rows else write_plain)(folder, lines), "text")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("scripts.training.text_file.PIECE", piece)
        patch.setattr(text_stream, "BATCH", batch)
        patch.setattr(text_stream, "SHUFFLE_BUFFER", buffer)
        for tokenizer in tokenizers:
            tokens = tokens_of(tokenizer, lines, has_rows)
            if len(tokens) < n_tokens:
                message = f"must hold at least {n_tokens} tokens, one block of `n_positions`, got {len(tokens)}:"
                with pytest.raises(ValueError, match=message):
                    TextStream(file, tokenizer, n_tokens, 1, seed=0).check()
                continue
            in_order = list(TextStream(file, tokenizer, n_tokens, 1, seed=None).blocks())
            assert list(chain.from_iterable(in_order)) == tokens[: len(tokens) // n_tokens * n_tokens]
            assert all(len(block) == n_tokens for block in in_order)
            for epoch in range(2):
                shuffled = TextStream(file, tokenizer, n_tokens, 1, seed=3).blocks(epoch)
                assert Counter(map(tuple, shuffled)) == Counter(map(tuple, in_order))


@pytest.mark.parametrize("n_tokens", [1024, 2048, 200_000])
def test_many_short_lines_are_kept(tmp_path, n_tokens):
    (tmp_path / "c.txt").write_text("a\n" * 100_000)
    stream = TextStream(TextFile(tmp_path / "c.txt", "text"), build_tokenizer("bytes", None), n_tokens, 4, seed=0)
    assert sum(map(len, stream.blocks())) == 200_000 // n_tokens * n_tokens


@pytest.fixture
def stream(tmp_path, tokenizers):
    rows = [json.dumps({"text": f"number {n} " * (n % 7)} if n % 5 else {"text": None}) for n in range(300)]
    (tmp_path / "c.jsonl").write_text("\n".join(rows))

    def make(seed=1):
        return TextStream(TextFile(tmp_path / "c.jsonl", "text"), tokenizers[1], n_tokens=64, batch_size=6, seed=seed)

    return make


def batches(stream, *place):
    loader = DataLoader(stream.iterable(*place), batch_size=None)
    return [batch["input_ids"] for batch in islice(loader, 60)]


def test_a_batch_is_the_same_from_any_start_and_for_any_number_of_processes(stream):
    whole = batches(stream())
    assert len(list(stream().blocks())) < 60 * 6  # several passes
    for start in (1, 17, 59):
        later = batches(stream(), start)
        assert all(torch.equal(a, b) for a, b in zip(whole[start:], later, strict=False))
    for world_size in (2, 3, 6):
        parts = zip(*(batches(stream(), 0, rank, world_size) for rank in range(world_size)), strict=True)
        assert all(torch.equal(torch.cat(part), batch) for part, batch in zip(parts, whole, strict=True))


def test_passes_and_seeds_differ_in_order(stream):
    orders = [list(stream(seed).blocks(epoch)) for seed in (1, 2) for epoch in (0, 1)]
    assert all(orders[a] != orders[b] for a in range(4) for b in range(a))
    assert orders[0] == list(stream(1).blocks(0))


def test_blocks_mix_beyond_their_neighbours_though_few_are_held(tmp_path, monkeypatch):
    monkeypatch.setattr(text_stream, "SHUFFLE_BUFFER", 50)
    (tmp_path / "c.txt").write_bytes(bytes(random.Random(0).choices(range(97, 123), k=8 * 400)))
    made = {"tokenizer": build_tokenizer("bytes", None), "n_tokens": 8, "batch_size": 1}
    file = TextFile(tmp_path / "c.txt", "text")
    in_order = list(TextStream(file, **made, seed=None).blocks())
    places = [in_order.index(block) for block in TextStream(file, **made, seed=0).blocks()]
    assert sum(abs(place - index) > 5 for index, place in enumerate(places)) > 200


def test_rows_without_text_are_left_out_and_counted_once(stream):
    made = stream()
    batches(made)
    assert made.rows_without_text == 60


def test_documents_need_an_end(tmp_path, tokenizers):
    (tmp_path / "c.jsonl").write_text('{"text": "a"}')
    tokenizer = build_tokenizer("bytes", None)
    tokenizer.eos_token = None
    with pytest.raises(ValueError, match="`tokenizer` must have an end-of-sequence token"):
        TextStream(TextFile(tmp_path / "c.jsonl", "text"), tokenizer, 4, 1, seed=0)
