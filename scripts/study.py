"""Run one of the paper's studies: train one model per variant, measure all on the same prompts, plot them together.

    python scripts/study.py injection --output_dir runs/injection

The default size, scripts/recipes/study.yaml, takes minutes per variant on a laptop; `--full` uses the paper's size
(500,000 steps per variant). Any field of a recipe can be given too and holds for every variant: `--max_steps 2000`.
The same command goes on after an interruption. `study.json` holds the numbers, `study.png` and `.svg` the picture.

    python scripts/study.py mechanisms --output_dir runs/mechanisms

trains every mechanism on three problems with three seeds and writes their table too, `study.md`. Each training is a
cell that any process can do; several may work in the same folder, and `--list` prints a command for each cell.

    python scripts/study.py tables --output_dir runs/tables

does so with models of tables: looped, of three and six different layers, and of cells, each judged by real tables.

    python scripts/study.py diversity --output_dir runs/diversity

does so with noisy linear functions of which a training shows 1 to 1,024, measured on these and on new ones.

    python scripts/study.py linear_attention --output_dir runs/linear_attention

trains looped linear attention, which has no block of GPT-2, in minutes, and writes its table too, `study.md`.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from scripts.common.devices import prepare_device
from scripts.common.output_folder import claim_own
from scripts.common.records import write_atomically
from scripts.studies.comparison import N_PROMPTS, measure_variant, measured_tasks, plot_variants, print_variants
from scripts.studies.grid_study import STUDIES as GRIDS
from scripts.studies.grid_study import study_grid
from scripts.studies.linear_attention_study import study_linear_attention
from scripts.studies.study_run import StudyRun, train
from scripts.studies.variants import FULL, SMALL, STUDIES
from scripts.training.run_folder import RunError


def study_variants(options: argparse.Namespace, more: Sequence[str]):
    """Check every variant, train, measure, plot."""
    study, output_dir = STUDIES[options.study], options.output_dir
    runs = {  # all, before the first is trained
        name: StudyRun.from_recipe(FULL if options.full else SMALL, output_dir / f"variant_{number}", overrides, more)
        for number, (name, overrides) in enumerate(study(options.full).items())
    }
    settings = {"study": options.study, "full": options.full, "n_prompts": N_PROMPTS}
    settings |= {"recipes": {name: run.recipe for name, run in runs.items()}}
    record = claim_own(output_dir, "study.json", settings, ["study.png", "study.svg", "variant_*"])
    device, variants = prepare_device(), record.get("variants", {})
    for name, run in runs.items():
        print(f"{options.study}: {name}", flush=True)
        train(run)
        for curve, task in measured_tasks(name, run.task).items():
            variants[curve] = measure_variant(run, task, device)
        record = {"settings": settings, "variants": variants}
        write_atomically(output_dir / "study.json", json.dumps(record, indent=1))
        plot_variants(study.__doc__.rstrip("."), variants, output_dir)
    print_variants(variants)
    print(f"\nwritten to {output_dir}")


PROGRAMS = {**dict.fromkeys(STUDIES, study_variants), **dict.fromkeys(GRIDS, study_grid)}
PROGRAMS |= {"linear_attention": study_linear_attention}


def main():
    """Read the command line and run the study."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], allow_abbrev=False, epilog="Other flags are fields of a recipe."
    )
    parser.add_argument("study", choices=PROGRAMS, help="What is varied.")
    parser.add_argument("--output_dir", type=Path, required=True, help="Folder of the models, numbers and picture.")
    parser.add_argument("--full", action="store_true", help="The paper's size; of grids, a longer one.")
    grid = parser.add_argument_group(f"grids alone: {', '.join(GRIDS)}")
    grid.add_argument("--list", action="store_true", help="Print a command for each cell that is left, and end.")
    grid.add_argument("--only", metavar="PATTERN", help="Cells to do: linear/gated/0, or 'tree/*'.")
    grid.add_argument("--jobs", type=int, help="Cells at a time. Default: one per core of a CPU, one on a GPU.")
    options, more = parser.parse_known_args()
    if any(word.split("=")[0] == "--recipe" for word in more):
        parser.error("`recipe` is that of the study: give fields of it, e.g. --max_steps 2000")
    study = PROGRAMS[options.study]
    if study is not study_grid and (options.list or options.only or options.jobs):
        names = ", ".join(GRIDS)
        parser.error(f"`list`, `only` and `jobs` are of the studies {names}, got {options.study}: leave them out.")
    try:
        study(options, more)
    except (RunError, ValueError, OSError) as error:
        sys.exit(f"study.py: error: {error}")


if __name__ == "__main__":
    main()
