"""One picture of what every layer's attention did, drawn by matplotlib."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure, SubFigure

from . import canvas
from .canvas import short
from .layers import Layer

COLUMNS = 8
WIDTH = 12.0
COLOURS = ("#2f7de1", "#d9610f", "#0b9a6d", "#a855f7", "#d63384", "#0e93a8", "#a37008", "#e0483e")
STYLE = {"font.size": 9, "font.family": "sans-serif", "axes.titlesize": 8, "figure.facecolor": "white"}

Section = tuple[float, Callable[[SubFigure], None]]


def draw(
    layers: Sequence[Layer],
    shown: np.ndarray,
    title: str,
    about: str,
    top: Sequence[tuple[str, float]],
    says: str = "prediction",
) -> Figure:
    """Draws the input, the prediction, and each kind of factor that occurs.

    Args:
        layers: In the order in which they ran.
        shown: The input for the eye: an image ``[H, W, 3]`` in 0..1, or a series ``[variables, steps]``.
        title: Of the whole.
        about: A line below it.
        top: The likeliest classes with their probabilities; may be empty.
        says: What these are.
    """
    sections: list[Section] = [(2.9, lambda part: _head(part, shown, title, about, top, says))]
    for make in (_mixes, _maps, _taps, _gates, _latent):
        sections += make(layers, shown)
    with plt.rc_context(STYLE):
        heights = [height for height, _ in sections]
        figure = plt.figure(figsize=(WIDTH, sum(heights)))
        parts = np.atleast_1d(figure.subfigures(len(sections), 1, height_ratios=heights))
        for part, (_, paint) in zip(parts, sections, strict=True):
            paint(part)
    return figure


def _head(
    part: SubFigure, shown: np.ndarray, title: str, about: str, top: Sequence[tuple[str, float]], says: str
) -> None:
    part.text(0.01, 0.97, title, ha="left", va="top", fontsize=12, fontweight="bold")
    part.text(0.01, 0.88, about, ha="left", va="top", fontsize=8, color="#4b5563")
    flat = shown.ndim == 2
    ratios = {"width_ratios": [2.2 if flat else 1, 1.4], "left": 0.05, "right": 0.97, "bottom": 0.12, "top": 0.73}
    left, right = part.subplots(1, 2, gridspec_kw={**ratios, "wspace": 0.35})
    _input(left, shown)
    if not top:
        right.set_axis_off()
        return
    names, values = [name for name, _ in top][::-1], [value for _, value in top][::-1]
    right.barh(range(len(names)), values, color=COLOURS[0], height=0.6)
    right.set_yticks(range(len(names)), names)
    right.set_xlim(0, 1.12 * max(values))
    right.set_xticks([])
    right.spines[["top", "right", "bottom", "left"]].set_visible(False)
    right.tick_params(length=0)
    right.set_title(says, loc="left", fontsize=9)
    for i, value in enumerate(values):
        right.text(value, i, f" {value:.1%}", va="center", fontsize=8)


def _mixes(layers: Sequence[Layer], shown: np.ndarray) -> list[Section]:
    """How much of each kernel every layer took."""
    chosen, note = canvas.some([layer for layer in layers if layer.kernel is not None])
    if not chosen:
        return []
    text = "Weight of each kernel" + (", the mean over positions" if chosen[0].kernel_map is not None else "")
    if chosen[0].labels[0].endswith("°"):
        text = "Share of the outputs that each rotation wins"

    def paint(part: SubFigure) -> None:
        canvas.heading(part, text, note)
        axes = part.subplots(gridspec_kw={"left": 0.16, "right": 0.93, "bottom": 0.06, "top": canvas.below(part)})
        most = max(len(layer.kernel) for layer in chosen)
        grid = np.full((len(chosen), most), np.nan)
        for row, layer in zip(grid, chosen, strict=True):
            row[: len(layer.kernel)] = layer.kernel
        # An even mix lies in the middle of the colours at the brightest.
        high = max(np.nanmax(grid), 2 / most)
        drawn = axes.imshow(grid, aspect="auto", cmap="viridis", vmin=0, vmax=high)
        for (i, k), value in np.ndenumerate(grid):
            if np.isfinite(value):
                colour = "white" if value < 0.6 * high else "black"
                axes.text(k, i, f"{value:.2f}", ha="center", va="center", fontsize=7, color=colour)
        axes.set_yticks(range(len(chosen)), [short(layer.name) for layer in chosen], fontsize=7)
        labels = max((layer.labels for layer in chosen), key=len)
        axes.set_xticks(range(most), labels, fontsize=7)
        axes.xaxis.tick_top()
        axes.tick_params(length=0)
        canvas.bar(part, drawn)

    return [(0.75 + 0.2 * len(chosen), paint)]


def _maps(layers: Sequence[Layer], shown: np.ndarray) -> list[Section]:
    """Which kernel leads at each position, over the input."""
    chosen, note = canvas.some([layer for layer in layers if layer.kernel_map is not None])
    if not chosen:
        return []
    flat = shown.ndim == 2
    columns = 4 if flat else COLUMNS
    rows = -(-len(chosen) // columns)
    labels = max((layer.labels for layer in chosen), key=len)
    what = "rotation wins most filters" if labels[0].endswith("°") else "kernel weighs most"

    def paint(part: SubFigure) -> None:
        canvas.heading(part, f"Which {what}, by position; the stronger the colour, the further ahead", note)
        cells = canvas.grid(part, rows, columns, canvas.below(part, 0.8))
        for axes, layer in zip(cells.flat, chosen, strict=False):
            painted, ahead = leading(layer.kernel_map)
            if flat:
                axes.imshow(
                    painted[None], aspect="auto", extent=(0, shown.shape[1], 0, 1), alpha=(0.1 + 0.8 * ahead)[None]
                )
                line = shown[0] - shown[0].min()
                axes.plot(np.arange(len(line)) + 0.5, 0.08 + 0.84 * line / max(line.max(), 1e-9), "#111827", lw=0.9)
            else:
                grey = shown.mean(2)
                extent = (0, grey.shape[1], grey.shape[0], 0)
                axes.imshow(grey, cmap="gray", vmin=-0.3, vmax=1.3, extent=extent)
                axes.imshow(painted, extent=extent, alpha=0.15 + 0.7 * ahead, interpolation="nearest")
            axes.set_title(f"{short(layer.name)}  {'x'.join(map(str, layer.kernel_map.shape[1:]))}", fontsize=7)
        canvas.blank(cells)
        marks = [plt.Rectangle((0, 0), 1, 1, color=COLOURS[k % len(COLOURS)]) for k in range(len(labels))]
        place = (0.02, 1 - 0.27 / canvas.height(part))
        part.legend(marks, labels, loc="upper left", bbox_to_anchor=place, ncols=8, frameon=False, fontsize=8)

    return [(0.85 + (0.95 if flat else 1.5) * rows, paint)]


def leading(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The colour of the first of weights ``[K, *S]`` at each position, and how far ahead of an even mix it is, 0..1."""
    shares = weights / np.maximum(weights.sum(0, keepdims=True), 1e-12)
    even = 1 / len(shares)
    palette = np.array([[int(c[i : i + 2], 16) / 255 for i in (1, 3, 5)] for c in COLOURS])
    return palette[shares.argmax(0) % len(palette)], np.clip((shares.max(0) - even) / (1 - even), 0, 1) ** 0.5


