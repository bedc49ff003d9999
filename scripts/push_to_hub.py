"""Publish a trained and evaluated model: weights, configuration, code, card, pictures and records, as one commit.

    python scripts/push_to_hub.py --model runs/linear --repo_id ORG/NAME

Every push that changes something is a release with a new tag: v1, v2, ... Pushing the same content again uploads
nothing. Other files in the repository are never touched. `--dry_run DIR` writes the files into a folder instead.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from huggingface_hub import HfApi

from scripts.release.card import check_repo_id
from scripts.release.folder import stage_release, write_content
from scripts.release.markdown import one_line
from scripts.release.push import ERRORS, check_card, explain, push


def main():
    """Check, stage, and push or write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--model", type=Path, required=True, help="Folder of a trained and evaluated model.")
    parser.add_argument("--repo_id", required=True, help="Repository to publish to, ORG/NAME.")
    parser.add_argument("--private", action="store_true", help="Make the repository private.")
    parser.add_argument("--dry_run", type=Path, metavar="DIR", help="Write the content into a new folder instead.")
    arguments = parser.parse_args()
    model, repo_id = arguments.model, arguments.repo_id
    try:
        check_repo_id(repo_id)
        check_card(model, repo_id)
        if arguments.dry_run:
            print(*write_content(model, repo_id, arguments.dry_run), sep="\n")
            return
        with tempfile.TemporaryDirectory() as staging:
            stage_release(model, repo_id, Path(staging))
            tag, uploaded = push(HfApi(), Path(staging), repo_id, arguments.private)
    except ERRORS as error:
        sys.exit(f"push_to_hub.py: error: {one_line(explain(error, repo_id))}")
    print(f"{repo_id} {tag}: " + (f"uploaded {', '.join(uploaded)}" if uploaded else "nothing to upload"))


if __name__ == "__main__":
    main()
