"""The pictures of `benchmarks.models`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator

from dynconv_plugins.demo.figures import STYLE

from . import growth
from .networks import FCN

# Label, marker, colour.
SIDES = {
    "engine": ("this package", "o", "#1d4ed8"),
    "grouped": ("grouped: as published", "s", "#c2410c"),
    "timm": ("timm's CondConv layer", "D", "#15803d"),
}
LINES = {True: ("training", "-"), False: ("inference", "--")}


def draw(rows: Sequence[dict[str, Any]], path: Path, sweep: bool) -> None:
    """Saves the picture of a run; cells that failed are left out."""
    good = [row for row in rows if "failed" not in row]
    with plt.rc_context(STYLE):
        figure = _growth(good) if sweep else _networks(good)
        figure.savefig(path, dpi=144, bbox_inches="tight", pad_inches=0.1)
        plt.close(figure)


def _networks(rows: list[dict[str, Any]]) -> Figure:
    """A line for each network, size and operator; panels for time in training, in inference, and for memory."""
    panels = [
        (train, values, f"{what} (static = 1)")
        for values, train, what in (
            ("ratio", True, "time of a training step"),
            ("ratio", False, "time of inference"),
            ("memory", True, "peak memory of a training step"),
        )
        if any(row["train"] == train for row in rows)
    ]
    # From top to bottom, with a gap between networks and sizes.
    places: dict[tuple, float] = {}
    heads: list[tuple[float, str]] = []
    y, last = 0.0, None
    for row in rows:
        group, key = (row["network"], row["size"]), (row["network"], row["size"], row["operator"])
        if key in places:
            continue
        if group != last:
            y += 1.3 if last else 0.3
            heads.append((y - 0.1, f"{row['network']}, {row['size']} {'steps' if row['network'] == FCN else 'px'}"))
            y, last = y + 1, group
        places[key] = y
        y += 1
    figure, axes = plt.subplots(
        1, max(len(panels), 1), figsize=(2 + 3.6 * max(len(panels), 1), 1.3 + 0.21 * y), sharey=True, squeeze=False
    )
    for ax, (train, values, label) in zip(axes[0], panels, strict=False):
        for row in rows:
            if row["train"] == train:
                _point(ax, row, places[row["network"], row["size"], row["operator"]], values)
        ax.axvline(1, color="#111827", linewidth=1.5, zorder=1)
        ax.set_xlabel(label)
        _log(ax)
        ax.tick_params(axis="y", length=0)
        for at, text in heads if ax is axes[0][0] else ():
            ax.annotate(text, (0, at), (-6, 0), ("axes fraction", "data"), "offset points", ha="right", va="center",
                        fontweight="bold")  # fmt: skip
    axes[0][0].set_yticks(list(places.values()), [operator for _, _, operator in places])
    axes[0][0].set_ylim(y, -0.5)
    _legend(figure, {side for row in rows for side in row["ratio"]})
    return figure


def _point(ax: Axes, row: dict[str, Any], y: float, values: str) -> None:
    for side, (_, marker, colour) in SIDES.items():
        if side not in row["ratio"]:
            continue
        r = row["ratio"][side]
        if values == "memory":
            r = dict.fromkeys(r, row["peak"][side] / row["peak"]["static"])
        ax.plot([r["low"], r["high"]], [y, y], color=colour, linewidth=2, alpha=0.5, zorder=2)
        # Behind what is ours: where two are equal, both are seen.
        size, order = (5, 4) if side == "engine" else (6, 3)
        face = colour if side == "engine" else "white"
        ax.plot(r["median"], y, marker, color=colour, markerfacecolor=face, markersize=size, zorder=order)


def _growth(rows: list[dict[str, Any]]) -> Figure:
    """Ratios along the batch, K and the resolution."""
    figure, axes = plt.subplots(1, len(growth.AXES), figsize=(11, 3.6), sharey=True, layout="constrained")
    handles = {}
    for ax, (axis, label) in zip(axes, growth.AXES.items(), strict=True):
        for side, (name, marker, colour) in SIDES.items():
            for train, (what, style) in LINES.items():
                points = growth.lines(rows, axis, train, side)
                if not points:
                    continue
                x = [value for value, _ in points]
                ax.fill_between(x, *([r[k] for _, r in points] for k in ("low", "high")), color=colour, alpha=0.15)
                face = colour if train else "white"
                handles[f"{name}, {what}"], = ax.plot(
                    x, [r["median"] for _, r in points], style, marker=marker, color=colour, markerfacecolor=face,
                    markersize=5,
                )  # fmt: skip
        ax.axhline(1, color="#111827", linewidth=1)
        values = sorted({row["value"] for row in rows if row["axis"] == axis})
        ax.set_xscale("log", base=2)
        ax.xaxis.set_major_locator(FixedLocator(values))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
        ax.set_xlabel(label)
        fixed = next((row for row in rows if row["axis"] == axis), None)
        if fixed:
            ax.set_title(_fixed(fixed, axis), fontsize=9)
    axes[0].set_ylabel("time (static network = 1)")
    ratios = [r for row in rows for side in row["ratio"] if side in SIDES for r in row["ratio"][side].values()]
    axes[0].set_ylim(bottom=0)
    if ratios and max(ratios) > 10:
        axes[0].set_yscale("log")
        axes[0].set_ylim(min(0.9, *ratios), None)
        axes[0].yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    figure.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=max(len(handles), 1))
    return figure


def _fixed(row: dict[str, Any], axis: str) -> str:
    """What does not change along an axis."""
    facts = [f"{row['network']} {row['operator']}"]
    facts += [f"{row['size']} px"] if axis != "resolution" else []
    facts += [f"batch {row['batch']}"] if axis != "batch" else []
    return ", ".join(facts) + (", small stem" if row["stem"] == "small" else "")


def _log(ax: Axes) -> None:
    """A logarithmic axis with ticks at 1, 2, 5, ..., unless there would be hardly any."""
    if ax.dataLim.xmax < 4:
        return
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    ax.xaxis.set_minor_formatter(NullFormatter())


def _legend(figure: Figure, used: set[str]) -> None:
    shown = {side: look for side, look in SIDES.items() if side in used}
    handles = [
        plt.Line2D([], [], marker=m, color=c, markerfacecolor=c if side == "engine" else "white", linestyle="")
        for side, (_, m, c) in shown.items()
    ]
    figure.tight_layout(rect=(0, 0, 1, 1 - 0.35 / figure.get_figheight()))
    figure.legend(handles, [name for name, _, _ in shown.values()], loc="upper center", ncols=len(SIDES))
