"""What there is to do: cells compared with what their folders hold. A finished cell is never run again for nothing."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import UserError
from . import cells, hosts, process, turns
from .cells import Cell
from .execute import DONE, WAITING
from .hosts.common import Data
from .plan import Plan, names
from .tasks import Task

OLD = "old"
# Options that name a file.
FILES = ("backbone_checkpoint", "initial_checkpoint", "pretrained_path")

# Options that change no result.
IDLE = ("workers",)


@dataclass
class Schedule:
    """The cells of a plan.

    Attributes:
        cells: All whose data are there, in the order to run.
        blocked: The others: something that they need is missing, see `troubles`.
        status: Status by cell key.
        records: What each cell's record says before it has run, by key.
        troubles: What is wrong, by task name or cell key.
        notes: What happened to earlier results, a line each.
    """

    cells: list[Cell] = field(default_factory=list)
    blocked: list[Cell] = field(default_factory=list)
    status: dict[str, str] = field(default_factory=dict)
    records: dict[str, dict[str, Any]] = field(default_factory=dict)
    troubles: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def todo(self) -> list[Cell]:
        return [cell for cell in self.cells if self.status[cell.key] != DONE]


def make(
    plan: Plan, root: Path, found: Mapping[str, Path], say: Callable[[str], None], looking: bool = False
) -> Schedule:
    """Prepares the data and writes the record of every cell that is not finished.

    A task whose data or host are missing is a trouble, and the others go on.

    Args:
        plan: What is to be run.
        root: The study's folder.
        found: Real data.
        say: Takes a line about each task.
        looking: Leaves what lies in the cells' folders as it is.
    """
    schedule, data = Schedule(), {}
    for task in plan.tasks:
        try:
            with warnings.catch_warnings():
                # What hosts' own imports warn of is nothing that a user of this command can act on.
                warnings.simplefilter("ignore")
                host = hosts.get(task.host)
                recipe = host.recipe(task.recipe)
                place = _data_folder(root, task, found)
                with turns.turn(place.with_suffix(".lock"), say, f"prepares the data of {task.name}"):
                    data[task.name] = host.prepare(task, found, place)
        except (UserError, ImportError, OSError, TypeError, ValueError) as e:
            schedule.troubles[task.name] = " ".join(str(e).split())
            schedule.blocked += (c for c in cells.expand(plan, root) if c.task is task)
            continue
        made = data[task.name]
        held = f", {made.valid} held out" if made.valid else ""
        say(f"{task.name}: {made.name}, {made.train} training{held}, {made.test} test {made.unit}")
        for cell in (c for c in cells.expand(plan, root) if c.task is task):
            try:
                record = recorded(cell, made, recipe)
            except UserError as e:
                schedule.troubles[task.name] = str(e)
                schedule.blocked.append(cell)
                continue
            schedule.cells.append(cell)
            schedule.records[cell.key] = record
            schedule.status[cell.key] = _seen(cell, record) if looking else _locked(cell, record, plan.name, schedule)
    order = {cell.key: i for i, cell in enumerate(cells.expand(plan, root))}
    # First seeds first over all tasks, so that a study that is stopped half-way compares what it has.
    schedule.cells.sort(key=lambda c: (c.unit, order[c.key]))
    return schedule


def _data_folder(root: Path, task: Task, found: Mapping[str, Path]) -> Path:
    """Where a task's data are prepared: another place for other settings, as something may be training on these."""
    places = {name: str(path.resolve()) for name, path in found.items()}
    return root.resolve() / "data" / task.name / cells.digest(task.host, task.data, places)[:8]


def recorded(cell: Cell, data: Data, recipe: Mapping[str, Any]) -> dict[str, Any]:
    """A cell's record before it has run, fingerprint included."""
    host = hosts.get(cell.task.host)
    made = cells.described(cell)
    # Paths are where things lie, not what they are: a study may be moved, or go on on another machine.
    files = _contents(cell, made["options"])
    counted = made | {"options": {k: v for k, v in made["options"].items() if k not in IDLE} | files}
    inputs = cells.digest({k: v for k, v in counted.items() if k != "about"}, recipe, data.fingerprint)
    command = list(host.command(cell, data, cell.folder))
    host.check(command)
    if cell.task.processes > 1:
        from .launch import launched

        command = list(launched(tuple(command), cell.task.processes))
    score = "mIoU" if cell.task.host == "mmseg" else "accuracy"
    facts = {"score_name": score, "data": data.as_json(), "command": command, "inputs": inputs}
    return {**made, **facts, "files": files}


