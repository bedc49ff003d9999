"""Push a release to a repository of the Hub: one commit and a tag, or nothing."""

import hashlib
import os
import re
from pathlib import Path

import httpx2
from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

from scripts.common.records import read_text
from scripts.release.card import render_card
from scripts.release.files import CARD_FILE, check_file, repository_of


# the errors of a push: the Hub refuses or cannot be reached, or the release is not whole
ERRORS = (OSError, ValueError, RuntimeError, httpx2.TransportError)


def changed_files(api: HfApi, repo_id: str, revision: str, folder: Path) -> list[Path]:
    """Files of `folder` that `revision` of the repository lacks or holds with another content."""
    remote = {
        entry.path: entry.lfs.sha256 if entry.lfs else entry.blob_id
        for entry in api.list_repo_tree(repo_id, revision=revision)
        if hasattr(entry, "blob_id")
    }
    changed = []
    for path in sorted(folder.iterdir()):
        content = path.read_bytes()
        git_object = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        if remote.get(path.name) not in (git_object, hashlib.sha256(content).hexdigest()):
            changed.append(path)
    return changed


def latest_release(api: HfApi, repo_id: str) -> int:
    """Number of the newest release, 0 where there is none."""
    tags = [re.fullmatch(r"v(\d+)", tag.name) for tag in api.list_repo_refs(repo_id).tags]
    return max((int(tag[1]) for tag in tags if tag), default=0)


def push(api: HfApi, folder: Path, repo_id: str, private: bool) -> tuple[str, list[str]]:
    """
    Bring the repository's main branch to the content of `folder`, and tag it as a release.

    Args:
        api (`HfApi`):
            Client with the token to use.
        folder (`Path`):
            Flat folder of the files to publish.
        repo_id (`str`):
            ORG/NAME; created where it does not exist.
        private (`bool`):
            Whether the repository must be private.

    Returns:
        The tag with this content, and the names of the uploaded files, none where it was published before.

    Raises:
        `ValueError`: the repository is public and should be private.
        `HfHubHTTPError`, `httpx2.TransportError`, `RuntimeError`: the Hub refused or could not be reached. The
            repository then holds all of the new content or none of it.
    """
    api.create_repo(repo_id, private=private, exist_ok=True)
    repository = api.model_info(repo_id)
    if private and not repository.private:
        raise ValueError(f"`--private`: {repo_id} is public. Make it private on the Hub, or push to another name.")
    release = latest_release(api, repo_id)
    changed = changed_files(api, repo_id, repository.sha, folder)
    if not changed and release and not changed_files(api, repo_id, f"v{release}", folder):
        return f"v{release}", []
    tag, head = f"v{release + 1}", repository.sha
    if changed:
        files = [CommitOperationAdd(path.name, path) for path in changed]
        # on top of the commit that was compared: the Hub refuses if there is another one since
        head = api.create_commit(repo_id, files, commit_message=f"Release {tag}", parent_commit=head).oid
    api.create_tag(repo_id, tag=tag, revision=head)
    return tag, [path.name for path in changed]


def explain(error: Exception, repo_id: str) -> str:
    """Return what went wrong with a push and what to do about it."""
    while error.__cause__ is not None and not isinstance(error, HfHubHTTPError | httpx2.TransportError):
        error = error.__cause__  # the client wraps the failure of an upload
    again = "The files of a release appear all together or not at all. Run the same command again."
    if isinstance(error, OfflineModeIsEnabled | httpx2.ConnectError):
        return f"the Hub cannot be reached ({error}). {again}"
    if isinstance(error, httpx2.TransportError):
        return f"the connection to the Hub broke ({error}). {again}"
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status == 401:
        return "the Hub knows no such token, or none was given: run `hf auth login` or set HF_TOKEN."
    if status in (403, 404):
        return f"the token may not write to {repo_id}: use one with write access to {repo_id.split('/')[0]}."
    if status in (409, 412):
        return f"somebody else pushed to {repo_id} at the same time. {again}"
    return f"{error}"


def check_card(model: Path, repo_id: str):
    """Raise `ValueError` where the folder of a model holds a card that is not the one of its records."""
    card = model / CARD_FILE
    if not os.path.lexists(card):
        return
    check_file(card)
    if repository_of(card) != repo_id:
        raise ValueError(
            f"{card} is of {repository_of(card) or 'something else'}, not of {repo_id}: write a new folder with "
            f"scripts/model_card.py --model {model} --repo_id {repo_id} --output_dir NEW_FOLDER, and push that."
        )
    if read_text(card) != render_card(model, repo_id):
        raise ValueError(
            f"{card} disagrees with the records beside it: render it again with "
            f"scripts/model_card.py --model {model} --repo_id {repo_id} --output_dir {model}."
        )
