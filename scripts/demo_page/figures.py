"""The elements of all figures of the page: small, so that their text can be read on a phone."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


WIDTH, BOTTOM, GAP = 4.0, 0.48, 0.24  # inches


def start_figure() -> Axes:
    """Return the axes of a figure that has one panel."""
    return start_panels(1, height=2.4, top=0.12)[0]


def start_panels(n_panels: int, height: float, top: float) -> list[Axes]:
    """
    Return the axes of a figure with panels below each other, from the upper one on.

    Args:
        n_panels (`int`):
            Panels, >= 1.
        height (`float`), top (`float`):
            Height of each, and space above the first, in inches.
    """
    total = BOTTOM + n_panels * height + (n_panels - 1) * GAP + top
    # fixed margins, as finding them takes as long as drawing
    figure = Figure(figsize=(WIDTH, total), dpi=160)
    bottoms = [BOTTOM + number * (height + GAP) for number in reversed(range(n_panels))]
    return [figure.add_axes((0.21, bottom / total, 0.76, height / total)) for bottom in bottoms]


def finish(axes: Axes) -> Figure:
    """Apply the style of all panels, and add a legend; returns the figure."""
    axes.legend(fontsize=9, frameon=False)
    return style(axes)


def style(axes: Axes) -> Figure:
    """Apply the style of all panels; returns the figure."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, linewidth=0.6)
    return axes.figure


def pixels(figure: Figure) -> np.ndarray:
    """Return a figure as an image `(height, width, 3)`, uint8."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]
