"""What is read of a checkpoint: only what was written, and nothing of it is run."""

import json
import os
import pickle
import shutil
from pathlib import Path

import pytest
import torch

from scripts.training.run_folder import RunError, RunFolder, _checksums


@pytest.fixture
def stopped(train_here, tmp_path):
    """Folder of a run that was stopped after its sixth step, and kept the checkpoints of steps 4 and 6."""
    folder = tmp_path / "run"
    assert train_here(folder, stop_at=6) == 143
    return folder


def sign(checkpoint, **changes):
    """Write the manifest that fits the files of a checkpoint."""
    manifest = {"step": int(checkpoint.name.removeprefix("step_")), "sha256": _checksums(checkpoint)} | changes
    (checkpoint / "manifest.json").write_text(json.dumps(manifest))


class Payload:
    """Makes a file where it is unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


def in_pickle(payload, path):
    path.write_bytes(pickle.dumps(payload))


def in_torch_file(payload, path):
    torch.save({"state": payload}, path)


def in_old_torch_file(payload, path):
    torch.save({"state": payload}, path, _use_new_zipfile_serialization=False)


@pytest.mark.parametrize("write", [in_pickle, in_torch_file, in_old_torch_file])
def test_no_file_of_a_checkpoint_is_executed(write, stopped, train_here, tmp_path, capsys):
    pickle.loads(pickle.dumps(Payload(tmp_path / "control")))
    assert (tmp_path / "control").exists()
    checkpoint = stopped / "checkpoints" / "step_000000006"
    whole = shutil.copytree(checkpoint, tmp_path / "whole")
    names = {file.name for file in whole.iterdir()}
    assert {"optimizer.bin", "optimizer_1.bin", "random_states_0.pkl", "model_2.safetensors"} <= names
    # what accelerate reads where a run has it, or in place of safetensors
    others = {"custom_checkpoint_0.pkl", "scheduler.bin", "sampler.bin", "pytorch_model.bin", "pytorch_model_1.bin"}
    for name in sorted(names | others):
        shutil.rmtree(checkpoint)
        shutil.copytree(whole, checkpoint)
        write(Payload(tmp_path / "marker"), checkpoint / name)
        if name.startswith("pytorch_model"):
            (checkpoint / name.replace("pytorch_model", "model").replace(".bin", ".safetensors")).unlink()
        if name != "manifest.json":
            sign(checkpoint)
        capsys.readouterr()
        assert train_here(stopped) == 1, name
        error = capsys.readouterr().err
        assert len(error.splitlines()) == 1, error
        assert str(checkpoint) in error
        assert not (tmp_path / "marker").exists(), name


@pytest.mark.parametrize(
    "manifest",
    [
        *({"step": 30}, {"step": 4}, {"step": "6"}, {"step": 6.0}, {"step": None}, {"step": 7}),
        *({"sha256": {}}, {"sha256": None}, {"sha256": []}),
    ],
)
def test_a_manifest_of_another_step_or_of_no_files_is_refused(manifest, tmp_path):
    folder = RunFolder(tmp_path)
    checkpoint = folder.checkpoints / "step_000000006"
    checkpoint.mkdir(parents=True)
    (checkpoint / "optimizer.bin").write_text("")
    sign(checkpoint, **manifest)
    with pytest.raises(RunError, match=r"step_000000006 is damaged or of another version \(.*\): remove that folder"):
        folder.load(None)


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff", b"{}"])
def test_a_manifest_that_is_none_is_refused(content, tmp_path):
    folder = RunFolder(tmp_path)
    checkpoint = folder.checkpoints / "step_000000006"
    checkpoint.mkdir(parents=True)
    (checkpoint / "manifest.json").write_bytes(content)
    with pytest.raises(
        RunError, match=r"step_000000006 is damaged or of another version \(.*manifest.json .*\)"
    ) as refused:
        folder.load(None)
    assert "\n" not in str(refused.value)


def test_a_checkpoint_has_the_files_of_its_manifest_and_no_others(tmp_path):
    folder = RunFolder(tmp_path)
    checkpoint = folder.checkpoints / "step_000000006"
    checkpoint.mkdir(parents=True)
    for name in ("optimizer.bin", "model.safetensors"):
        (checkpoint / name).write_text("")
    sign(checkpoint)
    (checkpoint / "model.safetensors").unlink()
    (checkpoint / "scheduler.bin").write_text("")
    with pytest.raises(RunError, match=r"is damaged or of another version \(model.safetensors, scheduler.bin\)"):
        folder.load(None)


def test_every_bit_of_a_manifest_counts(stopped):
    """Whatever bit of it flips, the checkpoint is refused, or its step and checksums are the same."""
    folder = RunFolder(stopped)
    manifest = folder.latest() / "manifest.json"
    content = manifest.read_bytes()
    before = json.loads(content)
    for place in range(len(content)):
        flipped = bytearray(content)
        flipped[place] ^= 1 << place % 8
        manifest.write_bytes(flipped)
        try:
            assert folder._check(folder.latest()) == 6
        except ValueError:
            continue
        assert json.loads(manifest.read_text()) == before, place


def test_a_recipe_that_was_edited_after_a_checkpoint_is_refused(stopped, train_here, capsys):
    recipe = stopped / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("n_loops: 4", "n_loops: 5"))
    assert train_here(stopped, "--n_loops", 5) == 1
    error = capsys.readouterr().err
    assert "recipe.yaml was changed after step 6 (n_loops 4 -> 5): restore it" in error
    assert len(error.splitlines()) == 1


def test_a_checkpoint_of_an_older_version_goes_on_or_is_refused(stopped, train_here, capsys):
    """Older ones held no recipe, and the average, if any, in custom_checkpoint_0.pkl."""
    checkpoint = stopped / "checkpoints" / "step_000000006"
    (checkpoint / "recipe.yaml").unlink()
    sign(checkpoint)
    assert train_here(stopped, stop_at=7) == 143
    (stopped / "checkpoints" / "step_000000007" / "model_2.safetensors").rename(
        stopped / "checkpoints" / "step_000000007" / "custom_checkpoint_0.pkl"
    )
    sign(stopped / "checkpoints" / "step_000000007")
    capsys.readouterr()
    assert train_here(stopped) == 1
    error = capsys.readouterr().err
    assert "is of an older version" in error
    assert len(error.splitlines()) == 1


def test_nothing_older_goes_before_what_is_new_has_reached_the_disk(train_here, tmp_path, monkeypatch):
    events, sync, remove = [], os.fsync, shutil.rmtree

    def record_sync(descriptor):
        events.append(("flushed", os.fstat(descriptor).st_ino))
        return sync(descriptor)

    def record_removal(path, *arguments, **options):
        if Path(path).name.startswith(("step_", "checkpoints")):
            new = sorted((tmp_path / "run" / "checkpoints").glob("step_*"))[-1]
            if Path(path).name == "checkpoints":
                new = tmp_path / "run"
                files = [file for file in new.iterdir() if file.name not in ("checkpoints", ".lock", "log.jsonl")]
                files = [file for file in files if file.is_file()]
            else:
                files = list(new.iterdir())
            flushed = {inode for _, inode in events}
            assert {file.stat().st_ino for file in (*files, new, new.parent) if file != tmp_path} <= flushed
            events.append(("removed", Path(path).name))
        return remove(path, *arguments, **options)

    monkeypatch.setattr(os, "fsync", record_sync)
    monkeypatch.setattr(shutil, "rmtree", record_removal)
    assert train_here(tmp_path / "run") == 0
    removed = [name for kind, name in events if kind == "removed"]
    assert removed == ["step_000000004", "checkpoints"]