def _contents(cell: Cell, options: Mapping[str, Any]) -> dict[str, str]:
    """What the files hold that options name, such as weights to start from, by the option.

    Raises:
        UserError: If one is not there, and the cell has not been trained with it before.
    """
    found = {}
    for name, value in options.items():
        if not isinstance(value, str) or not (name in FILES or os.sep in value):
            continue
        if Path(value).is_file():
            with open(value, "rb") as file:
                found[name] = hashlib.file_digest(file, "sha256").hexdigest()
        elif (before := _before(cell)).get("files", {}).get(name) and (before.get("trained") or _done(before)):
            found[name] = before["files"][name]
        elif name in FILES:
            raise UserError(f"{name} {value} is not there{_maker(value)}")
    return found


def _maker(path: str) -> str:
    """The command that leaves a file behind, where a shipped plan does."""
    runs, plan, *_ = (*Path(path).parts, "", "")
    return f"; made by: dynconv study {plan}" if runs == "runs" and plan in names() else ""


def _before(cell: Cell) -> Mapping[str, Any]:
    try:
        return cells.read(cell.folder) or {}
    except cells.Damaged:
        return {}


def _done(record: Mapping[str, Any]) -> bool:
    return record.get("status") == DONE


def same(before: Mapping[str, Any], record: Mapping[str, Any]) -> bool:
    """Whether a run had these inputs. Runs of earlier versions do not tell what their data held."""
    held = before.get("data", {}).get("contents", record["data"]["contents"])
    return before["inputs"] == record["inputs"] and held == record["data"]["contents"]


def _seen(cell: Cell, record: Mapping[str, Any]) -> str:
    """A cell's status, from what lies in its folder."""
    try:
        before, metrics = cells.read(cell.folder), cells.read(cell.folder, cells.METRICS)
    except cells.Damaged:
        return WAITING
    finished = before is not None and same(before, record) and metrics is not None
    return DONE if finished and _done(before) else WAITING


def _locked(cell: Cell, record: dict[str, Any], plan: str, schedule: Schedule) -> str:
    """As `_settled`, unless another study runs the cell: what it has is then left alone."""
    if _seen(cell, record) == DONE:
        before = cells.read(cell.folder)
        told = {name: json.loads(json.dumps(record[name], default=str)) for name in ("data", "files")}
        if any(before.get(name) != value for name, value in told.items()):
            # The study has moved: where its data lie now is needed to look into its networks.
            moved = cells.update(cell.folder, **told)
            if (cell.folder / cells.RUN).is_dir():
                hosts.get(cell.task.host).settle(cell.folder, moved)
        return DONE
    cell.folder.mkdir(parents=True, exist_ok=True)
    try:
        with process.claimed(cell.folder):
            return _settled(cell, record, plan, schedule)
    except (process.Busy, process.Stuck):
        return WAITING  # and running it will say by whom it is run


def _settled(cell: Cell, record: dict[str, Any], plan: str, schedule: Schedule) -> str:
    """Compares a cell with its folder, sets aside what does not belong to it, and returns its status."""
    folder = cell.folder
    try:
        before = cells.read(folder)
    except cells.Damaged as e:
        schedule.notes.append(f"{e}: set aside as {_aside(cell)}, the cell is run again")
        before = None
    if before is not None and not same(before, record):
        changed = ", ".join(k for k in record if k in before and record[k] != before[k] and k not in _EXPECTED)
        if not changed:
            changed = "recipe or data" if before["inputs"] != record["inputs"] else "what the data hold"
        schedule.notes.append(f"{cell.key}: its inputs changed ({changed}); the earlier run is now {_aside(cell)}")
        before = None
    folder.mkdir(parents=True, exist_ok=True)
    if before is None:
        cells.write(folder, {**record, "plan": plan, "status": WAITING})
        return WAITING
    status = before.get("status", WAITING)
    if status == DONE:
        try:
            if cells.read(folder, cells.METRICS) is not None:
                return DONE
            schedule.notes.append(f"{cell.key}: {cells.METRICS} is missing; scored again, without training")
        except cells.Damaged as e:
            schedule.notes.append(f"{e}; scored again, without training")
    cells.write(folder, {**before, **record, "plan": plan, "status": WAITING})
    return WAITING


_EXPECTED = {"inputs", "command", "data", "files"}


def _aside(cell: Cell) -> Path:
    """Moves a cell's folder out of the study's own, where nothing takes it for a result, and returns where it is."""
    number = next(n for n in range(1, 10**6) if not (cell.root / OLD / f"{cell.key}.{n}").exists())
    target = cell.root / OLD / f"{cell.key}.{number}"
    target.parent.mkdir(parents=True, exist_ok=True)
    return cell.folder.rename(target)
