"""Record what every stage of a training reached, so that the model's card can show error against compute.

    python scripts/stages.py --model runs/decision_tree --others runs/tree runs/tree_2

Every folder holds a model of scripts/train.py that scripts/evaluate.py measured, all on the same prompts. `--others`
are the stages before the model, and later ones that were not released. The record, `stages.json`, is written into the
model's folder.
"""

from scripts.common.records import STAGES_FILE
from scripts.release.beside import record_others
from scripts.release.stages import read_stages


def main():
    """Read the stages and write the record."""
    others = "earlier stages, and of later ones that were not released"
    record_others("stages.py", __doc__, others, STAGES_FILE, read_stages)


if __name__ == "__main__":
    main()
