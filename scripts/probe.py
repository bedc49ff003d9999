"""Probe a model's states after every block for the least-squares weights and X^T y (figure 8 of Yang et al.).

    python scripts/probe.py --model runs/linear --output_dir runs/linear

A probe is a learned average over the tokens and a 2-layer network, trained for each state and each number of examples
to predict the target. Reported is its squared error on fresh prompts, a mean over coordinates. The control is a probe
that is trained on prompts whose weights are all 1, so it cannot learn to read weights. `probe.json` holds the numbers,
`probe.png` and `.svg` the picture. The paper's size is `--n_prompts 1280 --n_steps 10000 --n_prefixes 41`; its probes
take all prompts at every step, and states that are not standardised.
"""

import argparse
import json
import sys
from pathlib import Path

from modeling_looped_gpt2.example_orders_looped_gpt2 import order_of
from scripts.common.count_flags import check_counts
from scripts.common.devices import prepare_device
from scripts.common.model_loading import add_model_arguments, load_chosen, weights_digest
from scripts.common.output_folder import claim_beside
from scripts.common.records import write_atomically
from scripts.studies.probe_experiment import plot_probes, print_summary, probe_states
from scripts.studies.probe_networks import BATCH_SIZE


def parse_arguments() -> argparse.Namespace:
    """Read and check the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    add_model_arguments(parser)
    parser.add_argument(
        "--output_dir", type=Path, required=True, help="Folder the numbers and picture are written to."
    )
    parser.add_argument("--n_loops", type=int, help="Loops of the model. Default: its trained count.")
    counts = {
        "n_prompts": (5120, "Training prompts per probe. Default: 5120; the paper: 1280."),
        "n_steps": (1500, f"Training steps per probe, {BATCH_SIZE} prompts each. Default: 1500; the paper: 10000."),
        "n_prefixes": (4, "Numbers of examples that are probed. Default: 4; the paper: 41."),
    }
    for name, (default, text) in counts.items():
        parser.add_argument(f"--{name}", type=int, default=default, help=text)
    arguments = parser.parse_args()
    check_counts(parser, arguments, dict.fromkeys(("n_loops", *counts), 1))
    return arguments


def main():
    """Collect the states, train the probes, write and plot."""
    arguments = parse_arguments()
    try:
        model = load_chosen(arguments, prepare_device())
        if model.config.n_positions < 2:
            raise ValueError(f"`n_positions` of the model must be >= 2, an example, got {model.config.n_positions}.")
        if order_of(model.config).is_split:
            raise ValueError("`example_order` of the model must be causal, whose tokens are probed, got set.")
        claim_beside(arguments.output_dir, weights_digest(model))
        record = probe_states(model, arguments.n_loops or model.config.n_loops, arguments)
        write_atomically(arguments.output_dir / "probe.json", json.dumps(record, indent=1))
        plot_probes(record, arguments.output_dir)
    except (ValueError, OSError) as error:
        sys.exit(f"probe.py: error: {error}")
    print_summary(record)
    print(f"written to {arguments.output_dir / 'probe.json'}")


if __name__ == "__main__":
    main()
