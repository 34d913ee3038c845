"""Which tasks of several studies are one: those of the same name that were trained under the same conditions."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .places import placeless
from .records import DONE, MISSING, Cell
from .sheet import listed

# Conditions by number of the run.
_Group = dict[int, dict[str, str]]


@dataclass(frozen=True)
class Run:
    """A study's folder as read.

    Attributes:
        folder: The folder.
        name: The plan's, or the folder's where there is no plan.
        cells: Each with what its record says, or the plan where it has left none.
    """

    folder: Path
    name: str
    cells: list[tuple[Cell, Mapping[str, Any]]]


def parts(data: Mapping[str, Any]) -> str | None:
    """A data set in words; None where something about it is not known."""
    values = [data.get(k) for k in ("name", "train", "test", "classes")]
    if any(v is None or (isinstance(v, float) and math.isnan(v)) for v in values):
        return None
    return "{}, {} training and {} test samples, {} classes".format(*values)


def held(data: Mapping[str, Any]) -> str | None:
    """A fingerprint of what a data set holds, in short; None where it is not known."""
    return str(data["contents"])[:8] if data.get("contents") else None


def named(runs: Sequence[Run]) -> tuple[dict[tuple[int, str], str], list[str]]:
    """What each task is called in the report.

    Tasks of one name are one where host, data, recipe, options and what is behind the models' names (networks,
    operators, their arguments) agree, as far as they are known. Otherwise the plan's name goes before the task's. One
    that nobody has started renames no other.

    Returns:
        The name by number of the run and task, and a line for each name that would have stood for several tasks.
    """
    groups: dict[str, list[_Group]] = {}
    unstarted: list[tuple[int, str]] = []
    for number, run in enumerate(runs):
        for task in dict.fromkeys(cell.task for cell, _ in run.cells):
            if all(cell.status == MISSING for cell, _ in _of(run, task)):
                unstarted.append((number, task))
                continue
            ours = _conditions(run, task)
            several = groups.setdefault(task, [])
            group = _alike(several, ours)
            if group is None:
                several.append(group := {})
            group[number] = ours
    names: dict[tuple[int, str], str] = {}
    notes = []
    taken = set(groups)
    for task, several in groups.items():
        shown = []
        for group in several:
            name = task if len(several) == 1 else _free(f"{runs[min(group)].name}-{task}", taken)
            shown.append(name)
            names |= {(number, task): name for number in group}
        if len(several) > 1:
            first, *others = (theirs for group in several for theirs in group.values())
            what = dict.fromkeys(what for theirs in others for what in _differing(first, theirs))
            notes.append(f"The tasks called {task} differ in {', '.join(what)} and are not one: here {listed(shown)}.")
    for number, task in unstarted:
        group = _alike(groups.get(task, ()), _conditions(runs[number], task))
        other = f"{task} of {runs[number].name}" if task in groups else task
        names[number, task] = names[min(group), task] if group else other
    return names, notes


def _alike(groups: Iterable[_Group], ours: Mapping[str, str]) -> _Group | None:
    return next((g for g in groups if not any(_differing(ours, theirs) for theirs in g.values())), None)


def _conditions(run: Run, task: str) -> dict[str, str]:
    """What a task's numbers depend on, from its finished cells first."""
    made: dict[str, str] = {}
    for cell, said in sorted(_of(run, task), key=lambda pair: pair[0].status != DONE):
        known = {k: said.get(k) for k in ("host", "recipe", "options")}
        known |= {"data": parts(said.get("data") or {}), "what the data hold": held(said.get("data") or {})}
        if said.get("network"):
            known[f"network of {cell.model}"] = [said["network"], said.get("operator")]
            # A model's name is its label: without one, other arguments have the same.
            known[f"arguments of {cell.model}"] = [said.get("where"), said.get("arguments") or {}]
        for what, value in known.items():
            if value is not None:
                made.setdefault(what, placeless(json.dumps(value, sort_keys=True)))
    return made


def _of(run: Run, task: str) -> Iterable[tuple[Cell, Mapping[str, Any]]]:
    return (pair for pair in run.cells if pair[0].task == task)


def _differing(a: Mapping[str, str], b: Mapping[str, str]) -> list[str]:
    differing = (what for what in a if what in b and a[what] != b[what])
    return list(dict.fromkeys(what.partition(" of ")[0] for what in differing))


def _free(name: str, taken: set[str]) -> str:
    """A name that is nobody else's, fit for files and addresses within the page."""
    plain = re.sub(r"[^\w.-]+", "-", name).strip("-")
    free = next(n for i in range(1, 10**6) if (n := plain if i == 1 else f"{plain}-{i}") not in taken)
    taken.add(free)
    return free
