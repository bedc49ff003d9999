"""A function class of your own: sine waves of unknown frequency and phase. See own_function_class.md.

python docs/sine_regression.py train --recipe docs/sine_regression.yaml --output_dir runs/sine
python docs/sine_regression.py evaluate --model runs/sine --task sine_regression --output_dir runs/sine
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass

import torch

from tasks import TASKS, FunctionClass


@dataclass(frozen=True)
class SineRegression(FunctionClass):
    """
    y = sqrt(2) sin(frequency x_1 + phase), of one frequency and one phase per prompt.

    Args:
        max_frequency (`float`, defaults to 3.0):
            Frequencies are uniform in 0 ... `max_frequency`, > 0.
    """

    name = "sine_regression"
    description = "sine waves"
    max_frequency: float = 3.0

    @property
    def normaliser(self) -> float:
        return 1.0  # the phase is uniform, so y² is sin² of a uniform angle, twice

    def draw_functions(
        self, n_prompts: int, n_dims_active: int, generator: torch.Generator
    ) -> Callable[[torch.Tensor], torch.Tensor]:
        draws = torch.rand((n_prompts, 2, 1), generator=generator, device=generator.device)
        frequencies, phases = self.max_frequency * draws[:, 0], 2 * torch.pi * draws[:, 1]
        return lambda xs: 2**0.5 * torch.sin(frequencies * xs[..., 0] + phases)


TASKS[SineRegression.name] = SineRegression

if __name__ == "__main__":
    program = sys.argv.pop(1)
    if program == "train":
        from scripts.train import main
    else:
        from scripts.evaluate import main
    main()
