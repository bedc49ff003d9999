"""Write the files of a checkpoint's Hub repository: weights, records, pictures, the card, and links to the code.

    python scripts/model_card.py --model runs/linear --repo_id ORG/NAME --output_dir runs/linear_release

The card is rendered from recorded data alone: `metrics.json` of scripts/evaluate.py, and `recipe.yaml`,
`environment.json` and `log.jsonl` of scripts/train.py. The folder holds links to the model's code, so that it loads in
this repository; a push uploads the files themselves. A folder that holds another model is refused.
"""

import argparse
import sys
from pathlib import Path

from scripts.release.files import CARD_FILE
from scripts.release.folder import write_release
from scripts.release.markdown import one_line


def main():
    """Write the folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--model", type=Path, required=True, help="Folder of a trained and evaluated model.")
    parser.add_argument("--repo_id", required=True, help="Hub repository of the model, ORG/NAME.")
    parser.add_argument("--output_dir", type=Path, required=True, help="New folder, or that of the model itself.")
    arguments = parser.parse_args()
    try:
        write_release(arguments.model, arguments.repo_id, arguments.output_dir)
    except (OSError, ValueError) as error:
        sys.exit(f"model_card.py: error: {one_line(str(error))}")
    print(arguments.output_dir / CARD_FILE)


if __name__ == "__main__":
    main()
