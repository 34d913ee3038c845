"""Everything that is said about one task, in the order of the page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from . import cost_plot, figures, published, tables
from .between import between
from .class_table import classes
from .compare import Compared, compare
from .conditions import machine
from .cost_table import costs, references
from .gains import gains, note
from .looks import Look
from .pictures import Gallery, gallery
from .records import Task, finite
from .run_table import runs
from .sheet import Table
from .studio import Picture, Studio
from .summary import Answer, answer, budget
from .unstarted import lacking

VALIDATION = "Validation is on data held out of the training set."
NO_VALIDATION = "The recipe chooses nothing on the way and holds nothing out: these runs were followed on "
FOLLOWED = {"test": "the test set.", "held-out": "the part of the training data that they are scored on."}


@dataclass
class Section:
    """A task's part of the report; empty lists and None where there is nothing to show."""

    task: Task
    rows: list[Compared]
    answer: Answer
    facts: str
    results: Table
    notes: list[str]
    budget: Table | None
    costs: Table
    against_cost: list[Picture]
    against_cost_of: str
    classes: Table | None
    runs: Table
    folds: list[Picture]
    tests: Table
    gains: Table | None
    between: list[Table]
    curves: list[Picture]
    curves_of: str
    gallery: Gallery
    references: Table | None
    failures: list[tuple[str, str, str]]

    @property
    def tables(self) -> list[Table]:
        """All tables, for CSV."""
        made = (self.results, self.budget, self.costs, self.classes, self.runs, self.tests, self.gains)
        made = (*made, *self.between, self.references)
        return [t for t in made if t is not None and t.rows]


def section(task: Task, looks: dict[str, Look], studio: Studio, pictures: bool = True) -> Section:
    """Works a task out.

    Args:
        task: The task.
        looks: How each operator is drawn, the same in the whole report.
        studio: Keeps the pictures.
        pictures: Whether networks are loaded to be looked into.
    """
    rows = compare(task)
    notes = []
    if published.source(task):
        notes.append(f"The paper's numbers: {published.source(task)}.")
        notes += [published.left_open(task), published.not_comparable(task)]
        if published.entry_of(task).get("folded"):
            notes.append(note())
    return Section(
        task=task,
        rows=rows,
        answer=answer(task, rows),
        facts=facts(task),
        results=tables.results(task, rows),
        notes=[n for n in notes if n],
        budget=budget(task, rows),
        costs=costs(task, rows),
        against_cost=cost_plot.against_cost(task, rows, looks, studio),
        against_cost_of=cost_plot.caption(task, rows),
        classes=classes(task, rows),
        runs=runs(task),
        folds=figures.folds(task, looks, studio),
        tests=tables.tests(task, rows),
        gains=gains(task, rows),
        between=between(task),
        curves=figures.curves(task, looks, studio),
        curves_of=_curves_of(task),
        gallery=gallery(task, studio) if pictures else Gallery(),
        references=references(task),
        failures=lacking(task),
    )


def _curves_of(task: Task) -> str:
    curves = [r.curve for m in task.models.values() for r in m.results.values() if r.curve is not None]
    held = VALIDATION if task.held_out else NO_VALIDATION + FOLLOWED[task.scored]
    told = f"Mean over runs; bands, from three runs on: its 95% confidence interval. {held}"
    if len({len(c.steps) for c in curves}) > 1:
        told += " Faint where some runs had stopped."
    if any(c.steps[0] > 1 for c in curves):
        told += " A network that starts late starts from its static twin, trained until then."
    return told


def facts(task: Task) -> str:
    """The task in a line: host, networks, data, protocol, recipe."""
    parts = [str(task.fact("about")).rstrip(".")] if task.fact("about") else []
    if host := task.fact("host"):
        parts.append(f"Trained by {host}: {', '.join(task.networks)}")
    if name := task.data("name"):
        unit = task.data("unit") or "samples"
        counts = [
            f"{task.data(k):,} {what}"
            for k, what in (("train", "training"), ("valid", "validation"), ("test", task.scored))
            if isinstance(task.data(k), int) and task.data(k) > 0
        ]
        parts.append(f"{name} ({', '.join(counts)} {unit}, {task.data('classes')} classes)")
    units = len(task.units)
    kind = "fold" if task.folded else "seed"
    parts.append(f"{units} {kind}{'' if units == 1 else 's'}")
    if recipe := task.fact("recipe"):
        parts.append(f"recipe {recipe}")
    return ". ".join(p[0].upper() + p[1:] for p in parts) + "."


def provenance(task: Task) -> dict[str, Any]:
    """Versions, commits, machines and commands of a task's finished cells, each once."""
    found: dict[str, dict[str, None]] = {"versions": {}, "git": {}, "machine": {}}
    for cell in task.cells:
        record = cell.record
        if record.get("versions"):
            found["versions"][", ".join(f"{k} {v}" for k, v in record["versions"].items())] = None
        if (git := record.get("git") or {}).get("commit"):
            found["git"][str(git["commit"])[:12] + (", with uncommitted changes" if git.get("dirty") else "")] = None
        if told := machine(record.get("machine")):
            found["machine"][told] = None
    seconds = sum(finite(c.record.get("seconds")) for c in task.cells if c.metrics is not None)
    ended = sorted(str(c.record["ended"]) for c in task.cells if c.record.get("ended"))
    made = {k: list(v) for k, v in found.items() if v}
    made["trained"] = f"{seconds / 3600:.1f} h" if seconds >= 7200 else f"{seconds / 60:.0f} min"
    if ended:
        made["finished"] = ended[-1]
    return made