def _taps(layers: Sequence[Layer], shown: np.ndarray) -> list[Section]:
    """Factors of the kernel's positions."""
    chosen, note = canvas.some([layer for layer in layers if layer.spatial is not None])
    if not chosen:
        return []
    panels = [np.atleast_2d(_plane(layer.spatial)) for layer in chosen]
    low, high = min(p.min() for p in panels), max(p.max() for p in panels)
    rows = -(-len(chosen) // COLUMNS)

    def paint(part: SubFigure) -> None:
        canvas.heading(part, f"Factors of the taps, {low:.2f} (dark) to {high:.2f}", note)
        cells = canvas.grid(part, rows, COLUMNS, canvas.below(part))
        for axes, layer, panel in zip(cells.flat, chosen, panels, strict=False):
            drawn = axes.imshow(panel, cmap="viridis", vmin=low, vmax=max(high, low + 1e-6))
            axes.set_title(short(layer.name), fontsize=7)
        canvas.blank(cells)
        canvas.bar(part, drawn)

    return [(0.5 + (1.2 if panels[0].shape[0] > 1 else 0.6) * rows, paint)]


def _gates(layers: Sequence[Layer], shown: np.ndarray) -> list[Section]:
    """Factors of channels and filters, a strip a layer, each sorted: what counts is how many are how far open."""
    made: list[Section] = []
    for kind, text in (
        ("channels", "Factors of the input channels, sorted"),
        ("filters", "Factors of the filters, sorted"),
        ("task mask", "Part of each filter that the task's mask leaves on, sorted; the same for all inputs"),
    ):
        chosen, note = canvas.some([layer for layer in layers if kind in layer.gates])
        if chosen:
            made.append((0.45 + 0.24 * len(chosen), _strips(kind, text, chosen, note)))
    return made


def _strips(kind: str, text: str, chosen: Sequence[Layer], note: str) -> Callable[[SubFigure], None]:
    high = 1.0 if max(layer.gates[kind].max() for layer in chosen) <= 1 else 2.0

    def paint(part: SubFigure) -> None:
        canvas.heading(part, text, note)
        options = {"left": 0.16, "right": 0.8, "bottom": 0.04, "top": canvas.below(part, 0.35), "hspace": 0.25}
        grid = part.subplots(len(chosen), 1, squeeze=False, gridspec_kw=options)
        for axes, layer in zip(grid.flat, chosen, strict=True):
            values = np.sort(layer.gates[kind])[::-1]
            drawn = axes.imshow(values[None], aspect="auto", cmap="viridis", vmin=0, vmax=high, interpolation="nearest")
            on = set(np.unique(values)) <= {0.0, 1.0}
            said = f"{int(values.sum())} of {len(values)} on" if on else f"{values.min():.2f} to {values.max():.2f}"
            axes.text(1.01, 0.5, said, transform=axes.transAxes, va="center", fontsize=7)
            axes.text(-0.01, 0.5, short(layer.name), transform=axes.transAxes, va="center", ha="right", fontsize=7)
        canvas.blank(grid)
        place = part.add_axes((0.95, 0.12, 0.012, canvas.below(part) - 0.2))
        bar = part.colorbar(drawn, cax=place)
        bar.outline.set_visible(False)
        bar.ax.tick_params(labelsize=7)

    return paint


def _latent(layers: Sequence[Layer], shown: np.ndarray) -> list[Section]:
    """DCD's matrices between latent channels."""
    chosen, note = canvas.some([layer for layer in layers if layer.mixing is not None])
    if not chosen:
        return []
    rows = -(-len(chosen) // COLUMNS)

    def paint(part: SubFigure) -> None:
        canvas.heading(
            part,
            "How latent channels are mixed: blue negative, red positive, each by its own largest",
            note,
        )
        cells = canvas.grid(part, rows, COLUMNS, canvas.below(part, 0.6))
        for axes, layer in zip(cells.flat, chosen, strict=False):
            most = abs(layer.mixing).max() or 1.0
            axes.imshow(layer.mixing, cmap="RdBu_r", vmin=-most, vmax=most, interpolation="nearest")
            axes.set_title(f"{short(layer.name)}\n{len(layer.mixing)} channels, {most:.2g}", fontsize=7)
        canvas.blank(cells)

    return [(0.6 + 1.7 * rows, paint)]


def _plane(taps: np.ndarray) -> np.ndarray:
    return taps if taps.ndim < 3 else taps.reshape(taps.shape[0], -1)


def _input(axes: plt.Axes, shown: np.ndarray) -> None:
    if shown.ndim == 3:
        axes.imshow(np.clip(shown, 0, 1))
        axes.set_axis_off()
    else:
        axes.plot(shown.T, lw=1, color=None if len(shown) > 1 else "#111827")
        axes.margins(x=0)
        axes.spines[["top", "right"]].set_visible(False)
    axes.set_title("input, as the network sees it", fontsize=9, loc="left")
