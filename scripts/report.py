"""Write one self-contained HTML page from a metrics.json: pictures, tables against baselines and papers, settings.

python scripts/report.py --metrics runs/linear/metrics.json --output_dir runs/linear
"""

import argparse
import sys
from pathlib import Path

from scripts.common.output_folder import claim_beside
from scripts.common.records import write_atomically
from scripts.evaluation.metrics_record import Metrics
from scripts.evaluation.report_page import render_page


def main():
    """Read the metrics and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--metrics", type=Path, required=True, help="metrics.json written by scripts/evaluate.py.")
    parser.add_argument("--output_dir", type=Path, required=True, help="Folder report.html is written to.")
    arguments = parser.parse_args()
    try:
        metrics = Metrics.read(arguments.metrics)
        claim_beside(arguments.output_dir, metrics.settings.weights_sha256)
        write_atomically(arguments.output_dir / "report.html", render_page(metrics))
    except (OSError, ValueError) as error:
        sys.exit(f"report.py: error: {error}")
    print(arguments.output_dir / "report.html")


if __name__ == "__main__":
    main()
