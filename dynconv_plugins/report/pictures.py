"""Loads the networks of a task and shows them the same test inputs: Figures 7 and 8, and the operators' attentions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from ..study import hosts
from ..study.cells import RUN
from .attentions import Drawn, attentions
from .grids import Grid, maps, masks, of, told
from .names import order, spelled
from .records import STATIC, Model, Task
from .studio import Studio

STILL = "no attentions to draw, for its layers do the same with every input."


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
        made.notes.append(f"No pictures{of(task, network)}: the test inputs cannot be read ({told(e)}).")
        return
    names = {key: task.models[key].label for key in loaded}
    if any(s.predict for s in samples):
        made.grids.append(masks(task, loaded, names, samples, studio, run))
    made.grids.append(maps(task, loaded, names, samples, studio, made.notes, run))
    for key, model in loaded.items():
        if task.models[key].operator == STATIC:
            continue
        try:
            x, shown = torch.cat([s.x for s in samples]), [s.shown for s in samples]
            drawn = attentions(model, x, shown, [s.label for s in samples], studio, f"{task.name}-{key}")
        except Exception as e:
            made.notes.append(f"{task.name_of(task.models[key])}: its attentions cannot be drawn ({told(e)}).")
            continue
        if drawn:
            made.attentions.append((task.name_of(task.models[key]), drawn))
        else:
            made.notes.append(f"{task.name_of(task.models[key])}: {STILL}")


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
            failed.append(f"No pictures of {task.name_of(task.models[key])}: it cannot be loaded ({told(e, folder)}).")
    if failed and not made:
        failed = [f"None of the networks can be loaded. {failed[0]}"]
    notes += failed
    return made
