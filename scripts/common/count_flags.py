"""Flags that are counts, with their defaults."""

import argparse
from collections.abc import Mapping


def parse_counts(
    parser: argparse.ArgumentParser, counts: Mapping[str, int], least: Mapping[str, int] | None = None
) -> argparse.Namespace:
    """
    Read the command line with a flag for each of `counts`, a mapping of names to defaults.

    Ends the program with status 2 and a message that names the flag where a count is below its `least` (default 1).
    """
    for name, default in counts.items():
        parser.add_argument(f"--{name}", type=int, default=default, help=f"Default: {default}.")
    arguments = parser.parse_args()
    check_counts(parser, arguments, dict.fromkeys(counts, 1) | dict(least or {}))
    return arguments


def check_counts(parser: argparse.ArgumentParser, arguments: argparse.Namespace, least: Mapping[str, int]):
    """End the program, as [`parse_counts`] does, where one of the `arguments` is given and below its `least`."""
    for name, smallest in least.items():
        value = getattr(arguments, name)
        if value is not None and value < smallest:
            parser.error(f"`{name}` must be >= {smallest}, got {value}")
