"""Print the rows of a benchmark."""

from collections.abc import Iterable, Sequence

from scripts.benchmarks.timing import Rows


def print_rows(heads: Sequence[str], rows: Iterable[Sequence[str]]):
    """Print rows below their heads, each column aligned to the right and as wide as its widest cell."""
    cells = [heads, *rows]
    widths = [2 + max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        print("".join(f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True)))


def print_steps(rows: dict[str, Rows], peaks: dict[str, float]):
    """Print the timing of every step, with its share of the peak rate in its precision."""

    def cells(what: str, who: str, row: dict) -> list[str]:
        is_training = what.startswith("training step") and who in ("LoopedGPT2", "compiled")
        peak, naive = peaks["training" if is_training else "float32"], rows[what].get("naive")
        return [
            *(what, who, *(f"{row[name]:.4f}" for name in ("median", "min", "max")), f"{row['flop'] / 1e9:.1f}"),
            f"{row['flop'] / row['median'] / peak:.0%}" if row["flop"] else "",
            f"{row['peak_bytes'] / 1e6:.1f}" if row["peak_bytes"] else "",
            f"{naive['median'] / row['median']:.2f} x" if naive else "",
        ]

    heads = ("", "", "median s", "min", "max", "GFLOP", "of peak", "MB", "naive takes")
    print_rows(heads, [cells(what, who, row) for what, timings in rows.items() for who, row in timings.items()])


def print_memory(rows: Rows):
    """Print the memory that steps take."""
    cells = [(what, f"{row['peak_bytes'] / 1e6:.1f}", f"{row['median']:.3f}") for what, row in rows.items()]
    print()
    print_rows(("memory", "MB", "median s"), cells)


def print_adaptive_loops(rows: Rows):
    """Print what adaptive loops save."""
    cells = [
        (what, f"{row['mean_loops']:.2f}", f"{row['error']:.4g}", f"{row['median']:.4f}") for what, row in rows.items()
    ]
    print()
    print_rows(("adaptive loops", "mean loops", "error", "median s"), cells)


def print_stop_rules(rows: Rows):
    """Print what stop rules are worth beside a random exit, whose error is worse by `gain` and its 90% interval."""
    errors = ("error", "random_error", "fixed_error")
    cells = [
        (
            what,
            f"{row['mean_loops']:.2f}",
            *(f"{row[name]:.4g}" for name in errors),
            f"{row['gain']:.3g} ({row['gain_low']:.3g} to {row['gain_high']:.3g})",
            "yes" if row["beats_random"] else "no",
        )
        for what, row in rows.items()
    ]
    print_rows(("rule", "mean loops", "error", "at random", "fixed", "gain (90%)", "beats random"), cells)
