"""Answer one prompt with a trained model; imports nothing of this project, only torch and transformers.

python scripts/predict.py --model runs/quickstart
"""

import argparse
import importlib.util

import torch
from transformers import AutoModel


def main():
    """Load the model with its code, show it examples of a hidden linear function and print its predictions by loop."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="Folder or Hub repository of an in-context regression model.")
    arguments = parser.parse_args()

    model = AutoModel.from_pretrained(arguments.model, trust_remote_code=True).eval()
    n_points = model.config.n_positions // 2
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(model.config.n_dims, generator=generator)
    xs = torch.randn(1, n_points, model.config.n_dims, generator=generator)
    ys = xs @ weights

    known = importlib.util.find_spec("modeling_looped_gpt2") is not None
    print(f"{type(model).__name__}, project importable: {known}")
    print(f"y after {n_points - 1} examples of a linear function: {ys[0, -1]:.3f}")
    for n_loops in (1, model.config.n_loops // 2, model.config.n_loops, 2 * model.config.n_loops):
        with torch.no_grad():
            prediction = model(xs, ys[:, :-1], n_loops=n_loops).predictions[0, -1]
        print(f"prediction with n_loops={n_loops}: {prediction:.3f}")


if __name__ == "__main__":
    main()
