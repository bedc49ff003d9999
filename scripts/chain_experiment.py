"""Show where depth matters: follow pointers to the end of their chain, with loops that grow with the chain.

    python scripts/chain_experiment.py --output_dir runs/chains

Trains two models from scratch by train.py on chains of up to `max_hops` pointers: a looped one, whose loops grow with
the longest chain, and a standard transformer, whose blocks do not. Then tests both on chains of up to twice as many
pointers, the looped one with every number of loops. Takes about twenty minutes on one CPU core; writes metrics.json,
chains.png and the looped model. The same command goes on after an interruption.
"""

import argparse
import json
import sys
from pathlib import Path

from scripts.common.count_flags import parse_counts
from scripts.common.devices import prepare_device
from scripts.common.output_folder import claim_own
from scripts.common.records import METRICS_FILE, WEIGHTS_FILE, write_atomically
from scripts.studies.chains import compare_depths, make_runs, plot_depths
from scripts.studies.study_run import train
from scripts.training.run_folder import RunError


COUNTS = {"max_steps": 1000, "batch_size": 64, "max_hops": 4, "n_prompts": 1000, "blocks": 12, "seed": 0}
FILES = ("chains.png", "config.json", "generation_config.json", WEIGHTS_FILE, "*.py", "looped", "standard")


def parse_arguments() -> argparse.Namespace:
    """Read and check the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--output_dir", type=Path, required=True, help="Folder of metrics.json, chains.png and model.")
    return parse_counts(parser, COUNTS, {"seed": 0})


def main():
    """Train and test both models, write, plot."""
    arguments = parse_arguments()
    output_dir = arguments.output_dir
    settings = {name: value for name, value in vars(arguments).items() if name != "output_dir"}
    runs = make_runs(arguments)
    try:
        claim_own(output_dir, METRICS_FILE, settings, FILES)
        device = prepare_device()
        for run in runs.values():
            train(run)
        models = {name: run.load_model(device) for name, run in runs.items()}
        models["looped"].save_pretrained(output_dir)
        metrics = {"settings": settings} | compare_depths(runs, models, arguments)
        write_atomically(output_dir / METRICS_FILE, json.dumps(metrics, indent=1))
        plot_depths(metrics, output_dir / "chains.png")
    except (RunError, ValueError, OSError) as error:
        sys.exit(f"chain_experiment.py: error: {error}")
    for n_loops, row in metrics["looped"]["accuracy"].items():
        print(f"{n_loops:>3} loops:", " ".join(f"{value:.2f}" for value in row))
    print("standard: ", " ".join(f"{value:.2f}" for value in metrics["standard"]["accuracy"]))
    print(f"written to {output_dir}")


if __name__ == "__main__":
    main()
