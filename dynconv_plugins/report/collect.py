"""Reads study folders. What cannot be read becomes a line of the report, never an end to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..study import cells as layout
from ..study import plan as plans
from .conditions import differing
from .names import label_of
from .places import placeless, placeless_record
from .readings import costs, metrics
from .records import DAMAGED, DONE, FAILED, MISSING, RUNNING, STATIC, WAITING, Cell, Model, Study, Task
from .unite import Run, named
from .unstarted import leave_out

PLAN, COSTS = "study.yaml", "costs.json"


def collect(runs: Sequence[Path]) -> Study:
    """Reads one or several studies into one; tasks of the same name and conditions are united.

    Args:
        runs: Folders that ``dynconv study`` wrote.

    Raises:
        UserError: If a folder holds no study, or if two hold different results of the same cell.
    """
    study = Study(folders=list(runs), names=[])
    # A folder named twice is one folder.
    read = [_read_run(study, run) for run in {run.resolve(): run for run in runs}.values()]
    names, notes = named(read)
    study.notes += notes
    for number, run in enumerate(read):
        for cell, said in run.cells:
            _add(study, names[number, cell.task], cell, said)
    for (number, folder), name in names.items():
        _add_costs(study.tasks[name], read[number].folder, folder, number)
    for task in study.tasks.values():
        task.asks = any(model.operator != STATIC for model in task.models.values())
        task.planned = len(task.cells)
        task.static = frozenset(model.network for model in task.models.values() if model.operator == STATIC)
    study.planned = len(study.cells)
    leave_out(study)
    for task in study.tasks.values():
        task.notes += differing(task)
    return study


def _read_run(study: Study, run: Path) -> Run:
    if not run.is_dir():
        raise UserError(f"{run} is not a folder")
    found = {str(p.parent.relative_to(run)): p.parent for p in sorted(run.glob(f"*/*/*/{layout.CELL}"))}
    if not found:
        raise UserError(f"{run} holds no study: there is no <task>/<model>/<unit>/{layout.CELL} in it")
    planned = _planned(study, run)
    study.names.append(next(iter(planned.values())).name if planned else run.name)
    extra = [key for key in found if planned and key not in planned]
    if extra:
        verb, noun = ("is", "cell") if len(extra) == 1 else ("are", "cells")
        study.notes.append(f"{len(extra)} {noun} of {run.name} {verb} not in its plan, and shown all the same.")
    cells = [(_cell(key, found.get(key)), entry.record) for key, entry in planned.items()]
    cells += [(_cell(key, found[key]), {}) for key in (extra or ([] if planned else found))]
    return Run(run, study.names[-1], [(cell, cell.record or said) for cell, said in cells])


class _Planned:
    """What the plan says about a cell that has not left a record."""

    def __init__(self, name: str, cell: layout.Cell) -> None:
        self.name = name
        self.record = {
            "task": cell.task.name,
            "host": cell.task.host,
            "network": cell.network,
            "operator": cell.model.operator,
            "label": cell.model.label,
            "where": cell.model.where,
            "arguments": dict(cell.model.arguments),
            "recipe": cell.task.recipe,
            "options": dict(cell.task.options),
        }


def _planned(study: Study, run: Path) -> dict[str, _Planned]:
    path = run / PLAN
    if not path.is_file():
        study.notes.append(f"{run.name} has no {PLAN}: which of its cells are missing is not known.")
        return {}
    try:
        plan = plans.load(path)
        made = {cell.key: _Planned(plan.name, cell) for cell in layout.expand(plan, run)}
    except (UserError, OSError, TypeError) as e:
        told = placeless(" ".join(str(e).split()))
        study.notes.append(f"{run.name}/{PLAN} cannot be used ({told}): which cells are missing is not known.")
        return {}
    study.plans.append(placeless(path.read_text(encoding="utf-8")))
    return made


def _add(study: Study, name: str, cell: Cell, said: Mapping[str, Any]) -> None:
    task = study.tasks.setdefault(name, Task(name))
    model_name, unit = cell.model, cell.unit
    operator = str(said.get("operator") or model_name.rpartition("-")[2])
    label = label_of(operator, str(said.get("label") or ""))
    network = str(said.get("network") or model_name.rpartition("-")[0])
    model = task.models.setdefault(model_name, Model(model_name, network, operator, label))
    if said and not any(c.record for c in model.cells.values()):
        # A cell that lost its record may have come first, with what its folder's name suggests.
        model.network, model.operator, model.label = network, operator, label
    before = model.cells.get(unit)
    model.cells[unit] = cell if before is None else _united(before, cell)


def _united(a: Cell, b: Cell) -> Cell:
    if a.status != DONE or b.status != DONE:
        return a if a.status == DONE or b.status == MISSING else b
    if a.metrics.score != b.metrics.score or a.metrics.loss != b.metrics.loss:
        told = " and ".join(f"{c.metrics.score:.4f} in {c.folder}" for c in (a, b))
        raise UserError(f"{a.key} has two different results: {told}")
    return a


def _cell(key: str, folder: Path | None) -> Cell:
    task, model, unit = key.split("/")
    cell = Cell(folder or Path(key), task, model, unit, MISSING, "it has not been started")
    if folder is None:
        return cell
    try:
        record = placeless_record(layout.read(folder, layout.CELL), folder.parents[2], key)
    except layout.Damaged as e:
        return replace(cell, status=DAMAGED, why=_short(e, folder))
    status = record.get("status")
    cell = replace(cell, record=record, status=status, why=" ".join(str(record.get("error") or "").split()))
    if status == DAMAGED:  # as a report found it, which left this; all of it where no record could be read
        return cell if "task" in record else replace(cell, record={})
    if status == WAITING and not (record.get("attempts") or record.get("begun")):
        return replace(cell, status=MISSING, why="it has not been started")
    if status in (RUNNING, WAITING):
        return replace(cell, why="it was still running, or was killed" if status == RUNNING else "it waits to go on")
    if status == FAILED:
        return replace(cell, why=cell.why or "no reason recorded")
    if status != DONE:
        return replace(cell, status=DAMAGED, why=f"{layout.CELL} has the status {status!r}")
    try:
        read = layout.read(folder, layout.METRICS)
        if read is None:
            return replace(cell, status=DAMAGED, why=f"{layout.METRICS} is not there")
        return replace(cell, metrics=metrics(read, folder))
    except (layout.Damaged, ValueError, TypeError) as e:
        return replace(cell, status=DAMAGED, why=_short(e, folder))


def _short(error: Exception, folder: Path) -> str:
    return placeless(" ".join(str(error).split()).replace(f"{folder}/", ""))


def _add_costs(task: Task, run: Path, folder: str, number: int) -> None:
    path = run / folder / COSTS
    if not path.is_file():
        return
    try:
        read = costs(path, number)
    except (OSError, ValueError, TypeError, AttributeError) as e:
        task.notes.append(f"{COSTS} of {run.name} is damaged ({' '.join(str(e).split())}) and left out.")
        return
    known = sum(m.costs is not None for m in task.models.values())
    for name, cost in read.items():
        # Ratios need one machine: a measurement of more models replaces one of fewer.
        if name in task.models and (task.models[name].costs is None or len(read) > known):
            task.models[name].costs = cost


def missing_line(task: Task) -> str:
    """``"3 of 15 cells have no result: ..."``; empty where all have one."""
    lacking = [c for c in task.cells if c.metrics is None]
    # Those that nobody has started may have been left out.
    left_out = task.planned - len(task.cells)
    missing = len(lacking) + left_out
    if not missing:
        return ""
    counts = {s: sum(c.status == s for c in lacking) for s in (FAILED, DAMAGED, RUNNING, WAITING, MISSING)}
    counts[MISSING] += left_out
    kinds = ", ".join(f"{n} {'not started' if s == MISSING else s}" for s, n in counts.items() if n)
    verb = "has" if missing == 1 else "have"
    return f"{missing} of {task.planned} cells {verb} no result: {kinds}."


def static_missing(task: Task) -> list[str]:
    """Networks without a static twin to compare with."""
    return [n for n in task.networks if n not in task.static]
