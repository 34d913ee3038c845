"""The live table: a row a model, what it has scored so far, and what runs right now."""

from __future__ import annotations

import json
import statistics
import threading
import time
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from . import cells, hosts
from .cells import Cell
from .execute import DONE, FAILED, WAITING

TABLE = 5  # lines of a table that are not its rows


class Board:
    """Shows how far a study is: a table that is kept up to date on a terminal, lines elsewhere.

    Args:
        all_cells: The cells of the study.
        status: Status of each, by key; changed here.
        console: Where to draw.
    """

    def __init__(self, all_cells: list[Cell], status: dict[str, str], console: Console) -> None:
        self.cells, self.status, self.console = all_cells, status, console
        self.troubles: dict[str, str] = {}
        self.running: dict[str, tuple[Cell, float, str]] = {}
        self.scores = {c.key: score_of(c.folder) for c in all_cells if status[c.key] == DONE}
        self.looked: dict[str, float] = {}
        self.left: set[str] = set()
        self.lock = threading.Lock()
        self.live = Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else None

    def __enter__(self) -> Board:
        if self.live:
            self.live.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self.live:
            self.live.stop()

    def say(self, line: str) -> None:
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def start(self, cell: Cell) -> None:
        with self.lock:
            self.running[cell.key] = (cell, time.monotonic(), "")
            self.status[cell.key] = "running"
        if not self.live and cell.key not in self.left:
            self.say(f"{cell.key}: started ({self._count()})")

    def watch(self, cell: Cell) -> None:
        """Reads how far the trainer is, at most every two seconds."""
        now = time.monotonic()
        if not self.live or now - self.looked.get(cell.key, 0) < 2:
            return
        self.looked[cell.key] = now
        try:
            done, total, note = hosts.get(cell.task.host).progress(cell.folder, cells.read(cell.folder))
        except (OSError, ValueError, KeyError, TypeError, IndexError):
            return  # a file that is being written this moment
        with self.lock:
            if cell.key in self.running:
                _, since, _ = self.running[cell.key]
                self.running[cell.key] = (cell, since, f"{done:g} of {total:g}  {note}")

    def elsewhere(self, cell: Cell, line: str) -> None:
        """Another study runs the cell."""
        with self.lock:
            del self.running[cell.key]
            self.status[cell.key] = WAITING
        if cell.key not in self.left:
            self.left.add(cell.key)
            self.say(f"{line}; its result is waited for")

    def trouble(self, cell: Cell, line: str) -> None:
        self.troubles[cell.key] = line

    def end(self, cell: Cell, status: str) -> None:
        with self.lock:
            _, since, _ = self.running.pop(cell.key)
            self.status[cell.key] = status
            if status == DONE:
                self.scores[cell.key] = score_of(cell.folder)
        if status == FAILED:
            error = self.troubles.setdefault(cell.key, _error(cell.folder))
            self.say(f"{cell.key}: failed: {error}")
        elif not self.live:
            score = self.scores.get(cell.key)
            told = f", score {score:.1%}" if score is not None else ""
            self.say(f"{cell.key}: {status} in {time.monotonic() - since:.0f} s{told}")

    def refresh(self) -> None:
        if self.live:
            with self.lock:
                self.live.update(Group(*self._drawn()), refresh=True)

    def _count(self) -> str:
        done = sum(status == DONE for status in self.status.values())
        return f"{done} of {len(self.status)} cells done"

    def _drawn(self) -> list[Table | Text]:
        """What runs comes first, for what is below a screen's last line cannot be seen."""
        lines = [Text(f"{self._count()}", style="bold")]
        for key, (_, since, note) in self.running.items():
            lines.append(Text(f"  {key}  {time.monotonic() - since:.0f} s  {note}", no_wrap=True, overflow="ellipsis"))
        # Of a study that is too long for the screen: the tasks, then the models, that run at the moment.
        shown, running = self.cells, [cell for cell, _, _ in self.running.values()]
        for wanted in ({c.task.name for c in running}, {(c.task.name, c.column) for c in running}):
            tasks = {c.task.name for c in shown}
            rows = {(c.task.name, c.column) for c in shown}
            if wanted and len(rows) + len(tasks) + TABLE + len(lines) > self.console.height:
                shown = [c for c in shown if wanted & {c.task.name, (c.task.name, c.column)}]
        return [*lines, summary(shown, self.status, self.scores)]


def summary(all_cells: list[Cell], status: dict[str, str], scores: dict[str, float | None]) -> Table:
    """A row a model: cells done, mean score and standard deviation."""
    table = Table(header_style="bold", title="scores, in per cent", title_justify="left")
    for head in ("task", "model", "done", "score", "sd"):
        table.add_column(head, justify="left" if head in ("task", "model") else "right")
    rows: dict[tuple[str, str], list[Cell]] = {}
    for cell in all_cells:
        rows.setdefault((cell.task.name, cell.column), []).append(cell)
    before = ""
    for (task, model), group in rows.items():
        found = [100 * s for c in group if (s := scores.get(c.key)) is not None]
        states = [status[c.key] for c in group]
        done = f"{states.count(DONE)}/{len(group)}" + (f" {n} failed" if (n := states.count(FAILED)) else "")
        mean = f"{statistics.mean(found):.1f}" if found else ""
        spread = f"{statistics.stdev(found):.1f}" if len(found) > 1 else ""
        style = "red" if FAILED in states else "bold" if "running" in states else None
        if before and before != task:
            table.add_section()
        table.add_row(task if before != task else "", model, done, mean, spread, style=style)
        before = task
    return table


def score_of(folder: Path) -> float | None:
    try:
        found = cells.read(folder, cells.METRICS)
    except cells.Damaged:
        return None
    return None if found is None else found["score"]


def _error(folder: Path) -> str:
    try:
        return json.loads((folder / cells.CELL).read_text()).get("error") or f"see {folder / cells.LOG}"
    except (OSError, ValueError):
        return f"see {folder / cells.LOG}"
