"""
scripts/train.py with an accident at a chosen moment: `interrupted_train.py KIND:STEP[:RANK] flags ...`.

Step 0 is before the first, in a folder that is claimed. A disk is full from the start.
"""

import os
import resource
import signal
import sys

from accelerate import Accelerator

from scripts import train
from scripts.training.trainer import Trainer


SIGNALS = {
    "kill": (signal.SIGKILL,),
    "terminate": (signal.SIGTERM,),
    "interrupt": (signal.SIGINT,),
    "interrupt_twice": (signal.SIGINT, signal.SIGINT),
}


def main():
    kind, step, *rank = sys.argv.pop(1).split(":")
    step = int(step)
    here = not rank or os.environ.get("RANK", "0") == rank[0]
    set_up, take_step, write_state = Trainer.prepare, Trainer.training_step, Accelerator.save_state
    steps_taken, signals = [], SIGNALS.get(kind, ())
    if kind == "full_disk":
        resource.setrlimit(resource.RLIMIT_FSIZE, (8000, 8000))

    def prepare(self, model):
        set_up(self, model)
        if here and step == 0:
            for number in signals:
                os.kill(os.getpid(), number)

    def training_step(self, index, batch):
        measured = take_step(self, index, batch)
        steps_taken.append(index)
        if here and index + 1 == step:
            for number in signals:
                os.kill(os.getpid(), number)
        if here and index + 1 == step and kind == "not_finite":
            measured["loss"] = measured["loss"] * float("nan")
        return measured

    def save_state(self, output_dir):
        location = write_state(self, output_dir)
        if here and kind == "kill_while_saving" and steps_taken[-1] + 1 == step:
            os.truncate(os.path.join(output_dir, "model.safetensors"), 100)
            os.kill(os.getpid(), signal.SIGKILL)
        return location

    Trainer.prepare = prepare
    Trainer.training_step = training_step
    Accelerator.save_state = save_state
    train.main()


if __name__ == "__main__":
    main()
