"""Cells: what a plan consists of, the folder of each, and the two files that say how it went."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..writing import write_json
from .plan import Plan
from .tasks import Model, Task

CELL, METRICS, LOG, RUN = "cell.json", "metrics.json", "log.txt", "run"
FORMAT = 1


class Damaged(ValueError):
    """A record that cannot be read."""


@dataclass(frozen=True)
class Cell:
    """One training run of a plan.

    Attributes:
        task: Its task.
        network: One of the task's.
        model: One of the task's.
        unit: Number of its seed or fold.
        root: The study's folder.
    """

    task: Task
    network: str
    model: Model
    unit: int
    root: Path

    @property
    def fold(self) -> int | None:
        return None if self.task.folds is None else self.unit

    @property
    def seed(self) -> int:
        # The folds differ in their data, so their seed need not differ: the recipe then is the same in all of them.
        return self.unit if self.task.folds is None else 0

    @property
    def column(self) -> str:
        """The model's name within its task: with its network's where the task has several.

        A plan may gain or lose networks; what has been trained before keeps its name.
        """
        short, long = self.model.label, f"{self.network}-{self.model.label}"
        usual, other = (short, long) if len(self.task.networks) == 1 else (long, short)
        place = self.root / self.task.name
        return other if not (place / usual).exists() and _network(place / other) == self.network else usual

    @property
    def key(self) -> str:
        return f"{self.task.name}/{self.column}/{'seed' if self.task.folds is None else 'fold'}{self.unit}"

    @property
    def folder(self) -> Path:
        return self.root / self.key


def _network(folder: Path) -> str | None:
    """Whose runs a model's folder holds; None where none can be read."""
    for path in folder.glob(f"*/{CELL}"):
        with contextlib.suppress(Damaged):
            return (read(path.parent) or {}).get("network")
    return None


def expand(plan: Plan, root: Path) -> list[Cell]:
    """All cells of a plan: a first seed of everything comes before a second of anything, so that a study that is
    stopped half-way compares what it has."""
    return [
        Cell(task, network, model, unit, root)
        for task in plan.tasks
        for unit in range(task.folds or task.seeds)
        for network in task.chosen or task.networks
        for model in task.models
    ]


def digest(*parts: Any) -> str:
    """A fingerprint of plain values, the same in every process."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def described(cell: Cell) -> dict[str, Any]:
    """What the cell's record says about it before it has run."""
    return {
        "format": FORMAT,
        "task": cell.task.name,
        "host": cell.task.host,
        "network": cell.network,
        "operator": cell.model.operator,
        "where": cell.model.where,
        "arguments": dict(cell.model.arguments),
        "label": cell.model.label,
        "model": cell.column,
        "recipe": cell.task.recipe,
        "options": dict(cell.task.options),
        "seed": cell.seed,
        "fold": cell.fold,
        "folds": cell.task.folds,
        "unit": cell.folder.name,
        "processes": cell.task.processes,
        "about": cell.task.about,
    }


def read(folder: Path, name: str = CELL) -> dict[str, Any] | None:
    """Reads a cell's record or metrics; None if it is not there.

    Raises:
        Damaged: If it is not what was written; with the file's path.
    """
    path = folder / name
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as e:
        raise Damaged(f"{path} is damaged ({' '.join(str(e).split())})") from None
    if name == METRICS and not (isinstance(value, dict) and _fraction(value.get("score"))):
        raise Damaged(f"{path} is damaged (no score between 0 and 1)")
    if not isinstance(value, dict) or (name == CELL and "inputs" not in value):
        raise Damaged(f"{path} is damaged (something is missing)")
    return value


def _fraction(score: Any) -> bool:
    return isinstance(score, (int, float)) and not isinstance(score, bool) and 0 <= score <= 1


def write(folder: Path, value: Mapping[str, Any], name: str = CELL) -> None:
    """Writes a record, all of it or nothing."""
    write_json(folder / name, dict(value))


def update(folder: Path, **changes: Any) -> dict[str, Any]:
    """Changes some entries of a cell's record and returns it.

    Raises:
        Damaged: If there is none, or none that can be read.
    """
    before = read(folder)
    if before is None:
        raise Damaged(f"{folder / CELL} has disappeared")
    record = {**before, **changes}
    write(folder, record)
    return record
