"""Record what the same training reached with other seeds, so that the model's card can show all of them.

    python scripts/seeds.py --model runs/parity --others runs/parity_1 runs/parity_2 runs/parity_3 runs/parity_4

Every folder holds a model of scripts/train.py by the same recipe, measured by scripts/evaluate.py on the same prompts.
The record, `seeds.json`, is written into the model's folder.
"""

import argparse
import json
import sys
from pathlib import Path

from scripts.common.output_folder import check_beside
from scripts.common.records import METRICS_FILE, SEEDS_FILE, write_atomically
from scripts.evaluation.metrics_record import Metrics
from scripts.release.markdown import one_line
from scripts.release.seeds import read_seeds


def main():
    """Read what the seeds reached and write the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--model", type=Path, required=True, help="Folder of the trained and evaluated model.")
    parser.add_argument(
        "--others", type=Path, nargs="+", required=True, help="Folders of the evaluated models of the other seeds."
    )
    arguments = parser.parse_args()
    path = arguments.model / SEEDS_FILE
    try:
        seeds = read_seeds(arguments.model, arguments.others)
        check_beside(arguments.model, Metrics.read(arguments.model / METRICS_FILE).settings.weights_sha256)
        write_atomically(path, json.dumps(seeds) + "\n")
    except (OSError, ValueError) as error:
        sys.exit(f"seeds.py: error: {one_line(str(error))}")
    print(path)


if __name__ == "__main__":
    main()
