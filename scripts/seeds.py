"""Record what the same training reached with other seeds, so that the model's card can show all of them.

    python scripts/seeds.py --model runs/parity --others runs/parity_1 runs/parity_2 runs/parity_3 runs/parity_4

Every folder holds a model of scripts/train.py by the same recipe, measured by scripts/evaluate.py on the same prompts.
The record, `seeds.json`, is written into the model's folder.
"""

from scripts.common.records import SEEDS_FILE
from scripts.release.beside import record_others
from scripts.release.seeds import read_seeds


def main():
    """Read what the seeds reached and write the record."""
    others = "the other seeds"
    record_others("seeds.py", __doc__, others, SEEDS_FILE, read_seeds)


if __name__ == "__main__":
    main()
