"""One self-contained HTML page of a metrics.json: pictures, tables against baselines and papers, settings."""

import io
from dataclasses import asdict
from html import escape
from typing import Any

from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from scripts.evaluation.axes import LOGARITHMIC
from scripts.evaluation.component_table import component_table
from scripts.evaluation.figures import figures, title_of
from scripts.evaluation.metrics_record import Metrics


PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 62rem; padding: 1rem; color: #1a1a1a; }}
h1 {{ font-size: 1.5rem; line-height: 1.25; }} h2 {{ font-size: 1.15rem; margin-top: 2rem; }}
figure {{ margin: 0; overflow-x: auto; }} figure svg {{ width: 100%; min-width: 34rem; height: auto; }}
.table {{ overflow-x: auto; }}
table {{ border-collapse: collapse; font-size: .95rem; font-variant-numeric: tabular-nums; }}
th, td {{ padding: .25rem .5rem; text-align: right; border-bottom: 1px solid #ddd; white-space: nowrap; }}
th:first-child, td:first-child {{ text-align: left; position: sticky; left: 0; background: #fff; }}
tr.model td {{ font-weight: 600; color: #a84300; }}
table.settings td:last-child {{ text-align: left; white-space: normal; overflow-wrap: anywhere; }}
@media (max-width: 40rem) {{
  table {{ font-size: .85rem; }}
  th, td {{ padding: .25rem .4rem; }}
  th:first-child, td:first-child {{ white-space: normal; min-width: 6.5rem; max-width: 8rem; }}
  table.settings td:first-child {{ max-width: none; overflow-wrap: anywhere; }}
}}
.note {{ color: #555; }}
</style>
</head>
<body>
<h1>{title}</h1>
{body}
</body>
</html>
"""


ROUND_OFF = 1e-9  # smaller errors are those of an exact solver, shown as 0


def svg_of(figure: Figure) -> str:
    """Return the figure as an `<svg>` element for a page, and close it."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg")
    plt.close(figure)
    return buffer.getvalue()[buffer.getvalue().index("<svg") :]


def cell_text(value: Any) -> str:
    """A number to three significant digits, 0 where it is round-off; anything else as it is."""
    if not isinstance(value, float):
        return str(value)
    return "0" if abs(value) < ROUND_OFF else f"{value:.3g}"


def html_table(header: list[Any], rows: dict[str, list[Any]]) -> str:
    """An HTML table with one named row per predictor."""
    lines = ["<tr>" + "".join(f"<th>{escape(str(cell))}</th>" for cell in header) + "</tr>"]
    for name, values in rows.items():
        cells = [name, *map(cell_text, values)]
        kind = ' class="model"' if name.startswith("model") else ""
        lines.append(f"<tr{kind}>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>")
    return '<div class="table"><table>' + "\n".join(lines) + "</table></div>"


def error_table(metrics: Metrics) -> str:
    """Errors at some places: model, limit, baselines, papers."""
    curves, settings = dict(metrics.error_by_example), metrics.settings
    if metrics.limit:
        curves[f"limit: {settings.limit}"] = metrics.limit
        curves["model, excess over the limit"] = metrics.excess_over_limit
    curves |= {f"{name}, published": curve for name, curve in metrics.published.items()}
    last = settings.n_points - 1
    examples = sorted({0, *(last * i // 8 for i in range(1, 9))})
    rows = {name: [curve.error[n] if n < len(curve.error) else "" for n in examples] for name, curve in curves.items()}
    return html_table([settings.places, *(settings.place_numbers[n] for n in examples)], rows)


def shift_table(metrics: Metrics) -> str:
    """Errors at the last point under every shift."""
    columns = list(next(iter(metrics.shifts.values())))
    rows = {
        shift.replace("_", " "): [curves[name].error[-1] for name in columns]
        for shift, curves in metrics.shifts.items()
    }
    return html_table(["shift, last point", *columns], rows)


def excess_line(metrics: Metrics) -> list[str]:
    """A paragraph on the mean excess over the limit, where there is one."""
    if not (excess := metrics.mean_excess):
        return []
    interval = f"{excess.low:.3g} to {excess.high:.3g}"
    return [f"<p>Mean excess over the limit: <b>{excess.error:.3g}</b> ({interval}, 90%).</p>"]


def render_page(metrics: Metrics) -> str:
    """Return the whole page as HTML."""
    settings = metrics.settings
    drawn = {name: f"<figure>{svg_of(figure)}</figure>" for name, figure in figures(metrics).items()}
    is_squared = settings.score in LOGARITHMIC
    errors = "Squared errors divided by that of predicting 0" if is_squared else f"Errors: {settings.score}"
    parts = [
        f"<p>{settings.n_prompts} prompts. {escape(errors)}.</p>",
        *excess_line(metrics),
        drawn["error"],
        f"<h2>Error by number of {escape(settings.places)}</h2>",
        error_table(metrics),
    ]
    if metrics.certainty:
        measures, values = zip(*metrics.certainty.items(), strict=True)
        parts += ["<h2>Certainty</h2>", html_table(["", *measures], {"model": list(values)})]
    if metrics.stops:
        parts += ["<h2>Loops that each prompt needs</h2>", drawn["lengths"]]
    if metrics.shifts:
        parts += ["<h2>Shifted prompts</h2>", drawn["shifts"], shift_table(metrics)]
    if metrics.components:
        heads, rows = component_table(metrics)
        parts += ["<h2>Components</h2>", drawn["components"], html_table([settings.places, *heads], rows)]
        for name, part in metrics.components.items():
            parts += [f"<h3>{escape(name.replace('_', ' '))}</h3>", *excess_line(part), error_table(part)]
    about = {name: value for name, value in asdict(settings).items() if value is not None}
    about |= {f"version of {name}": version for name, version in metrics.versions.items()}
    rows = (f"<tr><td>{escape(name)}</td><td>{escape(str(value))}</td></tr>" for name, value in about.items())
    parts += ["<h2>Settings</h2>", '<table class="settings">' + "\n".join(rows) + "</table>"]
    return PAGE.format(title=escape(f"{settings.model} on {title_of(metrics)}"), body="\n".join(parts))
