"""The tests' own Hub behaves as the real one where the real client can tell."""

import time
from pathlib import Path

import httpx2
import pytest
from huggingface_hub import CommitOperationAdd, HfApi, ModelCard, hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)


REPO = "ana/model"


@pytest.fixture
def api(hub):
    return HfApi(endpoint=hub.url, token="hf_ana")


def commit(api, files, **options):
    operations = [CommitOperationAdd(path, content) for path, content in files.items()]
    return api.create_commit(REPO, operations, commit_message="test", **options)


FILES = {"config.json": b"{}", "model.safetensors": bytes(range(256)) * 100}


def test_what_is_pushed_is_pulled(hub, api, tmp_path):
    api.create_repo(REPO)
    first = commit(api, FILES)
    second = commit(api, {"config.json": b"[]"})
    assert (first.oid, second.oid) == tuple(hub.repositories[REPO].commits)[1:]
    folder = Path(snapshot_download(REPO, revision=first.oid, endpoint=hub.url, cache_dir=tmp_path))
    assert {name: (folder / name).read_bytes() for name in FILES} == FILES
    assert Path(hf_hub_download(REPO, "config.json", endpoint=hub.url, cache_dir=tmp_path)).read_bytes() == b"[]"


def test_the_same_content_is_not_uploaded_again(hub, api):
    api.create_repo(REPO)
    commit(api, FILES)
    uploads = hub.uploads()
    assert sum(line.startswith("PUT") for line in uploads) == 1  # the weights alone
    commit(api, FILES)
    assert hub.uploads() == uploads


def test_tags_and_revisions(hub, api):
    api.create_repo(REPO)
    head = commit(api, FILES).oid
    api.create_tag(REPO, tag="v1")
    with pytest.raises(HfHubHTTPError, match="409"):
        api.create_tag(REPO, tag="v1")
    assert [(tag.name, tag.target_commit) for tag in api.list_repo_refs(REPO).tags] == [("v1", head)]
    assert api.model_info(REPO, revision="v1").sha == head
    with pytest.raises(RevisionNotFoundError):
        api.model_info(REPO, revision="v2")
    with pytest.raises(EntryNotFoundError):
        api.hf_hub_download(REPO, "absent.json")


def test_who_may_what(hub, api):
    api.create_repo(REPO, private=True)
    for token, error in ((False, RepositoryNotFoundError), ("hf_bea", RepositoryNotFoundError)):
        with pytest.raises(error):
            HfApi(endpoint=hub.url, token=token).model_info(REPO)
    with pytest.raises(HfHubHTTPError, match="Invalid credentials"):
        HfApi(endpoint=hub.url, token="hf_unknown").model_info(REPO)
    api.create_repo("ana/public")
    assert HfApi(endpoint=hub.url, token="hf_bea").model_info("ana/public").private is False
    with pytest.raises(HfHubHTTPError, match="403"):
        HfApi(endpoint=hub.url, token="hf_bea").create_tag("ana/public", tag="v1")


def test_a_commit_upon_another_than_the_head_is_refused(hub, api):
    api.create_repo(REPO)
    old = commit(api, FILES).oid
    commit(api, {"config.json": b"[]"})
    with pytest.raises(HfHubHTTPError, match="412"):
        commit(api, {"config.json": b"{}"}, parent_commit=old)


def test_a_cut_download_is_taken_up_where_it_broke(hub, api, tmp_path, monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    api.create_repo(REPO)
    commit(api, FILES)
    hub.cut("GET .*safetensors", after=1000)
    path = hf_hub_download(REPO, "model.safetensors", endpoint=hub.url, cache_dir=tmp_path)
    assert Path(path).read_bytes() == FILES["model.safetensors"]
    hub.cut("POST .*/commit/")
    with pytest.raises(httpx2.TransportError):
        commit(api, {"config.json": b"[]"})
    assert hub.repositories[REPO].files["config.json"] == b"{}"


@pytest.mark.parametrize(
    ("metadata", "message"),
    [("license: [a", "not YAML"), ("tags: one", '"tags" must be a list'), ("model-index: [{}]", "name")],
)
def test_bad_metadata_is_refused(hub, api, metadata, message):
    api.create_repo(REPO)
    ModelCard("---\nlicense: mit\n---\n# Fine\n").validate()
    with pytest.raises(ValueError, match=message):
        commit(api, {"README.md": f"---\n{metadata}\n---\n".encode()})
    assert "README.md" not in hub.repositories[REPO].files
