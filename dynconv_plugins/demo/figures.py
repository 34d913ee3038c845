"""The pictures of the report, drawn by matplotlib and returned as data URLs (and saved beside the page)."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from dynconv_plugins.demo.records import OPERATORS, Curve

COLOURS = {"static": "#6b7280", "odconv": "#1d4ed8", "odconv4x": "#c2410c"}
STYLE = {
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#4b5563",
    "axes.grid": True,
    "grid.color": "#e5e7eb",
    "legend.frameon": False,
    "figure.facecolor": "white",
}
MAP = "viridis"
# Curve attribute, line style, addition to the label.
LINES = {"loss": [("train_loss", "-", ""), ("valid_loss", "--", " (test)")], "score": [("score", "-", "")]}


class Album:
    """Turns figures and arrays into data URLs, and keeps a PNG of each under `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def add(self, name: str, figure: Figure, dpi: int = 144) -> str:
        data = io.BytesIO()
        figure.savefig(data, format="png", dpi=dpi, bbox_inches="tight", pad_inches=0.05)
        plt.close(figure)
        return self._keep(name, data.getvalue())

    def pixels(self, name: str, image: np.ndarray, height: int = 192) -> str:
        """`image`: ``[H, W, 3]``, uint8; enlarged without smoothing, so that pixels stay pixels."""
        from PIL import Image

        times = max(1, round(height / image.shape[0]))
        data = io.BytesIO()
        Image.fromarray(image.repeat(times, 0).repeat(times, 1)).save(data, format="png", optimize=True)
        return self._keep(name, data.getvalue())

    def _keep(self, name: str, data: bytes) -> str:
        (self.folder / f"{name}.png").write_bytes(data)
        return "data:image/png;base64," + base64.b64encode(data).decode()


def curves(by_operator: Mapping[str, Curve], unit: str, score_name: str) -> dict[str, Figure]:
    """Loss and score over steps, one figure each: a page sets them side by side or, on a phone, one below the other."""
    made = {}
    with plt.rc_context(STYLE):
        for what in ("loss", "score"):
            figure, axes = plt.subplots(figsize=(4.6, 2.9))
            for operator, curve in by_operator.items():
                for attribute, dash, note in LINES[what]:
                    values = np.asarray(getattr(curve, attribute), dtype=float)
                    if what == "score":
                        values = values * 100
                    there = np.isfinite(values)
                    if not there.any():
                        continue
                    marker = "o" if there.sum() <= 12 else None
                    x, y = np.asarray(curve.steps)[there], values[there]
                    label = OPERATORS[operator] + note
                    axes.plot(x, y, dash, marker=marker, ms=3.5, lw=1.6, color=COLOURS[operator], label=label)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
            axes.set_xlabel(unit)
            axes.set_ylabel("loss" if what == "loss" else f"{score_name} (%)")
            if axes.lines:
                axes.legend(fontsize=9)
            made[what] = figure
    return made


def spatial_maps(inputs: Sequence[np.ndarray], maps: Mapping[str, np.ndarray]) -> Figure:
    """Spatial attention: one row per sample, one column per layer; colours mean the same in the whole figure.

    Args:
        inputs: Images ``[H, W, 3]`` in 0..1 or series ``[L]``.
        maps: Layer name to attention over the taps, ``[samples, kh, kw]`` or ``[samples, k]``.
    """
    low, high = min(float(m.min()) for m in maps.values()), max(float(m.max()) for m in maps.values())
    rows, columns = len(inputs), len(maps)
    flat = next(iter(maps.values())).ndim == 2
    first = 2.4 if flat else 1.0
    size = (0.9 * first + 0.62 * columns + 0.7, 0.74 * rows + 0.75)
    with plt.rc_context(STYLE | {"axes.grid": False}):
        ratios = [first * 1.3, *[1] * columns]
        options = {"width_ratios": ratios, "wspace": 0.12, "hspace": 0.12}
        figure, grid = plt.subplots(rows, columns + 1, figsize=size, squeeze=False, gridspec_kw=options)
        for i, sample in enumerate(inputs):
            _draw_input(grid[i][0], sample)
            for j, values in enumerate(maps.values()):
                panel = values[i][None] if flat else values[i]
                drawn = grid[i][j + 1].imshow(panel, cmap=MAP, vmin=low, vmax=high, aspect="auto" if flat else "equal")
        for axes in grid.flat:
            axes.set_xticks([])
            axes.set_yticks([])
            for side in axes.spines.values():
                side.set_visible(False)
        grid[0][0].set_title("input", fontsize=8)
        for axes, name in zip(grid[0][1:], maps, strict=True):
            axes.set_title(short(name), fontsize=7, rotation=40, ha="left", va="bottom")
        bar = figure.colorbar(drawn, ax=grid.ravel().tolist(), fraction=0.025, pad=0.015)
        bar.ax.tick_params(labelsize=8)
        bar.outline.set_visible(False)
    return figure


def gates(values: Mapping[str, np.ndarray], labels: Sequence[str], axis: str) -> Figure:
    """Gates of one kind as heat maps: one panel per layer, samples down, channels (or kernels) across.

    Args:
        values: Layer name to gates, ``[samples, channels]``; samples sorted by class.
        labels: Class of each sample, in the same order.
        axis: What the horizontal axis counts.
    """
    low, high = min(float(v.min()) for v in values.values()), max(float(v.max()) for v in values.values())
    starts = [i for i, name in enumerate(labels) if i == 0 or labels[i - 1] != name]
    with plt.rc_context(STYLE | {"axes.grid": False}):
        size = (max(3.0, 2.7 * len(values)), 0.9 + 0.085 * len(labels))
        figure, grid = plt.subplots(1, len(values), figsize=size, squeeze=False, gridspec_kw={"wspace": 0.08})
        for axes, (name, panel) in zip(grid[0], values.items(), strict=True):
            drawn = axes.imshow(panel, cmap=MAP, vmin=low, vmax=high, aspect="auto", interpolation="nearest")
            axes.set_title(short(name), fontsize=9)
            axes.set_xlabel(f"{panel.shape[1]} {axis}", fontsize=8)
            axes.set_xticks([])
            axes.set_yticks([])
            for start in starts[1:]:
                axes.axhline(start - 0.5, color="white", lw=1.2)
        ends = [*starts[1:], len(labels)]
        grid[0][0].set_yticks([(a + b - 1) / 2 for a, b in zip(starts, ends, strict=True)])
        grid[0][0].set_yticklabels([labels[s] for s in starts], fontsize=8)
        bar = figure.colorbar(drawn, ax=grid[0].tolist(), fraction=0.03, pad=0.015)
        bar.ax.tick_params(labelsize=8)
        bar.outline.set_visible(False)
    return figure


def _draw_input(axes: plt.Axes, sample: np.ndarray) -> None:
    if sample.ndim == 1:
        axes.plot(sample, lw=1, color="#111827")
        axes.margins(x=0)
    else:
        axes.imshow(np.clip(sample, 0, 1), aspect="equal")


def short(name: str) -> str:
    """A module's name without the wrappers that all of them share."""
    return name.removeprefix("backbone.").removeprefix("model.").replace("layer", "l").replace(".conv", ".c")
