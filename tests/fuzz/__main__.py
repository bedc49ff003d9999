"""Feed random and damaged input to every entrance of the project and count what came of it.

    python -m tests.fuzz --n 1500

Each input is named by its entrance and its number: `--entrance model_call --first 17 --n 1` runs that one again. The
only outcomes allowed are the right answer, compared with a plain version where there is one, and one clear error with
nothing written or changed. Anything else is a fault; the status is 1 where there is one.
"""

import argparse
import sys
import tempfile
from collections import Counter
from pathlib import Path
from random import Random

import transformers
from huggingface_hub import constants
from tqdm import tqdm

from tests.fuzz.command_lines import fuzz_flags, fuzz_recipe
from tests.fuzz.configurations import fuzz_configuration
from tests.fuzz.model_calls import fuzz_model_call
from tests.fuzz.outcome import Fault
from tests.fuzz.programs import fuzz_damaged_folder, fuzz_program_flags
from tests.fuzz.readers import fuzz_estimator, fuzz_pipeline, fuzz_table, fuzz_text
from tests.fuzz.workspace import build_workspace


# entrance: the share of the inputs, and what runs one of them
ENTRANCES = {
    "model_call": (0.3, lambda rng, folder: fuzz_model_call(rng)),
    "configuration": (0.12, lambda rng, folder: fuzz_configuration(rng)),
    "flags": (0.12, lambda rng, folder: fuzz_flags(rng)),
    "recipe": (0.06, fuzz_recipe),
    "pipeline": (0.08, lambda rng, folder: fuzz_pipeline(rng)),
    "estimator": (0.04, lambda rng, folder: fuzz_estimator(rng)),
    "table": (0.04, lambda rng, folder: fuzz_table(rng)),
    "text": (0.06, fuzz_text),
    "damaged_folder": (0.09, lambda rng, folder: fuzz_damaged_folder(rng, folder / "workspace", folder)),
    "program_flags": (0.09, lambda rng, folder: fuzz_program_flags(rng, folder / "workspace", folder)),
}
ON_FOLDERS = ("damaged_folder", "program_flags")


def run(entrance: str, number: int, folder: Path) -> str:
    """One input, without the Hub; `"answered"` or `"refused"`, or a [`Fault`] is raised."""
    before, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, True
    try:
        return ENTRANCES[entrance][1](Random(f"{entrance} {number}"), folder)
    finally:
        constants.HF_HUB_OFFLINE = before


def main():
    """Run the inputs, print the counts and the faults."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=1500, help="Inputs in all. Default: 1500.")
    parser.add_argument("--entrance", choices=ENTRANCES, help="Only this one. Default: all, each with its share.")
    parser.add_argument("--first", type=int, default=0, help="Number of the first input of an entrance. Default: 0.")
    arguments = parser.parse_args()
    entrances = [arguments.entrance] if arguments.entrance else list(ENTRANCES)
    transformers.logging.disable_progress_bar()
    transformers.logging.set_verbosity_error()
    counts, faults = {name: Counter() for name in entrances}, []
    with tempfile.TemporaryDirectory() as folder:
        if set(entrances) & set(ON_FOLDERS):
            build_workspace(Path(folder) / "workspace")
        for name in entrances:
            n = arguments.n if arguments.entrance else round(arguments.n * ENTRANCES[name][0])
            for number in tqdm(range(arguments.first, arguments.first + n), desc=name):
                try:
                    counts[name][run(name, number, Path(folder))] += 1
                except Fault as fault:
                    counts[name]["fault"] += 1
                    faults.append(f"{name} {number}: {fault}")
    for name, count in counts.items():
        print(f"{name:>16}: " + ", ".join(f"{count[kind]} {kind}" for kind in ("answered", "refused", "fault")))
    print(f"{sum(sum(count.values()) for count in counts.values())} inputs, {len(faults)} faults", *faults, sep="\n")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
