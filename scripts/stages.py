"""Record what every stage of a training reached, so that the model's card can show error against compute.

    python scripts/stages.py --model runs/decision_tree --others runs/tree runs/tree_2

Every folder holds a model of scripts/train.py that scripts/evaluate.py measured, all on the same prompts. `--others`
are the stages before the model, and later ones that were not released. The record, `stages.json`, is written into the
model's folder.
"""

import argparse
import json
import sys
from pathlib import Path

from scripts.common.output_folder import check_beside
from scripts.common.records import METRICS_FILE, STAGES_FILE, write_atomically
from scripts.evaluation.metrics_record import Metrics
from scripts.release.markdown import one_line
from scripts.release.stages import read_stages


def main():
    """Read the stages and write the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--model", type=Path, required=True, help="Folder of the trained and evaluated model.")
    parser.add_argument(
        "--others",
        type=Path,
        nargs="+",
        required=True,
        help="Folders of the evaluated models of earlier stages, and of later ones that were not released.",
    )
    arguments = parser.parse_args()
    path = arguments.model / STAGES_FILE
    try:
        stages = read_stages(arguments.model, arguments.others)
        check_beside(arguments.model, Metrics.read(arguments.model / METRICS_FILE).settings.weights_sha256)
        write_atomically(path, json.dumps(stages) + "\n")
    except (OSError, ValueError) as error:
        sys.exit(f"stages.py: error: {one_line(str(error))}")
    print(path)


if __name__ == "__main__":
    main()
