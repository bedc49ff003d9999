"""A file of text or JSON lines, read piece by piece and checked while it is read."""

import hashlib
import io
import json
import lzma
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TextIO

import pyarrow


COMPRESSIONS = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd", ".xz": "xz"}
JSON_LINES = {".json", ".jsonl", ".ndjson", ".jsonlines", ".jl", ".ldjson"}
TABLES = {".csv", ".tsv", ".parquet", ".arrow", ".feather", ".orc", ".avro", ".xls", ".xlsx", ".ods"}
PIECE = 2**16  # characters of plain text that are tokenised as one string
# GPT-2's words begin with their blank: no word lies across the end of such a match
UP_TO_LAST_BLANK = re.compile(r".*\S(?=[ \t\r\n])", re.DOTALL)
SURROGATE = re.compile("[\ud800-\udfff]")  # half of a character, which JSON can write and UTF-8 cannot
CONVERT = "give UTF-8 (`iconv -t UTF-8` converts other encodings), plain or compressed as .gz, .bz2, .xz or .zst."


@dataclass(frozen=True)
class TextFile:
    """
    A file of plain text, which is one document, or of JSON lines, one document a row.

    It is UTF-8, with or without a byte order mark, and may be compressed (`.gz`, `.bz2`, `.xz`, `.zst`). Everything
    else stays as it is, the ends of lines too. The name alone tells which of the two it is, whatever its case: JSON
    lines are `.jsonl`, `.json`, `.ndjson`, `.jsonlines`, `.jl` and `.ldjson`.

    Args:
        path (`Path`):
            The file that has this very name: no pattern, no address.
        column (`str`):
            Field of the JSON lines that holds the text.

    Raises:
        `ValueError`: there is no such file, or it is a table by its name.
    """

    path: Path
    column: str

    def __post_init__(self):
        if not self.path.is_file():
            what = "is no regular file" if self.path.exists() else "does not exist"
            raise ValueError(f"{self.path} {what}: give a file of text or JSON lines.")
        if self._kind in TABLES:
            raise ValueError(
                f"{self.path} is a table: write its column of text as JSON lines, e.g. with pandas' "
                "`to_json('corpus.jsonl', orient='records', lines=True)`."
            )

    @property
    def has_rows(self) -> bool:
        """Whether it is JSON lines."""
        return self._kind in JSON_LINES

    @property
    def _compression(self) -> str | None:
        return COMPRESSIONS.get(self.path.suffix.lower())

    @property
    def _kind(self) -> str:
        path = self.path.with_suffix("") if self._compression else self.path
        return path.suffix.lower()

    def digest(self) -> str:
        """
        Return the sha256 of the text, the same wherever the file lies and however it is compressed.

        Reads the whole file, and so tells before any other work whether it is text.

        Raises:
            `ValueError`: it cannot be read, is not UTF-8, or is plain text by its name and JSON lines by its content.
        """
        digest = hashlib.sha256()
        with self._open() as stream:
            chunk = stream.read(PIECE)
            if not self.has_rows and isinstance(_parse(chunk.split("\n", 1)[0]), dict):
                raise ValueError(f"{self.path} begins with a JSON object: name JSON lines `.jsonl`.")
            while chunk:
                if "\0" in chunk:
                    raise ValueError(f"{self.path} holds NUL characters: {CONVERT}")
                digest.update(chunk.encode())
                chunk = stream.read(PIECE)
        return digest.hexdigest()

    def texts(self) -> Iterator[str | None]:
        """
        Return the documents of JSON lines, `None` for a row that holds no text, or the pieces of plain text.

        Raises:
            `ValueError`: it cannot be read, is not UTF-8, its first row is no JSON object or no row holds a text.
        """
        with self._open() as stream:
            yield from self._documents(stream) if self.has_rows else _pieces(stream)

    def _documents(self, stream: TextIO) -> Iterator[str | None]:
        fields, found = None, False
        for line in filter(str.strip, stream):
            row = _parse(line)
            if fields is None:
                if not isinstance(row, dict):
                    raise ValueError(
                        f"{self.path} must hold one JSON object a line, got {line.strip()[:40]!r} first: write one "
                        "document a line; `jq -c '.[]'` makes lines of an array."
                    )
                fields = list(row)
            text = row.get(self.column) if isinstance(row, dict) else None
            is_text = isinstance(text, str) and not SURROGATE.search(text)
            found = found or is_text
            yield text if is_text else None
        if fields is not None and not found:
            raise ValueError(
                f"`text_column` must be a field that holds text, and {self.column!r} holds none in {self.path}: "
                f"its first row has the fields {fields}."
            )

    @contextmanager
    def _open(self) -> Iterator[TextIO]:
        try:
            with self.path.open("rb") as file, _decompressed(file, self._compression) as content:
                yield io.TextIOWrapper(content, encoding="utf-8-sig", newline="\n")
        except UnicodeDecodeError as error:
            byte = error.object[error.start]
            raise ValueError(f"{self.path} is not UTF-8, it holds the byte 0x{byte:02x}: {CONVERT}") from None
        except (OSError, EOFError, lzma.LZMAError) as error:
            raise ValueError(f"{self.path} cannot be read: {error}.") from None


def _decompressed(file: BinaryIO, compression: str | None) -> BinaryIO:
    if compression == "xz":
        return lzma.LZMAFile(file)
    return pyarrow.input_stream(file, compression=compression) if compression else file


def _pieces(stream: TextIO) -> Iterator[str]:
    """The text cut where no word of a tokenizer lies, or anywhere where a whole piece holds no such place."""
    rest = ""
    while chunk := stream.read(PIECE):
        piece = rest + chunk
        head = UP_TO_LAST_BLANK.match(piece)
        end = head.end() if head else len(piece)
        yield piece[:end]
        rest = piece[end:]
    if rest:
        yield rest


def _parse(line: str) -> object:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):  # no JSON, or nested too deep to be a document
        return None
