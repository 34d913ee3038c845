"""Figures 7 and 8: rows of the same test inputs under each model, as class activation maps and as segmentations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from . import published
from .cam import HIRES_CAM, grad_cam, last_map, resized, suited
from .names import spelled
from .places import placeless
from .records import Task
from .studio import DRAWN, INK, Picture, Studio, plt

HEAT = "#d9610f"
SQUARED = (
    "the largest class but the background, and the background where a network finds nothing else. Here it sees the "
    "whole image squeezed into a square, above as the test pipeline resizes it: it need not predict the same. "
)
NOTHING = "no positive evidence"
POSITIONS = (
    "HiResCAM leaves each gradient at its position: no pooling over all positions follows here, which would make a "
    "mean of them mean something, as Grad-CAM takes it. "
)


@dataclass
class Grid:
    """Pictures in rows and columns.

    Attributes:
        heads: One a column.
        rows: A name and as many pictures as heads, None where there is none.
        legend: Names and colours of classes.
    """

    title: str
    caption: str
    heads: list[str]
    rows: list[tuple[str, list[Picture | None]]] = field(default_factory=list)
    legend: list[tuple[str, str]] = field(default_factory=list)


def of(task: Task, network: str) -> str:
    """Names the network where the task has several."""
    return f" of {network}" if len(task.networks) > 1 else ""


def _start(task: Task, loaded: Mapping[str, nn.Module], what: str) -> str:
    """The first part of the names of a network's pictures."""
    network = task.models[next(iter(loaded))].network
    return f"{task.name}-{network}-{what}" if len(task.networks) > 1 else f"{task.name}-{what}"


def first(task: Task, loaded: Mapping[str, nn.Module], run: str) -> str:
    """Which runs the pictures are of: the network is named where the task has several."""
    model = task.models[next(iter(loaded))]
    run = spelled(run)
    return f"{model.network}, {run}" if len(task.networks) > 1 else run


def masks(
    task: Task, loaded: Mapping[str, nn.Module], names: Mapping[str, str], samples, studio: Studio, run: str
) -> Grid:
    """Figure 8: input, truth, and what each model makes of it."""
    caption = f"The same {task.scored} images under each model of {first(task, loaded, run)}. White is not scored."
    network = of(task, task.models[next(iter(loaded))].network)
    theirs = " (Figure 8 of the paper)" if published.source(task) else ""
    grid = Grid(f"Segmentations{network}{theirs}", caption, ["input", "truth", *names.values()])
    seen: set[int] = set()
    for k, sample in enumerate(samples):
        start = _start(task, loaded, f"mask{k + 1}")
        row = [studio.photo(f"{start}-input", sample.shown, f"{sample.label}: input")]
        row.append(studio.photo(f"{start}-truth", sample.paint(sample.truth), f"{sample.label}: truth"))
        seen |= set(np.unique(sample.truth).tolist())
        for key, model in loaded.items():
            labels = sample.predict(model)
            seen |= set(np.unique(labels).tolist())
            row.append(studio.photo(f"{start}-{key}", sample.paint(labels), f"{sample.label}: {names[key]}"))
        grid.rows.append((sample.label, row))
    names_of = samples[0].names
    for label in sorted(seen & set(range(len(names_of)))):
        colour = samples[0].paint(np.array([[label]]))[0, 0]
        grid.legend.append((names_of[label], "#{:02x}{:02x}{:02x}".format(*colour)))
    return grid


