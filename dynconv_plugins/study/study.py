"""A study from its plan to its table."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml
from rich.console import Console
from rich.table import Table

from ..errors import UserError
from ..writing import write_text
from . import cells, costing, pool, schedule
from .execute import DONE, FAILED
from .live import Board, score_of, summary
from .plan import Plan


class Study:
    """One plan in one folder.

    Args:
        plan: What to run.
        out: Folder of everything that is written.
        found: Real data, as ``datasets.find`` returned it.
        threads: CPU threads for everything that runs at a time.
    """

    def __init__(self, plan: Plan, out: Path, found: Mapping[str, Path], threads: int) -> None:
        self.plan, self.out, self.found, self.threads = plan, out, found, threads
        # A log that is no terminal has no width of its own. This very stream: another thread that keeps a host quiet
        # puts another in its place meanwhile.
        self.console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else 110)

    def _say(self, line: str) -> None:
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _schedule(self, looking: bool = False) -> schedule.Schedule:
        made = schedule.make(self.plan, self.out, self.found, self._say, looking)
        if looking:
            return made
        write_text(self.out / "study.yaml", yaml.safe_dump(dict(self.plan.raw), sort_keys=False))
        for note in made.notes:
            self._say(f"note: {note}")
        return made

    def run(self, jobs: int, no_costs: bool = False) -> int:
        """Runs what is not finished, measures the costs, prints the table; returns the exit code."""
        made = self._schedule()
        todo = made.todo()
        self._say(f"{len(made.cells)} cells, {len(made.cells) - len(todo)} of them finished before; in {self.out}")
        with Board(made.cells, made.status, self.console) as board:
            inputs = {key: record["inputs"] for key, record in made.records.items()}
            whole = pool.run(todo, jobs, self.threads, board, inputs=inputs)
        made.troubles |= board.troubles
        if whole and not no_costs:
            made.troubles |= self._costs(made)
        return self._end(made, whole)

    def submit(self, cluster: str, arguments: list[str], no_costs: bool = False) -> int:
        """The same with each cell as a job of a cluster, through submitit."""
        from . import cluster as clusters
        from .execute import run_cell

        parameters = clusters.parameters(arguments)
        made = self._schedule()
        todo = {cell.key: cell for cell in made.todo()}
        folders = {key: cell.folder for key, cell in todo.items()}
        logs, errors, whole = self.out / "jobs", {}, True
        try:
            jobs = clusters.submit(folders, executor=cluster, folder=logs, parameters=parameters, run=run_cell)
            self._say(f"{len(jobs)} of {len(made.cells)} cells submitted to {cluster}; what the jobs say is in {logs}")
            errors = clusters.watch(jobs, self._say)
        except (KeyboardInterrupt, SystemExit):
            whole = False
        for key, cell in todo.items():
            try:
                record = cells.read(cell.folder) or {}
            except cells.Damaged as e:
                record = {"status": FAILED, "error": str(e)}
            other = "inputs" in record and record["inputs"] != made.records[key]["inputs"]
            made.status[key] = FAILED if other else record.get("status", FAILED)
            if whole and made.status[key] != DONE:
                told = "its job had other inputs; the same command runs it again" if other else record.get("error")
                made.troubles[key] = errors.get(key) or told or "it has not run"
        if whole and not no_costs and cluster == clusters.LOCAL:
            made.troubles |= self._costs(made)
        elif whole and not no_costs:
            self._say("costs are one machine's: on the one they should tell of, give the command without --cluster")
        return self._end(made, whole)

    def _costs(self, made: schedule.Schedule) -> dict[str, str]:
        return costing.measure(self.out, (cell.task.name for cell in made.cells), self.threads, self._say)

    def _end(self, made: schedule.Schedule, whole: bool) -> int:
        scores = {c.key: score_of(c.folder) for c in made.cells if made.status[c.key] == DONE}
        if made.cells:
            self.console.print(summary(made.cells, made.status, scores))
        for what, trouble in made.troubles.items():
            self.console.print(f"[red]failed[/red] {what}: ", end="")
            self._say(trouble)
        if not whole:
            self._say(f"interrupted: {len(scores)} of {len(made.cells)} cells are done; the same command goes on")
            return 130
        if scores:
            self._say(f"the report: dynconv report {self.out}")
        return 1 if made.troubles else 0

    def dry_run(self, jobs: int) -> int:
        """Prints the cells and about how long they take; trains nothing, but prepares the data to know their number."""
        from .estimate import Estimates

        made = self._schedule(looking=True)
        todo = made.todo()
        jobs = max(1, min(jobs, len(todo)))
        estimates = Estimates(self.threads // jobs or 1, made.cells, made.records, self._say)
        left: dict[str, list[float]] = {}
        table = Table(header_style="bold", title=f"plan {self.plan.name}", title_justify="left")
        for head in ("cell", "status", "seconds", "from"):
            table.add_column(head, justify="right" if head == "seconds" else "left", overflow="fold")
        for cell in made.cells:
            try:
                seconds, source = estimates.of(cell)
            except (UserError, RuntimeError, TypeError, ValueError) as e:
                made.troubles[cell.key] = " ".join(str(e).split())
                seconds, source = 0.0, "cannot be built"
            if made.status[cell.key] != DONE:
                left.setdefault(cell.task.name, []).append(seconds)
            table.add_row(cell.key, made.status[cell.key], f"{seconds:.0f}", source)
        for cell in made.blocked:
            table.add_row(cell.key, "blocked", "", "")
        self.console.print(table)
        for what, trouble in made.troubles.items():
            self._say(f"cannot run {what}: {trouble}")
        for task, seconds in left.items() if len(left) > 1 else ():
            self._say(f"{task}: {len(seconds)} cells to run, about {_needed(seconds, jobs)}")
        needed = _needed([0.0, *(s for each in left.values() for s in each)], jobs)
        blocked = f"; {len(made.blocked)} are blocked" if made.blocked else ""
        count = len(made.cells) + len(made.blocked)
        self._say(f"{len(todo)} of {count} cells to run, about {needed} with {jobs} at a time{blocked}")
        return 1 if made.troubles else 0


def _needed(seconds: Sequence[float], jobs: int) -> str:
    """How long cells take, so many at a time."""
    return _hours(max(max(seconds), sum(seconds) / jobs))


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.1f} hours" if seconds >= 5400 else f"{seconds / 60:.0f} minutes"
