"""Flags of programs that keep the predictions they ask for."""

import argparse
import os
from pathlib import Path


# the least value of each flag that is a number
LEAST = {"seed": 0, "batch_size": 1}


def add_prediction_arguments(parser: argparse.ArgumentParser):
    """Add the flags for the seed of the prompts, the prompts per batch and the folder of all predictions."""
    parser.add_argument("--seed", type=int, default=1, help="Seed of the prompts. Default: 1.")
    parser.add_argument("--batch_size", type=int, default=64, help="Prompts per batch. Default: 64.")
    parser.add_argument(
        "--cache_dir",
        type=Path,
        default=Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "looped_gpt2",
        help="Folder of all predictions. Default: looped_gpt2 in the user's cache folder.",
    )
