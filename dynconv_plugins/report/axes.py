"""What the report's drawings share: their size, legends below them, and logarithmic axes with plain numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from .studio import plt

SIZE = (4.7, 3.1)
MARGINS = {"left": 0.115, "right": 0.985, "bottom": 0.14, "top": 0.91}
FAR = 20


def labelled(axes: plt.Axes) -> list[np.ndarray]:
    """The finite heights of the lines that the legend names; one without any is left out."""
    heights = (np.asarray(line.get_ydata(), float) for line in axes.lines if not line.get_label().startswith("_"))
    return [y[np.isfinite(y)] for y in heights if np.isfinite(y).any()]


def apart(heights: Sequence[np.ndarray]) -> bool:
    """Whether one line makes the others flat: it rises `FAR` times as high as the middle one of them, and all are
    positive, as a logarithm wants it."""
    if not heights or min(y.min() for y in heights) <= 0:
        return False
    tops = sorted(y.max() for y in heights)
    return bool(tops[-1] > FAR * tops[(len(tops) - 1) // 2])


def upright(axes: plt.Axes) -> bool:
    """Makes the upright axis logarithmic where one line would make the others flat; tells whether it did."""
    heights = labelled(axes)
    if not apart(heights):
        return False
    axes.set_yscale("log")
    # Bands may reach down to zero, which lies infinitely far below.
    axes.set_ylim(min(y.min() for y in heights) / 1.2, max(y.max() for y in heights) * 1.2)
    axes.yaxis.set_major_locator(LogLocator(numticks=6))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    return True


def decades(axes: plt.Axes, values: Sequence[float], named: bool) -> None:
    """A logarithmic level axis with a few plain numbers on it, and room at its left for names."""
    low, high = min(values), max(values)
    axes.set_xscale("log")
    room = (high / low) ** 0.35 * 1.2 if named else 1.0
    axes.set_xlim(low / 1.35 / room, high * 1.35)
    # Labels of values that lie close together would run into each other.
    near = high / low < 1.5
    ticks = np.geomspace(low / 1.2, high * 1.2, 3) if near else np.geomspace(low, high, 4)
    ticks = np.unique([float(f"{t:.2g}") for t in ticks])
    axes.set_xticks(ticks)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.minorticks_off()


def legend(axes: plt.Axes) -> None:
    """Below the picture: inside, it would hide what it explains."""
    handles, labels = axes.get_legend_handles_labels()
    if labels:
        longest = max(len(label) for label in labels)
        columns = min(len(labels), max(1, int(SIZE[0] / (0.5 + 0.085 * longest))))
        place = {"loc": "upper center", "bbox_to_anchor": (0.47, -0.17), "ncol": columns}
        axes.legend(handles, labels, **place, columnspacing=1.2, handletextpad=0.5)
