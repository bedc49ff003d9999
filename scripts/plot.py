"""Draw a metrics.json: the error by number of examples and by loop (figure 2 of Yang et al.), and under every shift.

python scripts/plot.py --metrics runs/linear/metrics.json --output_dir runs/linear
"""

import argparse
import sys
from pathlib import Path

from scripts.common.output_folder import claim_beside
from scripts.evaluation.figures import plot_metrics
from scripts.evaluation.metrics_record import Metrics


def main():
    """Read the metrics and draw them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--metrics", type=Path, required=True, help="metrics.json written by scripts/evaluate.py.")
    parser.add_argument("--output_dir", type=Path, required=True, help="Folder the pictures are written to.")
    arguments = parser.parse_args()
    try:
        metrics = Metrics.read(arguments.metrics)
        claim_beside(arguments.output_dir, metrics.settings.weights_sha256)
        paths = plot_metrics(metrics, arguments.output_dir)
    except (OSError, ValueError) as error:
        sys.exit(f"plot.py: error: {error}")
    print(*paths, sep="\n")


if __name__ == "__main__":
    main()
