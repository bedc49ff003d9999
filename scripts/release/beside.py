"""Records beside a model of what others reached: the program that writes one."""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from scripts.common.output_folder import check_beside
from scripts.common.records import METRICS_FILE, write_atomically
from scripts.evaluation.metrics_record import Metrics
from scripts.release.markdown import one_line


def record_others(program: str, doc: str, others: str, file: str, read: Callable[[Path, Sequence[Path]], Any]):
    """
    Read the command line, and write what `read` finds in the folders of other models into the model's own.

    Args:
        program (`str`), doc (`str`):
            Name of the program for its errors, and its docstring.
        others (`str`):
            What the other models are, for the help.
        file (`str`):
            Name of the record.
        read (`Callable`):
            From the folders of the model and of the others to the content of the record; raises `ValueError` where
            there is none.
    """
    parser = argparse.ArgumentParser(description=doc.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--model", type=Path, required=True, help="Folder of the trained and evaluated model.")
    parser.add_argument(
        "--others", type=Path, nargs="+", required=True, help=f"Folders of the evaluated models of {others}."
    )
    arguments = parser.parse_args()
    path = arguments.model / file
    try:
        content = read(arguments.model, arguments.others)
        check_beside(arguments.model, Metrics.read(arguments.model / METRICS_FILE).settings.weights_sha256)
        write_atomically(path, json.dumps(content) + "\n")
    except (OSError, ValueError) as error:
        sys.exit(f"{program}: error: {one_line(str(error))}")
    print(path)
