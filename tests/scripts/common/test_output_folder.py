"""A folder is written to where nothing of another model or program would be lost."""

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from scripts.common.model_loading import weights_digest
from scripts.common.output_folder import OutputError, claim_beside, claim_own, make_folder


def listing(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def claim(folder, files=("picture.png",), **settings):
    return claim_own(folder, "record.json", settings, files)


def test_a_program_takes_new_and_empty_folders_and_its_own(tmp_path):
    for folder in (tmp_path / "a" / "b", tmp_path / "a" / "c"):
        assert claim(folder, n=1) == {"settings": {"n": 1}}
        assert claim(folder, n=1) == {"settings": {"n": 1}}
        (folder / "picture.png").write_text("drawn")
        (folder / "record.json").write_text('{"settings": {"n": 1, "threads": 2}, "results": 3}')
        before = listing(folder)
        assert claim(folder, n=1)["results"] == 3
        assert listing(folder) == before
    with pytest.raises(OutputError, match=r"other files \(b, c\)"):
        claim(tmp_path / "a", n=1)


def test_results_of_other_settings_stay(tmp_path):
    claim(tmp_path, n=1, sizes=(2, 3))
    claim(tmp_path, n=1, sizes=(2, 3))
    before = listing(tmp_path)
    for settings in ({"n": 2, "sizes": (2, 3)}, {"n": 1, "sizes": (2,)}, {"n": 1, "sizes": (2, 3), "new": True}):
        with pytest.raises(OutputError, match=r"results of other settings \("):
            claim(tmp_path, **settings)
    with pytest.raises(OutputError, match=r"\(recipe.a.steps 1 -> 2\)"):
        claim(tmp_path / "nested", recipe={"a": {"steps": 1}})
        claim(tmp_path / "nested", recipe={"a": {"steps": 2}})
    (tmp_path / "nested" / "record.json").unlink()
    (tmp_path / "nested").rmdir()
    for content in ("", "[]", '{"settings": 3}', "\x00", "{}"):
        (tmp_path / "record.json").write_text(content)
        with pytest.raises(OutputError, match="results of other settings"):
            claim(tmp_path, n=1)
        assert (tmp_path / "record.json").read_text() == content
    (tmp_path / "record.json").write_bytes(before[tmp_path / "record.json"])
    assert listing(tmp_path) == before


def test_files_that_might_be_of_somebody_else_are_not_taken(tmp_path):
    """A file of a name that the program writes is its own only where its record lies beside it."""
    (tmp_path / "picture.png").write_text("of somebody else")
    with pytest.raises(OutputError, match=r"other files \(picture.png\)"):
        claim(tmp_path, n=1)
    (tmp_path / "picture.png").unlink()
    (tmp_path / "record.json.0a1b.partial").write_text("of a killed program")
    claim(tmp_path, n=1)


def test_a_file_in_place_of_a_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("kept")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        for take in (claim, lambda path: claim_beside(path, "digest")):
            with pytest.raises(OutputError, match="output_dir"):
                take(folder)
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no folder here that nobody can write to")
def test_a_folder_that_cannot_be_written_to_is_refused():
    for path in (Path("/proc/self"), Path("/proc/none/below")):
        with pytest.raises(OutputError, match=r"`cache_dir` /proc/.* cannot be written to"):
            make_folder(path, "cache_dir")


def test_records_go_beside_their_own_model_and_no_other(evaluated, make_model, tmp_path):
    own = json.loads((evaluated / "metrics.json").read_text())["settings"]["weights_sha256"]
    before = listing(evaluated)
    claim_beside(evaluated, own)
    claim_beside(tmp_path / "new", own)
    for other in ("0" * 64, None):
        with pytest.raises(OutputError, match="another model"):
            claim_beside(evaluated, other)
    assert listing(evaluated) == before
    (evaluated / "model.safetensors").unlink()
    with pytest.raises(OutputError, match="not finished"):
        claim_beside(evaluated, own)
    (evaluated / "recipe.yaml").unlink()
    claim_beside(evaluated, own)
    with pytest.raises(OutputError, match=r"metrics.json of another model"):
        claim_beside(evaluated, weights_digest(make_model()))


def test_a_model_in_several_files_is_known(make_model, tmp_path):
    model = make_model()
    model.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    half = len(weights) // 2
    for number, names in enumerate((list(weights)[:half], list(weights)[half:]), 1):
        save_file({name: weights[name] for name in names}, tmp_path / f"model-0000{number}-of-00002.safetensors")
    claim_beside(tmp_path, weights_digest(model))
    with pytest.raises(OutputError, match="another model"):
        claim_beside(tmp_path, weights_digest(make_model(n_dims=2)))


def test_a_folder_of_nothing_but_such_records_may_be_written_again(tmp_path):
    for name in ("error.png", "probe.json", "report.html"):
        (tmp_path / name).write_text("written before")
    claim_beside(tmp_path, "digest")
    (tmp_path / "notes.txt").write_text("of somebody else")
    with pytest.raises(OutputError, match=r"other files \(notes.txt\)"):
        claim_beside(tmp_path, "digest")


def test_damaged_weights_and_records_are_somebody_elses(tmp_path):
    (tmp_path / "model.safetensors").write_text("damaged")
    with pytest.raises(OutputError, match="another model"):
        claim_beside(tmp_path, "digest")
    (tmp_path / "model.safetensors").unlink()
    for content in ("damaged", "{}", '{"settings": []}', '{"settings": {"weights_sha256": 3}}'):
        (tmp_path / "metrics.json").write_text(content)
        with pytest.raises(OutputError, match=r"metrics.json of another model"):
            claim_beside(tmp_path, None)
