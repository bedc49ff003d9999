"""How a training program ends by a signal while it has nothing to save: at once, in one line."""

import os
import signal
import sys
from pathlib import Path
from types import FrameType


SIGNALS = (signal.SIGINT, signal.SIGTERM)


def stop_at_once(number: int, frame: FrameType | None = None):
    """Handle signal `number`: end the program with the shell's status for it, 130 for SIGINT and 143 for SIGTERM."""
    name = signal.Signals(number).name
    line = f"{Path(sys.argv[0]).name}: stopped at once by {name}; the same command goes on from the last checkpoint.\n"
    os.write(sys.stderr.fileno(), line.encode())
    os._exit(128 + number)  # an exception would have to pass through whatever is being imported or written


def stop_at_once_on_signals():
    """Let SIGINT and SIGTERM call [`stop_at_once`]; called before the imports of a program, which take seconds."""
    for number in SIGNALS:
        signal.signal(number, stop_at_once)
