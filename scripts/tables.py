"""Leave one table out: train an in-context classifier on random and the other tables, and test it on that one.

    python scripts/tables.py --output_dir runs/tables

Every prompt shows `--n_points - 1` labelled rows of one table and asks for the class of one more row. It has two of
the table's classes and at most `--n_dims` of its columns, standardised, in random order and with random signs. Four
tables alone teach little. So one model is first trained on random tables, and then tuned, for each table left out, for
`--n_tuning_steps` on the other tables; half of these prompts are still random tables. train.py does both, and the same
command goes on after an interruption. The model is measured before and after the tuning, beside logistic regression
and 3 nearest neighbours, on the same prompts of the table left out. The tables come with scikit-learn; `--openml`
downloads the ten data sets of the paper from OpenML. `tables.json` holds the accuracies.

Source: Yang et al. (ICLR 2024), appendix on OpenML. There the examples at test time come from 5% of the table left
out, and several accuracies are below chance; here they come from all its rows, and the classes are balanced.
"""

import argparse
import json
import sys
from pathlib import Path

from scripts.common.count_flags import parse_counts
from scripts.common.devices import prepare_device
from scripts.common.output_folder import claim_own
from scripts.common.records import WEIGHTS_FILE, write_atomically
from scripts.studies.leave_one_out import LEAST_POINTS, accuracies, random_run, tuning_run
from scripts.studies.study_run import train
from scripts.training.run_folder import RunError
from tasks.tables.real_tables import RealTables


COUNTS = {"n_steps": 500, "n_tuning_steps": 30, "n_points": 41, "n_dims": 20, "n_loops": 6, "n_embd": 128}
COUNTS |= {"n_prompts": 500, "seed": 1}
FILES = ("config.json", WEIGHTS_FILE, "*.py", "random_tables", "without_*")


def parse_arguments() -> argparse.Namespace:
    """Read and check the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--output_dir", type=Path, required=True, help="Folder of tables.json and the untuned model.")
    parser.add_argument("--openml", action="store_true", help="The paper's data sets instead of the bundled ones.")
    return parse_counts(parser, COUNTS, {"n_points": LEAST_POINTS})


def main():
    """Train once on random tables, then leave each table out in turn."""
    arguments = parse_arguments()
    output_dir = arguments.output_dir
    settings = {name: value for name, value in vars(arguments).items() if name != "output_dir"}
    source = "openml" if arguments.openml else "scikit-learn"
    sizes = {"n_dims": arguments.n_dims, "n_points": arguments.n_points}
    try:
        tables = RealTables(source=source, **sizes)
        untuned = random_run(arguments)
        tuned = {name: tuning_run(arguments, untuned, tables, name) for name in tables.tables}
        record = claim_own(output_dir, "tables.json", settings, FILES)
        record.setdefault("tables", {})
        device = prepare_device()
        train(untuned)
        untuned.load_model(device).save_pretrained(output_dir)
        for name, run in tuned.items():
            train(run)
            runs = {"random tables": untuned, "and the others": run}
            task = RealTables(source=source, only=name, **sizes)
            record["tables"][name] = accuracies(runs, task, arguments.n_prompts, device)
            write_atomically(output_dir / "tables.json", json.dumps(record, indent=1))
            shown = (f"{who} {entry['accuracy']:.3f}" for who, entry in record["tables"][name].items())
            print(f"{name:>16}: " + ", ".join(shown), flush=True)
    except (RunError, ValueError, OSError) as error:
        sys.exit(f"tables.py: error: {error}")
    print(f"written to {output_dir / 'tables.json'}")


if __name__ == "__main__":
    main()
