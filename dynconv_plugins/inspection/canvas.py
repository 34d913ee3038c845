"""What the sections of the picture share: headings, grids of panels, colour bars, and which layers are drawn."""

from __future__ import annotations

import re

import matplotlib

matplotlib.use("Agg")

import numpy as np
from matplotlib.figure import SubFigure

from .layers import Layer

MOST = 24  # layers in one section: more are unreadable


def some(layers: list[Layer]) -> tuple[list[Layer], str]:
    """At most `MOST` layers at even distances, the first and the last among them, and what to say about it."""
    if len(layers) <= MOST:
        return layers, ""
    picks = np.unique(np.linspace(0, len(layers) - 1, MOST).round().astype(int))
    return [layers[i] for i in picks], f" ({len(picks)} of {len(layers)} layers; the JSON file has all)"


def short(name: str) -> str:
    """A layer's name for a narrow panel: ``layer1.0.conv2`` as ``l1.0.c2``, without mmseg's wrappers."""
    name = name.removeprefix("backbone.").removeprefix("model.")
    return re.sub(r"\.conv(?=\d)", ".c", re.sub(r"^layer(?=\d)", "l", name))


def height(part: SubFigure) -> float:
    """In inches."""
    return part.bbox.height / part.figure.dpi


def below(part: SubFigure, inches: float = 0.5) -> float:
    """Where the drawing begins below a heading, as a part of the height."""
    return 1 - inches / height(part)


def heading(part: SubFigure, text: str, note: str) -> None:
    """At the top left of a section."""
    part.text(0.01, 1 - 0.08 / height(part), text + note, ha="left", va="top", fontsize=10, fontweight="bold")


def grid(part: SubFigure, rows: int, columns: int, top: float) -> np.ndarray:
    """Axes ``[rows, columns]``, with room for a colour bar at the right."""
    options = {"left": 0.03, "right": 0.93, "bottom": 0.03, "top": top, "wspace": 0.15, "hspace": 0.35}
    return part.subplots(rows, columns, squeeze=False, gridspec_kw=options)


def blank(cells: np.ndarray) -> None:
    """Takes ticks and frames away."""
    for axes in cells.flat:
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_visible(False)


def bar(part: SubFigure, drawn) -> None:
    """A colour bar at the right."""
    place = part.add_axes((0.95, 0.12, 0.012, max(0.1, below(part) - 0.2)))
    drawn_bar = part.colorbar(drawn, cax=place)
    drawn_bar.outline.set_visible(False)
    drawn_bar.ax.tick_params(labelsize=7)
