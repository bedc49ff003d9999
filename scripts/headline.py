"""Print the table of all released checkpoints: their errors beside the limit, a solver and the paper's models.

    python scripts/headline.py

Below comes, where a release has one, the table that scripts/compare_specialists.py made of a model of many classes
beside those of one class each, and what its intervals cover.

Every number comes from the records in `model_cards/<function class>/`, from the published values of
`tasks/published.json` and, for parameters and floating-point operations of the paper's models, from
`scripts/recipes/<function class>_paper.yaml`.
"""

import argparse
import sys
from pathlib import Path

from scripts.release.headline import ROOT, headline, specialist_tables


def main():
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument(
        "--model_cards",
        type=Path,
        default=ROOT / "model_cards",
        help="Folder of the checkpoints, one per function class. Default: that of this project.",
    )
    arguments = parser.parse_args()
    try:
        if not arguments.model_cards.is_dir():
            raise ValueError(f"`model_cards` must be a folder, got {arguments.model_cards}.")
        print(headline(arguments.model_cards), *specialist_tables(arguments.model_cards), sep="\n\n")
    except (OSError, ValueError) as error:
        sys.exit(f"headline.py: error: {error}")


if __name__ == "__main__":
    main()
