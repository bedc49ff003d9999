"""The picture of prompts that need loops of their own: right answers by length and loops."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from scripts.evaluation.axes import plain
from scripts.evaluation.metrics_record import NEEDED_LOOPS, Metrics


def length_figure(metrics: Metrics) -> Figure:
    """Shares of right answers at every length after every loop, and the loops that each length needs."""
    settings, errors = metrics.settings, np.array(metrics.error_by_loop_and_place)  # (L, lengths)
    lengths = settings.place_numbers
    figure, axes = plt.subplots(figsize=(6, 4.2), layout="constrained")
    extent = (lengths[0] - 0.5, lengths[-1] + 0.5, 0.5, len(errors) + 0.5)
    image = axes.imshow(1 - errors, cmap="viridis", vmin=0, vmax=1, origin="lower", aspect="auto", extent=extent)
    needed = metrics.stops[NEEDED_LOOPS].mean_loops
    axes.plot(lengths, needed, color="white", marker="." if len(lengths) == 1 else None, label="loops it needs")
    axes.legend(loc="upper left", fontsize=8, labelcolor="white", facecolor="black", framealpha=0.6)
    axes.set_xlabel(plain(settings.place))
    axes.set_ylabel("loops")
    axes.xaxis.get_major_locator().set_params(integer=True)
    figure.colorbar(image, ax=axes, label="share of whole answers that are right")
    figure.suptitle(plain(settings.task.replace("_", " ")))
    return figure
