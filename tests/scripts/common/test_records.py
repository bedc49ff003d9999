"""A record is read whole and of the right shape, or refused in one line that names its file."""

import multiprocessing

import pytest

from scripts.common import records
from scripts.common.records import (
    RecordError,
    read_json,
    read_json_lines,
    read_recipe,
    read_yaml,
    write_atomically,
)


DAMAGED = [b"", b"\xff\xfe\x00", b"{", b"[]", b"null", b"3", b'"text"', b"{" * 3_000, b"a: [", b"\x00"]


@pytest.mark.parametrize("read", [read_json, read_yaml, read_recipe])
@pytest.mark.parametrize("content", DAMAGED)
def test_a_damaged_record_is_refused_by_name(read, content, tmp_path):
    path = tmp_path / "record"
    path.write_bytes(content)
    with pytest.raises(RecordError, match=str(path)) as refused:
        read(path)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("read", [read_yaml, read_recipe])
def test_a_name_given_twice_is_refused(read, tmp_path):
    path = tmp_path / "record.yaml"
    path.write_text("seed: 1\ntask: a\nseed: 1\n")
    with pytest.raises(RecordError, match=r"record\.yaml .*`seed` is given 2 times"):
        read(path)


def test_a_recipe_is_read_as_it_is_written(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("a: no\nb: 1e-3\nc: 007\nd: 2024-01-01\ne: null\nf:\ng: ~\nh: 'null'\ni: ''\n1: 2\n")
    values = {"a": "no", "b": "1e-3", "c": "007", "d": "2024-01-01", "e": None, "f": None, "g": None}
    assert read_recipe(path) == values | {"h": "null", "i": "", "1": "2"}


def test_a_missing_record_and_a_folder_in_its_place_are_refused(tmp_path):
    for path in (tmp_path / "none.json", tmp_path):
        with pytest.raises(RecordError, match=str(path)):
            read_json(path)


def test_a_folder_is_said_to_be_one(tmp_path):
    with pytest.raises(RecordError, match="is a folder: give the file in it"):
        read_json(tmp_path)


def test_a_damaged_line_is_named(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n')
    assert read_json_lines(path) == [{"step": 1}, {"step": 2}]
    path.write_text('{"step": 1}\n{"step"')
    with pytest.raises(RecordError, match="line 2"):
        read_json_lines(path)
    assert read_json_lines(path, may_end_early=True) == [{"step": 1}]
    path.write_text('{"step"\n{"step": 1}')
    with pytest.raises(RecordError, match="line 1"):
        read_json_lines(path, may_end_early=True)


def write_often(path, text):
    for _ in range(200):
        write_atomically(path, text)


def test_two_writers_of_one_file_leave_one_of_their_contents(tmp_path):
    path = tmp_path / "record"
    texts = ["a" * 10_000, "b" * 20_000]
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=write_often, args=(path, text)) for text in texts]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    assert path.read_text() in texts
    assert [entry.name for entry in tmp_path.iterdir()] == ["record"]


def test_a_failed_write_leaves_the_old_content_alone(tmp_path):
    path = tmp_path / "record"
    write_atomically(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_atomically(path, "new \ud800")
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["record"]


@pytest.mark.parametrize("content", [*DAMAGED, b"{}", b"[1]", b'[{}, "text"]'])
def test_a_list_of_records_is_read_whole_or_refused(content, tmp_path):
    path = tmp_path / "stages.json"
    path.write_text('[{"flops": 1}]')
    assert records.read_json_list(path) == [{"flops": 1}]
    path.write_bytes(content)
    if content == b"[]":
        assert records.read_json_list(path) == []
        return
    with pytest.raises(RecordError, match=str(path)) as refused:
        records.read_json_list(path)
    assert "\n" not in str(refused.value)
