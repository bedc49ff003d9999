import json
import re
import shutil
import sys
import time

import numpy as np
import pytest
import torch
from huggingface_hub import HfApi, constants

from modeling_looped_gpt2 import LoopedGPT2ForInContextRegression
from modeling_looped_gpt2.estimator_looped_gpt2 import InContextRegressor
from scripts import push_to_hub
from scripts.release import files
from scripts.release.card import render_card
from scripts.release.folder import write_release
from scripts.release.stages import read_stage


REPO = "ana/looped"


@pytest.fixture
def push(hub, evaluated, monkeypatch, capsys):
    """Run the script on the evaluated model with ana's token; returns what it printed."""
    monkeypatch.setenv("HF_TOKEN", "hf_ana")
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # between the client's tries

    def push(*flags):
        flags = {"--model": evaluated, "--repo_id": REPO} | dict(zip(flags[::2], flags[1::2], strict=True))
        words = [str(word) for pair in flags.items() for word in pair if word is not None]
        monkeypatch.setattr(sys, "argv", ["push_to_hub.py", *words])
        push_to_hub.main()
        return capsys.readouterr().out

    return push


def change_error(folder):
    metrics = json.loads((folder / "metrics.json").read_text())
    metrics["error_by_example"]["model"]["error"][-1] /= 2
    (folder / "metrics.json").write_text(json.dumps(metrics))


def test_a_release_whose_tag_was_lost_is_tagged_by_the_next_push(push, hub):
    hub.cut("POST .*/tag/")
    with pytest.raises(SystemExit, match=r"connection to the Hub broke"):
        push()
    assert hub.repositories[REPO].tags == {}
    assert push() == f"{REPO} v1: nothing to upload\n"
    assert hub.repositories[REPO].tags == {"v1": hub.repositories[REPO].branches["main"]}


@pytest.mark.parametrize(
    ("request_cut", "times"),
    [("PUT /lfs/", 99), ("POST .*/commit/", 1), ("POST .*/preupload/", 99), ("GET .*/tree/", 99)],
)
def test_a_push_that_was_cut_leaves_nothing_and_the_next_succeeds(push, hub, request_cut, times):
    hub.cut(request_cut, times=times)
    with pytest.raises(SystemExit, match=r"connection to the Hub broke .* Run the same command again"):
        push()
    assert set(hub.repositories[REPO].files) == {".gitattributes"}
    assert hub.repositories[REPO].tags == {}
    hub.cuts.clear()
    assert push().startswith(f"{REPO} v1: uploaded ")


def test_an_answer_lost_after_the_commit_is_made_good_by_the_next_push(push, hub):
    hub.cut("POST .*/commit/", after=3)
    with pytest.raises(SystemExit, match=r"connection to the Hub broke"):
        push()
    assert push() == f"{REPO} v1: nothing to upload\n"
    assert len(hub.repositories[REPO].commits) == 2


@pytest.mark.parametrize(
    ("token", "repo_id", "message"),
    [
        (None, REPO, "run `hf auth login` or set HF_TOKEN"),
        ("hf_wrong", REPO, "run `hf auth login` or set HF_TOKEN"),
        ("hf_bea", REPO, "the token may not write to ana/looped"),
        ("hf_bea", "ana/there", "the token may not write to ana/there"),
        ("hf_bea", "ana/secret", "the token may not write to ana/secret"),
    ],
)
def test_who_may_not_push_is_told_so(push, hub, monkeypatch, token, repo_id, message):
    HfApi(token="hf_ana").create_repo("ana/there")
    HfApi(token="hf_ana").create_repo("ana/secret", private=True)
    monkeypatch.delenv("HF_TOKEN") if token is None else monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(SystemExit, match=message):
        push("--repo_id", repo_id)
    assert all(set(repository.files) == {".gitattributes"} for repository in hub.repositories.values())


