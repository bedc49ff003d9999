import json

import pytest
from huggingface_hub import CommitOperationAdd, HfApi, ModelCard
from huggingface_hub.errors import HfHubHTTPError

from scripts.release import files, push
from scripts.release.folder import stage_release
from tests.carried_code import REGRESSION_CODE


REPO = "ana/looped"
# of the model and its pipeline alone: no estimator, no other head
CODE = REGRESSION_CODE | {"pipeline_looped_gpt2.py"}


@pytest.fixture
def api(hub):
    return HfApi(token="hf_ana")


@pytest.fixture
def publish(api, evaluated, tmp_path):
    """Stage and push the evaluated model; returns the tag and the names of the files that were uploaded."""

    def publish(repo_id=REPO, private=False):
        staged = tmp_path / f"staged_{len(list(tmp_path.iterdir()))}"
        stage_release(evaluated, repo_id, staged)
        return push.push(api, staged, repo_id, private)

    return publish


def test_the_first_push_is_one_commit_with_everything_and_a_tag(publish, hub, evaluated):
    tag, uploaded = publish()
    repository = hub.repositories[REPO]
    assert tag == "v1"
    assert set(uploaded) == set(repository.files) - {".gitattributes"}
    assert set(repository.files) == {".gitattributes", "README.md", *files.SOURCES} | CODE
    assert len(repository.commits) == 2  # the Hub's own first one and the release
    assert repository.tags == {"v1": repository.branches["main"]}
    config = json.loads(repository.files["config.json"])
    assert set(config["auto_map"]) == {"AutoConfig", "AutoModel"}
    assert set(config["custom_pipelines"]) == {"in-context-regression"}
    assert repository.files["model.safetensors"] == (evaluated / "model.safetensors").read_bytes()
    assert not repository.private
    ModelCard(repository.files["README.md"].decode()).validate()


def test_a_second_push_uploads_nothing_and_a_change_is_a_second_release(publish, hub, change):
    publish()
    before = hub.uploads()
    assert publish() == ("v1", [])
    assert set(hub.uploads()[len(before) :]) == {"POST /api/repos/create"}
    change("metrics.json", lambda metrics: metrics["error_by_example"]["model"]["error"].__setitem__(-1, 0.03))
    assert publish() == ("v2", ["README.md", "metrics.json"])
    repository = hub.repositories[REPO]
    assert sum("/lfs/" in line and line.startswith("PUT") for line in hub.uploads()) == 2  # weights and picture, once
    assert repository.tags.keys() == {"v1", "v2"}
    assert repository.commits[repository.tags["v1"]]["metrics.json"] != repository.files["metrics.json"]


def test_files_of_others_are_never_touched(publish, hub, api):
    api.create_repo(REPO)
    operations = [CommitOperationAdd("notes.txt", b"ours"), CommitOperationAdd("folder/metrics.json", b"{}")]
    api.create_commit(REPO, operations, commit_message="by hand")
    publish()
    content = hub.repositories[REPO].files
    assert (content["notes.txt"], content["folder/metrics.json"]) == (b"ours", b"{}")


def test_private_repositories_stay_private(publish, hub):
    publish(private=True)
    assert hub.repositories[REPO].private
    publish()
    assert hub.repositories[REPO].private
    publish("ana/public")
    with pytest.raises(ValueError, match=r"`--private`: ana/public is public"):
        publish("ana/public", private=True)


def test_a_commit_in_between_is_not_overwritten(publish, hub, api, monkeypatch):
    api.create_repo(REPO)
    compare = push.changed_files

    def compare_slowly(*arguments):
        changed = compare(*arguments)
        api.create_commit(REPO, [CommitOperationAdd("README.md", b"# By hand")], commit_message="meanwhile")
        return changed

    monkeypatch.setattr(push, "changed_files", compare_slowly)
    with pytest.raises(HfHubHTTPError) as refused:
        publish()
    assert "somebody else pushed to ana/looped at the same time." in push.explain(refused.value, REPO)
    assert hub.repositories[REPO].files["README.md"] == b"# By hand"
