"""Figures 7 and 8: the same test inputs under each model, by Grad-CAM, by the operators' attentions, and as masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ..study import hosts
from ..study.cells import RUN
from . import published
from .attentions import Drawn, attentions
from .cam import grad_cam, last_map, resized
from .places import placeless
from .records import STATIC, Model, Task, order, spelled
from .studio import DRAWN, INK, Picture, Studio, plt

HEAT = "#d9610f"
SQUARED = (
    "the largest class but the background. Here a network sees the whole image squeezed into a square, above as the "
    "test pipeline resizes it: it need not predict the same. "
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


@dataclass
class Gallery:
    """All pictures of a task, and a line for each model that has none."""

    grids: list[Grid] = field(default_factory=list)
    attentions: list[tuple[str, list[Drawn]]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def gallery(task: Task, studio: Studio, count: int = 4) -> Gallery:
    """Loads each model, network by network, and draws what it makes of the same test inputs.

    Args:
        task: The task.
        studio: Keeps the pictures.
        count: Inputs.
    """
    made = Gallery()
    for network in task.networks:
        _draw(task, network, studio, count, made)
    made.grids = [g for g in made.grids if g.rows]
    return made


def _draw(task: Task, network: str, studio: Studio, count: int, made: Gallery) -> None:
    """Adds the pictures of one network."""
    finished = [m for m in task.ordered() if m.results and m.network == network]
    run = _shared(finished)
    without = [task.name_of(m) for m in finished if run not in _kept(m)]
    if without:
        which = f"the weights of {spelled(run)}" if run else "their weights"
        made.notes.append(f"No pictures of {', '.join(without)}: {which} are not here.")
    loaded = _loaded(task, {m.key: m.cells[run].folder for m in finished if run in _kept(m)}, made.notes)
    if not loaded:
        return
    try:
        host = hosts.get(task.fact("host"))
        samples = host.samples(task.models[next(iter(loaded))].cells[run].folder, count)
    except Exception as e:
        made.notes.append(f"No pictures{_of(task, network)}: the test inputs cannot be read ({_told(e)}).")
        return
    names = {key: task.models[key].label for key in loaded}
    if any(s.predict for s in samples):
        made.grids.append(_masks(task, loaded, names, samples, studio, run))
    made.grids.append(_maps(task, loaded, names, samples, studio, made.notes, run))
    for key, model in loaded.items():
        if task.models[key].operator == STATIC:
            continue
        try:
            x, shown = torch.cat([s.x for s in samples]), [s.shown for s in samples]
            drawn = attentions(model, x, shown, [s.label for s in samples], studio, f"{task.name}-{key}")
        except Exception as e:
            made.notes.append(f"{task.name_of(task.models[key])}: its attentions cannot be drawn ({_told(e)}).")
            continue
        if drawn:
            made.attentions.append((task.name_of(task.models[key]), drawn))


def _of(task: Task, network: str) -> str:
    """Names the network where the task has several."""
    return f" of {network}" if len(task.networks) > 1 else ""


def _start(task: Task, loaded: Mapping[str, nn.Module], what: str) -> str:
    """The first part of the names of a network's pictures."""
    network = task.models[next(iter(loaded))].network
    return f"{task.name}-{network}-{what}" if len(task.networks) > 1 else f"{task.name}-{what}"


def _kept(model: Model) -> list[str]:
    """The finished runs of a model whose weights are here: an archive holds none."""
    return [unit for unit in model.results if (model.cells[unit].folder / RUN).is_dir()]


def _shared(models: Sequence[Model]) -> str:
    """The first of the runs that most models have weights of: one fold's test set is another's training set."""
    units = [unit for model in models for unit in _kept(model)]
    return max(sorted(set(units), key=order), key=units.count, default="")


def _loaded(task: Task, folders: Mapping[str, Path], notes: list[str]) -> dict[str, nn.Module]:
    made, failed = {}, []
    for key, folder in folders.items():
        try:
            made[key] = hosts.get(task.fact("host")).load(folder).eval()
        except Exception as e:
            failed.append(f"No pictures of {task.name_of(task.models[key])}: it cannot be loaded ({_told(e, folder)}).")
    if failed and not made:
        failed = [f"None of the networks can be loaded. {failed[0]}"]
    notes += failed
    return made


def _first(task: Task, loaded: Mapping[str, nn.Module], run: str) -> str:
    """Which runs the pictures are of: the network is named where the task has several."""
    model = task.models[next(iter(loaded))]
    run = spelled(run)
    return f"{model.network}, {run}" if len(task.networks) > 1 else run


def _masks(
    task: Task, loaded: Mapping[str, nn.Module], names: Mapping[str, str], samples, studio: Studio, run: str
) -> Grid:
    """Figure 8: input, truth, and what each model makes of it."""
    caption = f"The same {task.scored} images under each model of {_first(task, loaded, run)}. White is not scored."
    network = _of(task, task.models[next(iter(loaded))].network)
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


def _maps(task: Task, loaded, names: Mapping[str, str], samples, studio: Studio, notes: list[str], run: str) -> Grid:
    """Figure 7: where the prediction of each model comes from."""
    network = _of(task, task.models[next(iter(loaded))].network)
    theirs = " (Figure 7 of the paper)" if published.source(task) and samples[0].shown.ndim == 3 else ""
    grid = Grid(f"Attention maps{network}{theirs}", "", ["input", *names.values()])
    layers: dict[str, str] = {}
    for key, model in loaded.items():
        try:
            layers[key] = last_map(model, samples[0].x)
        except Exception as e:
            notes.append(f"{names[key]}: no attention map ({_told(e)}).")
    for k, sample in enumerate(samples if layers else []):
        start = _start(task, loaded, f"cam{k + 1}")
        row: list[Picture | None] = [_seen(studio, f"{start}-input", sample, None, f"{sample.label}: input")]
        for key, model in loaded.items():
            found = None
            if key in layers:
                try:
                    found = grad_cam(model, sample.x, layers[key])
                except Exception as e:
                    notes.append(f"{names[key]}, {sample.label}: no attention map ({_told(e)}).")
                    layers.pop(key)
            alt = f"{sample.label}: attention map of {names[key]}"
            if found is None:
                row.append(None)
                continue
            seen = _seen(studio, f"{start}-{key}", sample, found[0], alt)
            row.append(replace(seen, note=_named(sample, found[1])))
        grid.rows.append((sample.label, row))
    where = ", ".join(dict.fromkeys(layers.values()))
    grid.caption = (
        f"Grad-CAM at {where}: bright where the prediction comes from that is written below, "
        + (SQUARED if any(s.predict for s in samples) else "right or wrong. ")
        + f"The models are those of {_first(task, loaded, run)}."
    )
    return grid


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


def _told(error: Exception, folder: Path | None = None) -> str:
    text = placeless(" ".join(str(error).split()).replace(f"{folder}/", ""))
    # A KeyError says nothing but the key.
    return f"{type(error).__name__}: {text}"[:160] if isinstance(error, LookupError) or not text else text[:160]
