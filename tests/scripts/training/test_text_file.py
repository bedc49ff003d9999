"""scripts/training/text_file.py: the file that was named, read as what it is or refused in one line."""

import bz2
import gzip
import itertools
import json
import lzma
import os
import random
from pathlib import Path

import pyarrow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scripts.training import text_file
from scripts.training.text_file import TextFile


COMPRESS = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": lambda content: pyarrow.compress(content, codec="zstd", asbytes=True),
}


def texts(path, column="text"):
    file = TextFile(path, column)
    file.digest()
    return list(file.texts())


ODD_NAMES = ["a[1]/c.txt", "*.txt", "?.txt", "**/c.txt", "{a,b}.txt", "a b.txt", "~/c.txt", "-c.txt", "%20.txt"]
ODD_NAMES += ["zip::c.txt", "zip:/c.txt", "simplecache::file:/c.txt", "hf:/a/b.txt", "#.txt", "c.txt?x=1", "é\n.txt"]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_the_file_that_was_named_is_read(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for decoy in ("a1/c.txt", "a.txt", "b.txt", "c.txt", "a/b.txt", " .txt"):
        Path(decoy).parent.mkdir(exist_ok=True)
        Path(decoy).write_text("decoy")
    with pytest.raises(ValueError, match="does not exist: give a file of text"):
        TextFile(Path(name), "text")
    Path(name).parent.mkdir(exist_ok=True, parents=True)
    Path(name).write_text("named")
    assert texts(Path(name)) == ["named"]


def test_a_link_is_read_and_what_is_no_file_refused(tmp_path):
    (tmp_path / "c.txt").write_text("linked")
    (tmp_path / "link.txt").symlink_to("c.txt")
    (tmp_path / "broken.txt").symlink_to("nowhere.txt")
    os.mkfifo(tmp_path / "fifo.txt")
    assert texts(tmp_path / "link.txt") == ["linked"]
    for name, message in {
        "": "is no regular file",
        "fifo.txt": "is no regular file",
        "broken.txt": "not exist",
    }.items():
        with pytest.raises(ValueError, match=message):
            TextFile(tmp_path / name, "text")


@pytest.mark.parametrize("suffix", [*COMPRESS, ".GZ", ".Xz"])
@pytest.mark.parametrize("kind", [".jsonl", ".json", ".ndjson", ".jsonlines", ".jl", ".ldjson", ".JSONL"])
def test_json_lines_are_known_by_any_usual_name(kind, suffix, tmp_path):
    path = tmp_path / f"my.corpus{kind}{suffix}"
    rows = "".join(json.dumps({"id": 1, "text": text}) + "\n" for text in ("one", "zwei €", "2020-01-02"))
    path.write_bytes(COMPRESS[suffix.lower()](rows.encode()))
    assert texts(path) == ["one", "zwei €", "2020-01-02"]


@pytest.mark.parametrize("suffix", COMPRESS)
@pytest.mark.parametrize("name", ["c.txt", "c", "c.md", "json", "c.json.txt", "c.csv.bak"])
def test_everything_else_is_plain_text_as_it_stands(name, suffix, tmp_path):
    text = "\nTwo  lines\r\n\tand é\r, \x85 \u2028 \ufeff a {brace}\x1c\n\n"
    for mark in ("", "\ufeff"):
        compressed = COMPRESS[suffix]((mark + text).encode())
        (tmp_path / (name + suffix)).write_bytes(compressed)
        assert "".join(texts(tmp_path / (name + suffix))) == text


@pytest.mark.parametrize("suffix", [suffix for suffix in COMPRESS if suffix])
def test_what_was_compressed_in_parts_is_read_whole(suffix, tmp_path):
    path = tmp_path / f"c.txt{suffix}"
    path.write_bytes(b"".join(COMPRESS[suffix](part) for part in (b"one ", b"two ", b"three")))
    assert "".join(texts(path)) == "one two three"


ENGLISH = "A long text in plain English.\n" * 20
REFUSED = {
    **{f"c{kind}": (b"text\na,b\n", "is a table: write its column of text") for kind in sorted(text_file.TABLES)},
    "C.CSV": (b"text\na,b\n", "is a table"),
    "c.csv.gz": (gzip.compress(b"text\na,b\n"), "is a table"),
    "utf16.txt": (ENGLISH.encode("utf-16"), "is not UTF-8, it holds the byte 0xff: give UTF-8"),
    "utf16.jsonl": (json.dumps({"text": ENGLISH}).encode("utf-16"), "is not UTF-8"),
    "utf16_without_mark.txt": (ENGLISH.encode("utf-16-le"), "holds NUL characters: give UTF-8"),
    "utf32.txt": (ENGLISH.encode("utf-32"), "is not UTF-8"),
    "latin1.txt": ((ENGLISH * 9000 + "déjà vu").encode("latin-1"), "it holds the byte 0xe9"),
    "cut_in_a_character.txt": ("é".encode()[:1], "is not UTF-8"),
    "binary": (bytes(range(256)) * 9, "holds NUL characters|is not UTF-8"),
    "late_nul.txt": (ENGLISH.encode() * 9000 + b"\0", "holds NUL characters"),
    "compressed_by_content.txt": (gzip.compress(ENGLISH.encode()), "is not UTF-8"),
    "not_compressed.txt.gz": (ENGLISH.encode(), "cannot be read"),
    "not_compressed.txt.xz": (ENGLISH.encode(), "cannot be read"),
    **{
        f"cut.txt{suffix}": (compress(random.Random(0).randbytes(9999).hex().encode())[:-20], "cannot be read")
        for suffix, compress in COMPRESS.items()
        if suffix
    },
    "rows.txt": (b'{"text": "a"}\n{"text": "b"}\n', "begins with a JSON object: name JSON lines `.jsonl`"),
    "rows": (b'{"text": "a"}', "begins with a JSON object"),
    "array.json": (b'[{"text": "a"}, {"text": "b"}]', "must hold one JSON object a line, got .* first: .*jq -c"),
    "long_array.json": (b'[\n{"text": "a"},\n{"text": "b"}\n]', "must hold one JSON object a line, got '\\['"),
    "commas.jsonl": (b'{"text": "a"},\n{"text": "b"}\n', "must hold one JSON object a line"),
    "pretty.json": (b'{\n "text": "a"\n}\n', "must hold one JSON object a line, got '{'"),
    "plain.jsonl": (b"once upon a time\n", "must hold one JSON object a line, got 'once upon a time'"),
    "strings.jsonl": (b'"once"\n"upon"\n', "must hold one JSON object a line"),
    "deep.jsonl": (b"[" * 10**5 + b"]" * 10**5, "must hold one JSON object a line"),
    "nested.json": (
        b'{"data": [{"text": "a"}]}',
        r"`text_column` must be a field .* 'text' holds none in .* has the fields \['data'\]",
    ),
    "other_field.jsonl": (b'{"body": "a", "id": 1}\n' * 9, r"'text' holds none in .* has the fields \['body', 'id'\]"),
    "no_field.jsonl": (b"{}\n", r"'text' holds none in"),
    "numbers.jsonl": (b'{"text": 1}\n{"text": null}\n', r"'text' holds none in"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_text_is_refused_by_name(name, tmp_path):
    content, message = REFUSED[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message) as refused:
        texts(tmp_path / name)
    assert str(tmp_path / name) in str(refused.value)
    assert "\n" not in str(refused.value)


ROWS_WITHOUT_TEXT = ['{"text": null}', '{"text": 7}', '{"text": ["a"]}', '{"title": "a"}', "{}", "null", "3", '["a"]']
ROWS_WITHOUT_TEXT += [
    '{"text": "a',
    "text",
    '{"text": "\\ud83d"}',
    '{"text": true}',
    '{"text": {"text": "a"}}',
    "[" * 10**5,
]


def test_rows_without_text_are_told_from_texts(tmp_path):
    path, whole = tmp_path / "c.jsonl", '{"text": "2020-01-01T00:00:00"}'
    path.write_text("\n\n".join([whole, *ROWS_WITHOUT_TEXT, '{"text": ""}', ' {"text": "\\ud83d\\ude00"}\r', whole]))
    found = texts(path)
    assert found == ["2020-01-01T00:00:00", *[None] * len(ROWS_WITHOUT_TEXT), "", "😀", "2020-01-01T00:00:00"]


def test_the_digest_is_of_the_text_and_not_of_its_place(tmp_path):
    digests = set()
    for suffix, compress in COMPRESS.items():
        for name in ("a.txt", "b.md"):
            (tmp_path / (name + suffix)).write_bytes(compress(ENGLISH.encode()))
            digests.add(TextFile(tmp_path / (name + suffix), "text").digest())
    (tmp_path / "mark.txt").write_bytes(ENGLISH.encode("utf-8-sig"))
    digests.add(TextFile(tmp_path / "mark.txt", "text").digest())
    assert len(digests) == 1
    (tmp_path / "mark.txt").write_bytes(ENGLISH.encode() + b" ")
    assert TextFile(tmp_path / "mark.txt", "text").digest() not in digests


@settings(max_examples=100, deadline=None, database=None)
@given(text=st.text(st.sampled_from("ab. \n\t\r\u2028\x1c\x85é漢")), size=st.integers(1, 9))
def test_pieces_are_the_text_and_end_before_a_blank_where_they_can(tmp_path_factory, text, size):
    path = tmp_path_factory.getbasetemp() / "pieces.txt"
    path.write_bytes(text.encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_file, "PIECE", size)
        pieces = list(TextFile(path, "text").texts())
    assert "".join(pieces) == text
    assert all(len(piece) <= 2 * size for piece in pieces)
    for before, after in itertools.pairwise(pieces):
        between_words = not before[-1].isspace() and after[0] in " \t\r\n"
        assert between_words or not any(a.strip() and b in " \t\r\n" for a, b in itertools.pairwise(before))
