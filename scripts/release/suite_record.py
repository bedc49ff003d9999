"""What a card shows of the suite of real tables: a model beside the classical methods, by loops, best and worst."""

from typing import Any

from scripts.evaluation.metrics_record import Settings
from scripts.release.files import ReleaseError
from scripts.release.markdown import Markdown, number, table
from scripts.suite.comparison import RANKED_BY, compare
from scripts.suite.report import HEADINGS, SHOWN


N_SHOWN = 3  # tables at which the model is the furthest ahead, and behind


class SuiteRecord:
    """
    A copy of the summary.json of scripts/table_suite.py, read for one of its models.

    Args:
        summary (`dict`):
            Its content.
        settings ([`Settings`]), n_loops (`int`):
            Those of the model's evaluation, and its trained loops.

    Raises:
        [`ReleaseError`]: it is of other models, or not of the trained loops.
    """

    def __init__(self, summary: dict[str, Any], settings: Settings, n_loops: int):
        mine = [each for each in summary["models"].values() if each["weights_sha256"] == settings.weights_sha256]
        if not mine:
            raise ReleaseError(
                "the suite was run on other weights than metrics.json was measured on: run scripts/table_suite.py."
            )
        self.split, self.n_loops = summary["split"], n_loops
        # methods by their loops, in the order of these
        self.by_loops = {loops or n_loops: method for method, loops in mine[0]["n_loops"].items()}
        self.by_loops = dict(sorted(self.by_loops.items()))
        if n_loops not in self.by_loops:
            raise ReleaseError(
                f"the suite was not run with the trained number of loops, {n_loops}: run scripts/table_suite.py with "
                f"--n_loops {n_loops} too."
            )
        models = {method for each in summary["models"].values() for method in each["n_loops"]}
        self.comparisons = [each for each in summary["comparisons"] if self.by_loops[n_loops] in each["methods"]]
        self.classical = [name for name in self.comparisons[0]["methods"] if name not in models]

    @property
    def middle(self) -> dict[str, Any]:
        """The comparison at the middle one of the numbers of training rows."""
        return sorted(self.comparisons, key=lambda each: each["rows"])[len(self.comparisons) // 2]

    @property
    def kind(self) -> str:
        """What the answers are."""
        return self.middle["kind"]

    def compared(self, comparison: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """The methods by name, ranked among each other, this model first as `"this model"`."""
        named = {"this model": self.by_loops[self.n_loops]} | {name: name for name in self.classical}
        of_tables = [{name: of[method] for name, method in named.items()} for of in comparison["tables"].values()]
        return compare(self.kind, of_tables, self.classical)

    def tables(self) -> dict[int, dict[str, Any]]:
        """By number of training rows, how many tables there are, and the `"methods"` as a table."""
        return {
            each["rows"]: {"n_tables": len(each["tables"]), "methods": self._methods(each)}
            for each in self.comparisons
        }

    def _methods(self, comparison: dict[str, Any]) -> Markdown:
        ranked, shown = RANKED_BY[self.kind], SHOWN[self.kind]
        rows = {}
        for name, entry in self.compared(comparison).items():
            places = (entry[f"rank_by_{metric}"] for metric in ranked)
            cells = [f"{place['mean']:.2f} [{place['low']:.2f}, {place['high']:.2f}]" for place in places]
            label = Markdown(f"**{name}**") if name == "this model" else name
            rows[label] = [*map(Markdown, cells), *(number(entry[metric]) for metric in shown)]
        headings = [f"mean rank by {HEADINGS[metric]}" for metric in ranked]
        return table([*headings, *(HEADINGS[metric] for metric in shown)], "method", rows)

    def loops(self) -> Markdown | None:
        """A table of the metrics by the number of loops; `None` where one number was measured."""
        if len(self.by_loops) == 1:
            return None
        shown = [metric for metric in SHOWN[self.kind] if not metric.startswith("fit")]
        methods = self.middle["methods"]
        rows = {loops: [number(methods[name][metric]) for metric in shown] for loops, name in self.by_loops.items()}
        return table([HEADINGS[metric] for metric in shown], "loops", rows)

    @property
    def ranked_by(self) -> str:
        """The entry of a method in `compared` that holds its mean rank by the first metric."""
        return f"rank_by_{RANKED_BY[self.kind][0]}"

    @property
    def measure(self) -> str:
        """The first metric, as a heading."""
        return HEADINGS[RANKED_BY[self.kind][0]]

    def extremes(self) -> dict[str, Markdown]:
        """Tables where the model is `"ahead"` of the best classical method, and `"behind"`, by the first metric."""
        metric, rows = RANKED_BY[self.kind][0], {}
        for name, of in self.middle["tables"].items():
            own = of[self.by_loops[self.n_loops]][metric]
            best = max(self.classical, key=lambda method: of[method][metric])
            rows[name] = (f"{own:.3f}", best, f"{of[best][metric]:.3f}", own - of[best][metric])
        order = sorted(rows, key=lambda name: rows[name][-1])
        columns = ["this model", "best of the others", f"its {self.measure}", "difference"]
        groups = {"behind": order[:N_SHOWN], "ahead": order[::-1][:N_SHOWN]}
        return {
            side: table(columns, "table", {name: [*rows[name][:-1], f"{rows[name][-1]:+.3f}"] for name in names})
            for side, names in groups.items()
        }
