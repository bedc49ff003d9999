"""Answer prompts with a trained model; imports nothing of this project, only torch and transformers.

python scripts/predict.py --model runs/quickstart
"""

import argparse
import importlib.util

import torch
from transformers import AutoModel


def main():
    """Load the model with its code, show it examples of hidden linear functions and print its error by loop."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="Folder or Hub repository of an in-context regression model.")
    arguments = parser.parse_args()

    try:
        model = AutoModel.from_pretrained(arguments.model, trust_remote_code=True).eval()
    except OSError as error:
        parser.error(f"`--model` must be a finished run or a Hub repository, got {arguments.model}: {error}")
    n_dims, n_points = model.config.n_dims, model.config.n_positions // 2
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(256, n_dims, 1, generator=generator)
    xs = torch.randn(256, n_points, n_dims, generator=generator)
    ys = (xs @ weights).squeeze(-1)

    known = importlib.util.find_spec("modeling_looped_gpt2") is not None
    print(f"{type(model).__name__}, trained with {model.config.n_loops} loops, project importable: {known}")
    print(f"256 linear functions, {n_points - 1} examples each; predicting 0 has an error near 1")
    for n_loops in sorted({1, (model.config.n_loops + 1) // 2, model.config.n_loops}):
        with torch.no_grad():
            predictions = model(xs, ys[:, :-1], n_loops=n_loops).predictions[:, -1]
        error = (predictions - ys[:, -1]).square().mean() / n_dims
        print(f"n_loops={n_loops}: error {error:.3f}, first y {ys[0, -1]:.3f}, predicted {predictions[0]:.3f}")


if __name__ == "__main__":
    main()
