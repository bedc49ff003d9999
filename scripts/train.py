"""Train an in-context model on an endless stream of prompts.

On one device, from the repository's root:

    accelerate launch scripts/train.py --recipe scripts/recipes/linear_regression.yaml --output_dir runs/linear

On several, with one of the files of scripts/accelerate_configs:

    accelerate launch --config_file scripts/accelerate_configs/multi_gpu.yaml scripts/train.py --recipe ...

Flags win over the recipe. SIGINT and SIGTERM save and end the run, with status 130 and 143; the same command goes on
from the last checkpoint.
"""

from functools import partial

from scripts.training.interruption import stop_at_once_on_signals


if __name__ == "__main__":
    stop_at_once_on_signals()  # the imports below take seconds

from scripts.training.launch import run_program
from scripts.training.prompt_arguments import parse_arguments
from scripts.training.prompt_experiment import PromptExperiment


def main():
    """Parse the command line and run."""
    run_program("train.py", partial(parse_arguments, description=__doc__.splitlines()[0]), PromptExperiment)


if __name__ == "__main__":
    main()