def maps(task: Task, loaded, names: Mapping[str, str], samples, studio: Studio, notes: list[str], run: str) -> Grid:
    """Figure 7: where the prediction of each model comes from."""
    network = of(task, task.models[next(iter(loaded))].network)
    theirs = " (Figure 7 of the paper)" if published.source(task) and samples[0].shown.ndim == 3 else ""
    grid = Grid(f"Attention maps{network}{theirs}", "", ["input", *names.values()])
    layers: dict[str, tuple[str, str]] = {}
    for key, model in loaded.items():
        try:
            layer = last_map(model, samples[0].x)
            layers[key] = layer, suited(model, samples[0].x, layer)
        except Exception as e:
            notes.append(f"{names[key]}: no attention map ({told(e)}).")
    for k, sample in enumerate(samples if layers else []):
        start = _start(task, loaded, f"cam{k + 1}")
        row: list[Picture | None] = [_seen(studio, f"{start}-input", sample, None, f"{sample.label}: input")]
        for key, model in loaded.items():
            found = None
            if key in layers:
                try:
                    found = grad_cam(model, sample.x, *layers[key])
                except Exception as e:
                    notes.append(f"{names[key]}, {sample.label}: no attention map ({told(e)}).")
                    layers.pop(key)
            alt = f"{sample.label}: attention map of {names[key]}"
            if found is None:
                row.append(None)
                continue
            seen = _seen(studio, f"{start}-{key}", sample, found[0], alt)
            row.append(replace(seen, note=_named(sample, found[1]) + ("" if found[0].any() else f", {NOTHING}")))
        grid.rows.append((sample.label, row))
    grid.caption = (
        _which(list(layers.values()))
        + (SQUARED if any(s.predict for s in samples) else "right or wrong. ")
        + f"The models are those of {first(task, loaded, run)}."
    )
    return grid


def _which(layers: Sequence[tuple[str, str]]) -> str:
    """The kinds of maps with their layers, and why they are of these kinds."""
    methods = dict.fromkeys(method for _, method in layers)
    at = (f"{m} at {', '.join(dict.fromkeys(layer for layer, of_it in layers if of_it == m))}" for m in methods)
    why = POSITIONS if HIRES_CAM in methods else ""
    return f"{' and '.join(at)}. {why}Bright is where the prediction comes from that is written below, "


def _named(sample: Any, chosen: int) -> str:
    """The class that a map is of, and whether it is wrong where there is one right class."""
    name = sample.names[chosen] if chosen < len(sample.names) else f"class {chosen}"
    return name if sample.predict or not sample.names or name == sample.label else f"{name}: wrong"


def _seen(studio: Studio, name: str, sample: Any, heat: np.ndarray | None, alt: str) -> Picture:
    """An image with its heat over it, or a series with the heat behind it."""
    if sample.shown.ndim == 1:
        return _series(studio, name, sample.shown, heat, alt)
    image = sample.shown
    if heat is not None:
        grey = image.mean(-1, keepdims=True) / 255
        colours = plt.get_cmap("viridis")(resized(heat, image.shape[:2]))[..., :3]
        image = (255 * (0.4 * grey + 0.6 * colours)).round().astype(np.uint8)
    return studio.photo(name, image, alt)


def _series(studio: Studio, name: str, series: np.ndarray, heat: np.ndarray | None, alt: str) -> Picture:
    with plt.rc_context(DRAWN | {"axes.grid": False}):
        figure, axes = plt.subplots(figsize=(2.0, 1.0), gridspec_kw={"left": 0, "right": 1, "bottom": 0, "top": 1})
        axes.plot(series, lw=1.1, color=INK)
        axes.margins(x=0, y=0.08)
        if heat is not None:
            bounds = (0, len(series) - 1, *axes.get_ylim())
            colour = np.ones((1, len(series), 4)) * plt.matplotlib.colors.to_rgba(HEAT)
            colour[..., 3] = 0.8 * resized(heat, (len(series),))
            axes.imshow(colour, extent=bounds, aspect="auto", zorder=0)
        axes.set_axis_off()
    return studio.draw(name, figure, alt)


def told(error: Exception, folder: Path | None = None) -> str:
    """What went wrong, for a line of the report: short, and without places of this machine."""
    text = placeless(" ".join(str(error).split()).replace(f"{folder}/", ""))
    # A KeyError says nothing but the key.
    return f"{type(error).__name__}: {text}"[:160] if isinstance(error, LookupError) or not text else text[:160]
