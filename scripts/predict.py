"""Answer prompts with a trained model and the code that comes with it; imports nothing of this project.

python scripts/predict.py --model runs/quickstart --trust_remote_code
"""

import argparse
import importlib.util
import sys
from pathlib import Path

import torch
from transformers import AutoModel, PreTrainedConfig, PreTrainedModel, logging


KIND = "LoopedGPT2ForInContextRegression"


def parse_arguments() -> argparse.Namespace:
    """Read the command line; refuse a name that no model can have, and a run without `--trust_remote_code`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--model", required=True, help="Folder or Hub repository of an in-context regression model.")
    parser.add_argument("--revision", help="Branch, tag or commit of the repository. Default: main.")
    parser.add_argument("--trust_remote_code", action="store_true", help="Run the code that comes with the model.")
    arguments = parser.parse_args()
    path = Path(arguments.model)
    # runs/ is where this project's commands write
    can_be_repository = len(path.parts) == 2 and not arguments.model.startswith((".", "~", "/", "runs/"))
    if not path.is_dir() and (not can_be_repository or path.exists() or path.parent.is_dir()):
        parser.error(f"there is no folder {path}; a repository of the Hub is named owner/model")
    if not arguments.trust_remote_code:
        parser.error(f"this runs the code that comes with {path}: if you trust it, add --trust_remote_code")
    return arguments


def load(name: str, revision: str | None) -> PreTrainedModel:
    """Load a model by its own code; raises `ValueError` where it is of another kind or lacks weights."""
    source = {"revision": revision} if revision else {}
    kinds = PreTrainedConfig.get_config_dict(name, **source)[0].get("architectures")
    if kinds != [KIND]:  # before any of its code is run
        raise ValueError(f"its config.json must name `architectures` [{KIND!r}], got {kinds}")
    logging.disable_progress_bar()
    model, report = AutoModel.from_pretrained(name, trust_remote_code=True, output_loading_info=True, **source)
    wrong = [key for kind in ("missing_keys", "unexpected_keys", "mismatched_keys") for key in report[kind]]
    if wrong:
        raise ValueError(f"its weights are not those of its config.json: {sorted(map(str, wrong))[:3]}")
    return model.eval()


def main():
    """Load the model with its code, show it examples of hidden linear functions and print its error by loop."""
    arguments = parse_arguments()
    try:
        model = load(arguments.model, arguments.revision)
    except Exception as error:  # code of others may raise anything
        sys.exit(f"predict.py: error: {arguments.model} cannot be loaded: {' '.join(str(error).split())}")
    n_dims, n_points = model.config.n_dims, (model.config.n_positions + 1) // 2
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
