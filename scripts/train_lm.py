"""Train a looped language model on text or JSON lines.

    accelerate launch scripts/train_lm.py --train_file corpus.txt --output_dir runs/lm --max_steps 1000
    accelerate launch scripts/train_lm.py --train_file corpus.jsonl.gz --gpt2 gpt2 --n_prelude 4 ...

Several devices need one of the files of scripts/accelerate_configs, as for scripts/train.py. The same command goes on
from the last checkpoint. In the end the folder holds the model with its code, its tokenizer and log.jsonl.
"""

from collections.abc import Sequence

from scripts.training.interruption import stop_at_once_on_signals


if __name__ == "__main__":
    stop_at_once_on_signals()  # the imports below take seconds

from scripts.training.launch import run_program
from scripts.training.lm_arguments import LMArguments
from scripts.training.text_experiment import TextExperiment


def parse_arguments(argv: Sequence[str] | None = None) -> LMArguments:
    """Read the flags; ends the program with status 2 and a message that names the field where one cannot be used."""
    usage = "--train_file FILE --output_dir DIR --max_steps N [--any_field value ...]"
    return LMArguments.parse(argv, usage, __doc__.splitlines()[0])


def main():
    """Parse the command line and run."""
    run_program("train_lm.py", parse_arguments, TextExperiment)


if __name__ == "__main__":
    main()