def test_without_a_network_it_says_so(push, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")  # where nothing listens
    with pytest.raises(SystemExit, match=r"the Hub cannot be reached"):
        push()


def test_a_card_that_disagrees_is_refused(push, hub, evaluated):
    (evaluated / "README.md").write_text(render_card(evaluated, REPO))
    change_error(evaluated)
    with pytest.raises(SystemExit, match=r"README.md disagrees with the records .* scripts/model_card.py"):
        push()
    assert hub.requests == []


def test_a_model_without_metrics_is_refused(push, hub, evaluated):
    (evaluated / "metrics.json").unlink()
    with pytest.raises(SystemExit, match=r"no metrics.json: run scripts/evaluate.py first"):
        push()
    assert hub.requests == []


def damages(path):
    """Contents that no program left there, and `None` for no file."""
    content = path.read_bytes()
    return (
        content[: len(content) // 2],
        b"",
        b"\x00\xff\xfe" * 99,
        b"[3]\n",
        b'"text"\n',
        b"{}\n",
        b"%PDF-1.7\n",
        None,
    )


OPTIONAL = ("stages.json", "error.svg", "README.md")


@pytest.mark.parametrize("name", [*files.SOURCES, *OPTIONAL])
def test_a_folder_with_a_damaged_file_is_neither_pushed_nor_written(name, push, hub, evaluated, tmp_path):
    (evaluated / "stages.json").write_text(json.dumps([read_stage(evaluated) | {"flops": 1.0}]))
    (evaluated / "error.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg"><path d="M0 0"/></svg>')
    shutil.copytree(evaluated, whole := tmp_path / "whole")
    card = render_card(whole, REPO)
    if name == "README.md":
        (whole / name).write_text(card)
    for number, content in enumerate(damages(whole / name)):
        shutil.copytree(whole, folder := tmp_path / f"damaged {number}")
        (folder / name).unlink()
        if content is not None:
            (folder / name).write_bytes(content)
        elif name in OPTIONAL:
            continue
        for flags in ((), ("--dry_run", tmp_path / "new")):
            with pytest.raises(SystemExit, match=str(folder)) as refused:
                push("--model", folder, *flags)
            assert len(str(refused.value).splitlines()) == 1
        if name != "README.md":  # which it writes anew
            with pytest.raises(ValueError, match=str(folder)):
                write_release(folder, REPO, tmp_path / "new")
    assert not (tmp_path / "new").exists()
    assert hub.requests == []


@pytest.mark.parametrize("name", ["metrics.json", "model.safetensors", "error.png", "README.md"])
def test_a_link_to_a_file_of_others_is_not_pushed(name, push, hub, evaluated, tmp_path):
    (tmp_path / "secret").write_text("password")
    (evaluated / name).unlink(missing_ok=True)
    (evaluated / name).symlink_to(tmp_path / "secret")
    for flags in ((), ("--dry_run", tmp_path / "new")):
        with pytest.raises(SystemExit, match=r"is a link to .*secret, outside of its folder"):
            push(*flags)
    assert not (tmp_path / "new").exists()
    assert hub.requests == []


def test_the_card_of_another_repository_is_refused_with_what_to_do(push, hub, evaluated):
    (evaluated / "README.md").write_text(render_card(evaluated, "bea/looped"))
    with pytest.raises(
        SystemExit, match=r"is of bea/looped, not of ana/looped: write a new folder with .*model_card.py"
    ):
        push()
    assert hub.requests == []


def test_a_dry_run_writes_what_would_be_pushed(push, hub, tmp_path):
    printed = push("--dry_run", tmp_path / "dry").split()
    assert hub.requests == []
    push()
    pushed = hub.repositories[REPO].files
    assert {path.name: path.read_bytes() for path in (tmp_path / "dry").iterdir()} == {
        name: content for name, content in pushed.items() if name != ".gitattributes"
    }
    assert printed == sorted(path.name for path in (tmp_path / "dry").iterdir())
    with pytest.raises(SystemExit, match=r"must be a new or empty folder"):
        push("--dry_run", tmp_path / "dry")


def test_the_card_is_all_a_stranger_needs(push, hub, evaluated, tmp_path, run_isolated):
    """Pull by the card's own lines in a process with an empty cache that cannot import the project."""
    push("--private", None)
    card = hub.repositories[REPO].files["README.md"].decode()
    use, use_pipeline = re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)
    assert f"hf download {REPO} --local-dir looped\n" in card  # the same as snapshot_download
    generator = torch.Generator().manual_seed(0)
    xs, ys = torch.randn(2, 5, 3, generator=generator), torch.randn(2, 5, generator=generator)
    torch.save((xs, ys), tmp_path / "prompts.pt")
    environment = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0"}
    hub.cut("GET .*safetensors", times=99, after=100)
    code = f"""
import os, time, torch
time.sleep = lambda seconds: None
xs, ys = torch.load({str(tmp_path / "prompts.pt")!r})
from transformers import AutoModel
os.environ.pop("HF_TOKEN", None)
for arguments in ({{}}, {{"revision": "v1"}}):
    try:
        AutoModel.from_pretrained("{REPO}", trust_remote_code=True, **arguments)
    except OSError as error:
        assert "not a valid model identifier" in str(error) or "private" in str(error), error
    else:
        raise AssertionError("a private repository was read without a token")
os.environ["HF_TOKEN"] = "hf_ana"
try:
    AutoModel.from_pretrained("{REPO}", trust_remote_code=True)
except OSError as error:
    assert "Can't load the model for '{REPO}'" in str(error), error
    from pathlib import Path
    assert not list(Path(os.environ["HF_HOME"]).rglob("snapshots/*/model.safetensors"))
else:
    raise AssertionError("a download that was cut succeeded")
import urllib.request
urllib.request.urlopen("{hub.url}/api/mend")
from huggingface_hub import snapshot_download
snapshot_download("{REPO}", local_dir="looped")
{use}
same = AutoModel.from_pretrained("{REPO}", trust_remote_code=True, revision="v1")(xs, ys)[0]
torch.testing.assert_close(same, predictions)
try:
    AutoModel.from_pretrained("{REPO}", trust_remote_code=True, revision="v9")
except OSError as error:
    assert "v9" in str(error), error
torch.save(predictions, {str(tmp_path / "predictions.pt")!r})
{use_pipeline}
padded = lambda x: torch.tensor([*x, 0.0]).view(1, 1, 3)
prompt = torch.cat([padded(x) for x in ([0.5, -1.0], [1.5, 0.3], [1.0, 1.0])], dim=1)
same = model.eval()(prompt, torch.tensor([[2.0, 0.7]])).predictions[0, -1]
assert abs(answer["predictions"][0] - same) < 1e-5, (answer, same)
assert answer["n_loops_used"] == [2], answer
regress.save_pretrained({str(tmp_path / "again")!r})
again = pipeline("in-context-regression", model={str(tmp_path / "again")!r}, trust_remote_code=True)
request = {{"examples": [[1.0, 2.0]], "queries": [3.0]}}
assert abs(again(request)["predictions"][0] - regress(request)["predictions"][0]) < 1e-5
"""
    run_isolated(code, **environment)
    expected = LoopedGPT2ForInContextRegression.from_pretrained(evaluated)(xs, ys).predictions
    torch.testing.assert_close(torch.load(tmp_path / "predictions.pt"), expected)


def test_the_estimator_reads_a_pushed_model_and_says_what_it_cannot(push, evaluated, monkeypatch):
    push("--private", None)
    generator = np.random.default_rng(0)
    X, y, queries = generator.normal(size=(4, 3)), generator.normal(size=4), generator.normal(size=(9, 3))
    pulled = InContextRegressor(REPO, revision="v1").fit(X, y).predict(queries)
    expected = InContextRegressor(evaluated).fit(X, y).predict(queries)
    np.testing.assert_allclose(pulled, expected, rtol=1e-5, atol=1e-6)
    with pytest.raises(OSError, match="v9"):
        InContextRegressor(REPO, revision="v9").fit(X, y)
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(OSError, match="token"):
        InContextRegressor(REPO, revision="main").fit(X, y)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", "http://127.0.0.1:1/{repo_id}/resolve/{revision}/{filename}"
    )
    with pytest.raises(OSError, match="connect"):
        InContextRegressor("ana/never_seen").fit(X, y)


def test_a_folder_of_model_cards_is_pushed_as_it_stands(push, hub, evaluated, tmp_path):
    write_release(evaluated, REPO, tmp_path / "cards")
    shutil.rmtree(evaluated)
    push("--model", tmp_path / "cards")
    files = hub.repositories[REPO].files
    for path in (tmp_path / "cards").iterdir():
        assert files.pop(path.name) == path.read_bytes(), path.name
    assert set(files) == {".gitattributes"}
