"""A folder is written to where nothing of another model or program would be lost."""

import json

import pytest

from scripts.model_loading import weights_digest
from scripts.output_folder import OutputError, claim_beside, claim_own


def listing(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_program_takes_new_and_empty_folders_and_its_own(tmp_path):
    for folder in (tmp_path / "a" / "b", tmp_path / "a"):
        (tmp_path / "a").mkdir(exist_ok=True)
        if folder.name == "b":
            claim_own(folder, ["tables.json"])
            claim_own(folder, ["tables.json"])
            (folder / "tables.json").write_text("{}")
            claim_own(folder, ["tables.json"])
            with pytest.raises(OutputError, match=r"other files \(tables.json\)"):
                claim_own(folder, ["study.json"])
        else:
            with pytest.raises(OutputError, match=r"other files \(b\)"):
                claim_own(folder, ["tables.json"])


def test_a_file_in_place_of_a_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("kept")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        for claim in (lambda path: claim_own(path, []), lambda path: claim_beside(path, "digest")):
            with pytest.raises(OutputError, match="output_dir"):
                claim(folder)
    assert (tmp_path / "file").read_text() == "kept"


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


def test_damaged_weights_and_records_are_somebody_elses(tmp_path):
    (tmp_path / "model.safetensors").write_text("damaged")
    with pytest.raises(OutputError, match="another model"):
        claim_beside(tmp_path, "digest")
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "metrics.json").write_text("damaged")
    with pytest.raises(OutputError, match=r"metrics.json of another model"):
        claim_beside(tmp_path, None)
